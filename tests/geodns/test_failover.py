"""A PoP dies and comes back: when it leaves the answers, when it returns, and what it is given for time to live."""

import asyncio
import time

import pytest

from tests.geodns.serving import PopServer, Running, beside
from tests.geodns.world import addresses
from tests.ports import free_port

NEAR, FAR = "127.0.0.2", "127.0.0.3"
INTERVAL_S, FALL, RISE = 0.5, 3, 2
ALIKE_S = 1.0
"""By then both processes answer alike: each is told by itself."""


def config(port: int) -> str:
    return f"""
workers: 2
check: {{port: {port}, path: /healthz, interval: {INTERVAL_S}, timeout: 0.3, fall: {FALL}, rise: {RISE}}}
rate_limit: {{responses: 0}}
location: {{networks: [{{network: 127.0.0.0/8, latitude: 50, longitude: 8}}]}}
pops:
  - {{name: near, latitude: 50, longitude: 8, addresses: [{NEAR}]}}
  - {{name: far, latitude: 40, longitude: -74, addresses: [{FAR}]}}
zones: [{{name: z.example, nameservers: [ns1], geo: [{{name: www, ttl: 30s, min_ttl: 1s}}]}}]
"""


class Watcher:
    """Asks all the time, and writes down what was said when."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.seen: list[tuple[float, str, int]] = []

    async def watch(self) -> None:
        while True:
            answer = await asyncio.to_thread(self._running.ask, "www.z.example")
            self.seen.append((time.monotonic(), addresses(answer)[0], answer.answer[0].ttl))
            await asyncio.sleep(0.02)

    async def until(self, address: str, since: float) -> float:
        """When every answer was this, from then on; waits for a while of it."""
        async with asyncio.timeout(20):
            while not (self.seen and self.seen[-1][1] == address and self.seen[-1][0] > since):  # noqa: ASYNC110 - a real clock
                await asyncio.sleep(0.02)
        return self.seen[-1][0]

    def between(self, begin: float, end: float) -> set[str]:
        return {address for at, address, _ in self.seen if begin <= at <= end}


@pytest.mark.e2e
async def test_the_timeline_of_a_failover() -> None:
    port = free_port(NEAR, FAR)
    near, far = PopServer(NEAR, port), PopServer(FAR, port)
    await near.start()
    await far.start()
    try:
        async with beside(config(port)) as running:
            watcher = Watcher(running)
            watching = asyncio.get_running_loop().create_task(watcher.watch())
            try:
                await watcher.until(NEAR, 0.0)
                died = time.monotonic()
                await near.stop()
                out = await watcher.until(FAR, died)
                await asyncio.sleep(ALIKE_S + 2 * INTERVAL_S)
                returned = time.monotonic()
                await near.start()
                back = await watcher.until(NEAR, returned)
                near.status = 503  # once: too little to be out for
                await asyncio.sleep(INTERVAL_S)
                near.status = 200
                await asyncio.sleep(ALIKE_S + 2 * INTERVAL_S)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            print(f"out of answers after {out - died:.2f} s, back after {back - returned:.2f} s")
            assert out - died <= INTERVAL_S * FALL + 1
            assert back - returned <= INTERVAL_S * RISE + 1
            assert watcher.between(0.0, died) == {NEAR}
            assert watcher.between(out + ALIKE_S, returned) == {FAR}
            assert watcher.between(back + ALIKE_S, time.monotonic()) == {NEAR}, "no flapping"
            assert max(ttl for _, _, ttl in watcher.seen) <= 1, "nothing is settled for longer"
            said = [line for line in running.process.lines if "PoP near: " in line]
            assert ["check fails" in line for line in said] == [True, False], "and up"
    finally:
        await near.stop()
        await far.stop()


@pytest.mark.e2e
async def test_nothing_is_answered_before_the_first_look() -> None:
    """The near PoP is dead at start: no answer ever names it."""
    port = free_port(NEAR, FAR)
    far = PopServer(FAR, port)
    await far.start()
    try:
        async with beside(config(port)) as running:
            answers = [await asyncio.to_thread(running.ask, "www.z.example") for _ in range(20)]
            assert {addresses(answer)[0] for answer in answers} == {FAR}
    finally:
        await far.stop()
