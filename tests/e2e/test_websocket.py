"""WebSocket through the edge, aiohttp at both ends."""

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.edge import edge

pytestmark = pytest.mark.e2e


async def test_messages_pass_both_ways_and_the_close_code_too() -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["echo.v1"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT and message.data == "bye":
                await socket.close(code=4001, message=b"as asked")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data.upper())
            else:
                await socket.send_bytes(message.data[::-1])
        return socket

    app = web.Application()
    app.router.add_get("/chat", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with (
            edge(f"http://127.0.0.1:{port}") as front,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{front.url}/chat", protocols=["echo.v1"], max_msg_size=0) as socket,
        ):
            assert socket.protocol == "echo.v1"
            for number in range(50):
                await socket.send_str(f"hello {number}")
                assert await socket.receive_str(timeout=20) == f"HELLO {number}"
            big = bytes(range(256)) * 4096
            await socket.send_bytes(big)
            assert await socket.receive_bytes(timeout=20) == big[::-1]
            await socket.ping(b"there?")
            await socket.send_str("bye")
            closing = await socket.receive(timeout=20)
            assert (closing.type, closing.data, closing.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "as asked")
    finally:
        await runner.cleanup()
