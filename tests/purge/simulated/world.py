"""Time, threads, wires and deaths as a test wants them: one event loop, nothing waits for a real clock.

A task belongs to the machine in whose name it was begun (`OWNER`, which what it begins inherits). A machine that dies
takes its tasks, and what its threads had not done yet, with it.
"""

import asyncio
import contextvars
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any

WALL_AT_0 = 1_700_000_000.0


class Machine:
    """What can die."""

    def __init__(self, name: str, seed: float) -> None:
        self.name = name
        self.luck = random.Random(seed)
        self.alive = True
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it in this machine's name."""
        token = OWNER.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            OWNER.reset(token)

    async def die(self) -> None:
        self.alive = False
        tasks = [task for task in self.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


OWNER: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("owner", default=None)


class _Jump(selectors.BaseSelector):
    """Waits for nothing: where nothing is to do until a moment, it is that moment."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        self.now += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Any:
        return {}

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self.set_task_factory(_owned)

    def time(self) -> float:
        return self._jump.now

    def _write_to_self(self) -> None:
        pass

    def wall(self) -> float:
        return WALL_AT_0 + self.time()


def _owned(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    owner = OWNER.get()
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda task: owner.tasks.pop(task, None))
    return task


class Threads(Executor):
    """Does what it is given one after the other, each after a delay, unless its machine has died by then."""

    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s
        self._last = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        loop, owner = asyncio.get_running_loop(), OWNER.get()
        future: Future[Any] = Future()
        luck = owner.luck.random() if owner is not None else 0.0
        self._last = max(self._last, loop.time() + luck**3 * self._slow_s)

        def work() -> None:
            if owner is not None and not owner.alive:
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        loop.call_at(self._last, work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class Wire:
    """One direction: what is sent arrives in order, each after a delay, and not at all once it is cut."""

    def __init__(self, seed: float, slow_s: float) -> None:
        self._chance = random.Random(seed)
        self.slow_s = slow_s
        self._last = 0.0
        self._held: deque[Any] = deque()
        self._stuck = False
        self.cut = False
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, item: Any) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + self._chance.random() ** 3 * self.slow_s)
        loop.call_at(self._last, self._arrive, item)

    def _arrive(self, item: Any) -> None:
        if self.cut:
            return
        if self._stuck:
            self._held.append(item)
        else:
            self.arrived.put_nowait(item)

    def hold(self, stuck: bool) -> None:
        """A partition: nothing is lost, nothing comes through."""
        self._stuck = stuck
        while self._held and not stuck:
            self.arrived.put_nowait(self._held.popleft())
