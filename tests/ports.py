"""Ports for what cannot be told to take any: nobody else's, also where several test processes run side by side.

They lie below those that the kernel gives to outgoing connections, one of which could take a port between its choice
and its use. A file lock that ends with this process keeps other test processes off.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_FIRST = 12_000
_HELD: list[int] = []
"""Descriptors of the files locked."""


def free_ports(count: int, *hosts: str) -> list[int]:
    """Ports that are free on all of these addresses (default: 127.0.0.1)."""
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(_FIRST, max(first_of_kernel, _FIRST + 10_000)), 10_000):
        if len(found) == count:
            return found
        if _reserve(port) and all(_free(host, port) for host in hosts or ("127.0.0.1",)):
            found.append(port)
    raise AssertionError("no ports are left")


def free_port(*hosts: str) -> int:
    (port,) = free_ports(1, *hosts)
    return port


def _reserve(port: int) -> bool:
    folder = Path(tempfile.gettempdir(), f"edgecache-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _HELD.append(descriptor)
    return True


def _free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                continue
            return False
    return True
