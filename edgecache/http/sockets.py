"""Listening sockets: made before anything serves, so that whoever is to accept on them can come and go.

A bound socket outlives the processes that accept on it as long as one process keeps it open: connections then wait in
its queue instead of being refused.
"""

import contextlib
import ctypes
import errno
import socket
import struct

BACKLOG = 1024
_RECEIVE_BYTES = 4 << 20
"""Room for datagrams that come while their reader is busy; the system may give less."""
_SO_ATTACH_FILTER = 26


def bind(host: str, port: int, *, share: bool = False) -> socket.socket:
    """A bound TCP socket that does not listen yet. Raises OSError.

    `host` "" means every address: both families where the machine has IPv6. `share`: others may bind the same address
    for themselves (SO_REUSEPORT), and the system spreads connections over those that listen.
    """
    everywhere = host == "" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host or everywhere else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not everywhere)
        # The scope of a link-local address, "fe80::1%eth0", is what getaddrinfo is for.
        where = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        made.bind(where)
        made.setblocking(False)
    except socket.gaierror as error:
        made.close()
        raise OSError(errno.EADDRNOTAVAIL, "no such address on this machine") from error
    except BaseException:
        made.close()
        raise
    return made


def bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on the same port, shared (SO_REUSEPORT). Where the system chooses it, one that is free for both.
    Raises OSError."""
    for _ in range(20):
        tcp = bind(host, port, share=True)
        udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with contextlib.suppress(OSError):
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            if tcp.family == socket.AF_INET6:
                only = tcp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            udp.bind(tcp.getsockname())
            udp.setblocking(False)
        except OSError as error:
            udp.close()
            tcp.close()
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue
            raise
        return udp, tcp
    raise OSError(errno.EADDRINUSE, "no port is free for both UDP and TCP")


def hush(listener: socket.socket) -> None:
    """No new connection from now on, while those under way still arrive in the queue.

    Closing a listening socket resets what has been connected and not accepted. So first the kernel is told to overlook
    SYN segments here (a filter on the socket, Linux), then the queue is emptied, then the socket is closed: a client
    that tries in between tries again a moment later, and finds another server or none.
    """
    program = struct.pack(
        "HBBIHBBIHBBIHBBI",
        *(0x30, 0, 0, 13),  # the octet of flags in the TCP header
        *(0x45, 0, 1, 0x02),  # SYN?
        *(0x06, 0, 0, 0),  # drop
        *(0x06, 0, 0, 0xFFFFFFFF),  # take
    )
    code = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError):  # then a few connections may be reset, no more
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(code)))


def taken(host: str, port: int) -> bool:
    """Does somebody listen there already? SO_REUSEPORT lets two servers of one user share a port by mistake."""
    if port == 0:
        return False
    try:
        bind(host, port).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
