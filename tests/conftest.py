"""What all tests share: the product's event loop, and the check that a test leaves nothing behind."""

import asyncio
import contextlib
import faulthandler
import functools
import inspect
import os
import shutil
import subprocess
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings

settings.register_profile("edgecache", deadline=None)  # it would measure the machine, which others use as well
settings.load_profile("edgecache")

LEAK_GRACE_S = 10.0
"""How long closing connections and cancelled tasks may take to be gone after a test."""

TAKING_DOWN_S = 60.0
"""How long what a test has begun may take to end, beyond the test's own limit."""

_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # before what tests print is captured


class _Loop(uvloop.Loop):
    def close(self) -> None:
        """What is left open is an error once it is closed: raised in between it would keep the loop waiting."""
        with warnings.catch_warnings(record=True, category=ResourceWarning) as left:
            warnings.simplefilter("always", ResourceWarning)
            super().close()
        assert not left, f"left open: {[str(warning.message) for warning in left]}"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, object]:
    """Everything that runs on a loop runs on the one the product uses."""
    return {"uvloop": _Loop}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What runs where, with `-n`."""
    from tests.abreast import Abreast

    return Abreast(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and (limit := _limit(item)):
            item.obj = _within(item.obj, limit)
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.abreast import rank

        items.sort(key=rank)


def _limit(item: pytest.Item) -> float:
    """pytest-timeout's, in seconds; 0: none."""
    if (mark := item.get_closest_marker("timeout")) is not None:
        return float(mark.args[0])
    asked = item.config.getoption("timeout", None)
    return float(item.config.getini("timeout") if asked is None else asked)


def _within(test: Callable[..., Coroutine[Any, Any, None]], seconds: float) -> Callable[..., Coroutine[Any, Any, None]]:
    """pytest-timeout's signal does not get through to what waits in uvloop: the loop itself ends the test, before."""

    @functools.wraps(test)
    async def bounded(*args: Any, **named: Any) -> None:
        async with asyncio.timeout(max(seconds - 1, seconds / 2)):
            await test(*args, **named)

    return bounded


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Before a test's time limit runs, it waits for those that nothing may run beside."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with _watched(item):
            return (yield)
    from tests.abreast import turn

    with turn(item), _watched(item):
        return (yield)


@contextlib.contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    """What hangs beyond all limits takes the process with it: every thread's stack is printed, and the run goes on.

    pytest-timeout does not look at how a failed test is taken down, and its signal may be lost in a loop or in a thread
    that is waited for.
    """
    if limit := _limit(item):
        faulthandler.dump_traceback_later(limit + TAKING_DOWN_S, exit=True, file=item.config.stash[_stderr])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """pytest ends its own watching of a test that has failed, and with it this one."""
    if isinstance(node, pytest.Item):
        faulthandler.dump_traceback_later(TAKING_DOWN_S, exit=True, file=node.config.stash[_stderr])


def _sockets() -> int:
    """How many are open. A number: the loop replaces its own pair for signals each time it runs."""
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            found += str(Path("/proc/self/fd", entry).readlink()).startswith("socket:")
    return found


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> None:
    """An asynchronous test leaves no pending task and no open socket."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("no_leaks_on_loop")


@pytest.fixture
async def no_leaks_on_loop() -> AsyncIterator[None]:
    sockets = _sockets()
    mine = {asyncio.current_task()}
    yield
    mine.add(asyncio.current_task())
    loop = asyncio.get_running_loop()
    until = loop.time() + LEAK_GRACE_S
    while (tasks := asyncio.all_tasks() - mine) or _sockets() > sockets:
        if loop.time() > until:
            break
        await asyncio.sleep(0.01)
    assert not tasks, f"tasks left behind: {tasks}"
    left = _sockets() - sockets
    assert left <= 0, f"sockets left open: {left}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "localhost", "IP:127.0.0.1")


def self_signed(folder: Path, name: str, *also: str) -> tuple[Path, Path]:
    """A certificate for this name, and its key, in files of the folder."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={','.join((f'DNS:{name}', *also))}"]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


def require(program: str) -> str:
    """The path of an installed program. Without it the test is skipped with the reason; under CI=true it fails."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        reason = f"{program} is not installed (Debian: apt-get install {program})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
