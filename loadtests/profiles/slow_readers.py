"""Five hundred clients that take 2 KB a second, beside normal ones: are the normal ones as quick as without?

The slow ones come and go in turns of a few seconds, in the order without, with, with, without: both kinds see the same
machine, and what it does beside them, or does more and more, counts for both alike. The turns' p99 are compared, by
their medians; where these are too far apart, how much turns of one kind differ among themselves says how often chance
alone would do that. The slow ones live in the director's process, not in locust's, whose own load would count against
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING

from loadtests.kit.content import octets, size_of
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally, quantile

if TYPE_CHECKING:
    from loadtests.kit.client import Client

SLOW = 500
SLOW_SIZE = 1_000_000
READ, EVERY_S = 2_048, 1.0
OBJECTS = 200
TURN_S = 5.0
SETTLE_S = 1.0
"""At the beginning of a turn, not measured: clients connect, and the first octets come at once."""
SHARE = 1.2
LEAST_TURNS = 4
"""Of each kind: with fewer, nothing could be said."""
CHANCE = 0.05
"""A difference that chance makes more often may be the machine's: the run is to be made again on a quieter one."""


def ask(client: Client) -> None:
    number = client.next() % OBJECTS
    size = min(size_of(number), 100_000)
    answer = client.get(f"/o/{number}-{size}", name="normal")
    if answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for object {number} of {size}")


def prepare(run: Run) -> None:
    for path in (f"/o/{OBJECTS + 1}-{SLOW_SIZE}", *(f"/o/{n}-{min(size_of(n), 100_000)}" for n in range(OBJECTS))):
        with urllib.request.urlopen(run.own.url + path, timeout=10) as response:
            response.read()


def chance_of(above: list[float], below: list[float]) -> float:
    """How often one list would lie as far above the other, if both were drawn alike (Mann and Whitney's U, exact)."""
    n, m = len(above), len(below)
    beyond = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below)
    # ways[i][u]: orders of i of the one and all of the other so far in which u pairs have the one above
    ways = [[1] + [0] * (n * m)] + [[0] * (n * m + 1) for _ in range(n)]
    for j in range(m + 1):
        for i in range(1, n + 1):
            before, here = ways[i - 1], ways[i]
            ways[i] = [(here[u] if j else 0) + (before[u - j] if u >= j else 0) for u in range(n * m + 1)]
    return sum(count for u, count in enumerate(ways[n]) if u >= beyond) / math.comb(n + m, n)


async def slow(port: int, begin: float, stop: float, taken: list[int]) -> None:
    """A client with a small receive buffer, which reads a little every second."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    loop = asyncio.get_running_loop()
    with contextlib.closing(sock), contextlib.suppress(OSError, TimeoutError):
        await asyncio.sleep(begin)
        async with asyncio.timeout(stop):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, f"GET /o/{OBJECTS + 1}-{SLOW_SIZE} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            while data := await loop.sock_recv(sock, READ):
                taken.append(len(data))
                await asyncio.sleep(EVERY_S)
    return


async def crowd(port: int, seconds: float, taken: list[int]) -> None:
    await asyncio.gather(*(slow(port, i / SLOW * EVERY_S, seconds, taken) for i in range(SLOW)))


def direct(run: Run) -> None:
    turns: list[tuple[bool, float, float]] = []
    taken: list[int] = []
    run.sleep(2.0)
    most = 0
    while run.left() > TURN_S + 1:
        there = len(turns) % 4 in (1, 2)
        run.mark("slow readers" if there else "without")
        begun = time.monotonic()
        thread = None
        if there:
            thread = threading.Thread(target=lambda: asyncio.run(crowd(run.own.port, TURN_S + SETTLE_S, taken)))
            thread.start()
        run.sleep(TURN_S)
        most = max(most, run.own.stats()["connections"])
        turns.append((there, begun + SETTLE_S, time.monotonic()))
        if thread is not None:
            thread.join()
            time.sleep(0.5)
    if len(turns) % 2:
        turns.pop()  # as many of each kind
    run.facts |= {"turns": turns, "connections at once": most, "octets the slow ones took": sum(taken)}


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    each: dict[bool, list[float]] = {False: [], True: []}
    asked = {False: 0, True: 0}
    for there, begin, end in run.facts["turns"]:
        buckets = seen.latencies("requests", run.seconds(begin, end))
        each[there].append(quantile(buckets, 0.99) or 0.0)
        asked[there] += sum(buckets.values())
    n, m = asked[False], asked[True]
    alone, beside = (median(each[kind]) if each[kind] else 0.0 for kind in (False, True))
    for there, name in ((False, "without"), (True, "beside slow readers")):
        run.facts[f"p99 of each turn {name}, ms"] = ", ".join(f"{value * 1000:.1f}" for value in each[there])
    most = run.facts["connections at once"]
    yield Check(most >= SLOW, f"{most} connections were open at once", f"only {most} connections were open at once")
    if len(each[True]) < LEAST_TURNS:
        yield Check(False, "", f"{len(each[True])} turns of each kind say nothing: {LEAST_TURNS} at least (--seconds)")
        return
    chance = chance_of(each[True], [p99 * SHARE for p99 in each[False]])
    yield Check(
        n > 0 and m > 0 and beside <= alone * SHARE,
        f"p99 of the normal clients, median of {len(each[True])} turns: {alone * 1000:.2f} ms without ({n} requests) "
        f"and {beside * 1000:.2f} ms beside {SLOW} slow readers ({m} requests)",
        f"p99 of the normal clients went from {alone * 1000:.2f} ms to {beside * 1000:.2f} ms beside {SLOW} slow ones, "
        "and 20 % are promised"
        + (f"; chance alone does that in {chance:.0%} of such runs: try on a quieter machine" * (chance >= CHANCE)),
    )


PROFILE = Profile(
    name="slow_readers",
    title="beside 500 clients at 2 KB/s, p99 of the normal ones stays within 20 %",
    ask=ask,
    direct=direct,
    prepare=prepare,
    judge=judge,
    users=20,
    seconds=90,
    think_s=0.03,
    files=SLOW + 100,
)
