"""SIGTERM under load: what is in flight ends as if nothing had happened, and the process ends after it."""

import asyncio
import signal

import aiohttp
import pytest

from tests.e2e.edge import edge
from tests.e2e.origin import Answer, Asked, origin

pytestmark = pytest.mark.e2e

HEAD = b"half of it, "
TAIL = b"and the other half" * 5000
IN_FLIGHT = 60
BUSY = 8


@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_in_flight_is_cut(workers: int) -> None:
    release = asyncio.Event()

    async def answer(asked: Asked, reply: Answer) -> None:
        if asked.target.startswith("/small"):
            await reply.whole(b"small", "Cache-Control: no-store")
            return
        cache = "no-store" if asked.target.startswith("/pass") else "max-age=600"
        await reply.head(f"Cache-Control: {cache}|Content-Length: {len(HEAD + TAIL)}")
        await reply.send(HEAD)
        await release.wait()
        await reply.send(TAIL)

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        origin(answer) as site,
        edge(site.url, f"workers: {workers}") as front,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        begun = 0
        all_begun = asyncio.Event()

        async def long_one(path: str) -> bytes:
            nonlocal begun
            async with session.get(front.url + path) as response:
                first = await response.content.readexactly(len(HEAD))
                begun += 1
                if begun == IN_FLIGHT:
                    all_begun.set()
                return first + await response.content.read()

        async def keep_busy() -> int:
            """Requests one after another on kept-alive connections until the edge takes no more of them."""
            answered = 0
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            try:
                while True:
                    writer.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
                    # Between two responses the edge may close; inside one it may not.
                    first = await reader.read(1)
                    if not first:
                        return answered
                    head = first + await reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200 ")
                    assert await reader.readexactly(5) == b"small"
                    answered += 1
            except ConnectionResetError:
                # The close crossed our next request on the way: nothing of a response had come.
                return answered
            finally:
                writer.close()

        # Half of them are passed through. The others share fetches, if there is one worker: those of another wait for
        # the whole object.
        paths = [f"/{'pass' if i % 2 else 'fill'}/{i // 4 if workers == 1 else i}" for i in range(IN_FLIGHT)]
        async with asyncio.TaskGroup() as group:
            long_ones = [group.create_task(long_one(path)) for path in paths]
            busy = [group.create_task(keep_busy()) for _ in range(BUSY)]
            await asyncio.wait_for(all_begun.wait(), 60)
            front.process.send_signal(signal.SIGTERM)
            # The busy ones end because the edge ends their connections, while the long ones are still open.
            answered = await asyncio.wait_for(asyncio.gather(*busy), 30)
            assert not any(task.done() for task in long_ones)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", front.port)
            release.set()
        assert all(count > 0 for count in answered)
        assert {task.result() for task in long_ones} == {HEAD + TAIL}
        assert await front.ended() == 0
