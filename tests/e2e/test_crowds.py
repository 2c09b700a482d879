"""Many clients, one cold object: one fetch, streamed to all, and nobody waits for somebody else."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from tests.e2e.edge import edge
from tests.e2e.origin import Answer, Asked, origin

pytestmark = pytest.mark.e2e

CROWD = 1000
FIRST = b"first " * 700
LAST = b"last. " * 9000


@pytest.fixture(autouse=True)
def _room() -> Iterator[None]:
    """A crowd needs a descriptor each, here and (inherited) in the edge."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CROWD
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"at most {hard} open files are allowed; {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowd(limit: int = 0) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit), timeout=aiohttp.ClientTimeout(total=90), auto_decompress=False
    )


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_cold_object_is_fetched_once_and_streamed_to_all(framing: str) -> None:
    release = asyncio.Event()

    async def answer(asked: Asked, reply: Answer) -> None:
        if framing == "length":
            await reply.head(f"Cache-Control: max-age=600|Content-Length: {len(FIRST + LAST)}")
            await reply.send(FIRST)
            await release.wait()
            await reply.send(LAST)
        else:
            await reply.head("Cache-Control: max-age=600|Transfer-Encoding: chunked")
            await reply.send(b"%x\r\n%s\r\n" % (len(FIRST), FIRST))
            await release.wait()
            await reply.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LAST), LAST))

    # One worker: those of another wait for the whole object.
    async with origin(answer) as site, edge(site.url, "workers: 1") as front, crowd() as session:
        streaming = 0
        all_streaming = asyncio.Event()

        async def ask() -> bytes:
            nonlocal streaming
            async with session.get(f"{front.url}/cold") as response:
                assert response.status == 200
                first = await response.content.readexactly(len(FIRST))
                streaming += 1
                if streaming == CROWD:
                    all_streaming.set()
                return first + await response.content.read()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask()) for _ in range(CROWD)]
            # Everyone has the first part while the origin still holds back the last.
            await asyncio.wait_for(all_streaming.wait(), 80)
            release.set()
        assert {task.result() for task in tasks} == {FIRST + LAST}
        assert site.count("/cold") == 1
        async with session.get(f"{front.url}/cold") as response:
            assert "hit" in response.headers["Cache-Status"]
            assert await response.read() == FIRST + LAST
        assert site.count("/cold") == 1


async def test_one_slow_reader_holds_up_nobody() -> None:
    body = bytes(range(256)) * 3600  # more than the socket buffers between hold, less than the largest stored object

    async def answer(asked: Asked, reply: Answer) -> None:
        await reply.whole(body, "Cache-Control: max-age=600")

    async with origin(answer) as site, edge(site.url) as front, crowd() as session:
        loop = asyncio.get_running_loop()
        hurry = asyncio.Event()
        got = bytearray()
        started = asyncio.Event()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", front.port))
            await loop.sock_sendall(slow, b"GET /cold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

            async def read_slowly() -> None:
                while data := await loop.sock_recv(slow, 1000 if not hurry.is_set() else 1 << 20):
                    got.extend(data)
                    started.set()
                    # A thousand octets a second, until told otherwise.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(hurry.wait(), 1)

            reader = loop.create_task(read_slowly())
            await asyncio.wait_for(started.wait(), 30)

            async def ask() -> bytes:
                async with session.get(f"{front.url}/cold", headers={"Host": "a"}) as response:
                    return await response.read()

            async with asyncio.timeout(40):
                bodies = await asyncio.gather(*(ask() for _ in range(40)))
            assert set(bodies) == {body}
            assert len(got) < len(body) // 2, "the slow one was not slow: this proves nothing"
            hurry.set()
            await asyncio.wait_for(reader, 30)
        head, _, received = bytes(got).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert received == body
        assert site.count("/cold") == 1


async def test_an_uncacheable_answer_releases_all_who_wait_at_once() -> None:
    waiting = 100
    release = asyncio.Event()
    everyone = asyncio.Event()
    asking = 0

    async def answer(asked: Asked, reply: Answer) -> None:
        nonlocal asking
        if asked.target != "/private":
            await reply.whole(b"warm", "Cache-Control: no-store")
            return
        asking += 1
        if asking == 1:
            await release.wait()
        else:
            if asking == waiting:
                everyone.set()
            # Nobody is answered before all have asked: were they let go one after another, this would never end.
            await everyone.wait()
        await reply.whole(b"for you alone", "Cache-Control: no-store")

    async with origin(answer) as site, edge(site.url) as front, crowd() as session:

        async def ask(path: str) -> bytes:
            async with session.get(front.url + path) as response:
                return await response.read()

        # Connections first, so that the requests are all with the edge once a later one has been answered.
        await asyncio.gather(*(ask(f"/warm/{i}") for i in range(waiting)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask("/private")) for _ in range(waiting)]
            await site.asked("/private", 1)
            await ask("/fence")
            assert site.count("/private") == 1, "they did not wait for the first"
            release.set()
        assert {task.result() for task in tasks} == {b"for you alone"}
        assert site.count("/private") == waiting
