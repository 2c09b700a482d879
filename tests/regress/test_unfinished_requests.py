"""A request whose body never ends, answered before it did: the time limit must outlive whoever was reading the body."""

import asyncio
import contextlib

from tests.edge.world import world
from tests.wirekit import RawClient

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_body_that_stops_after_its_answer_is_cut_off():
    """The reader that the origin's early answer cancelled used to switch off the limit of the one after it."""

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with (
            world(origin=origin, limits={"between_bytes_timeout": "300ms"}) as w,
            await RawClient.connect(w.edge.listeners[0].port) as client,
        ):
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
            assert (await client.answer()).body == b"ok"
            assert await asyncio.wait_for(client.rest(), 5) == b""
    finally:
        server.close()
