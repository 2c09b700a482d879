"""Headless Chromium, driven over its own debugging protocol: what a page loads and says is awaited, not guessed."""

import asyncio
import base64
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[str, list[asyncio.Future[dict[str, Any]]]] = {}
        self.console: list[str] = []
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            data = message.json()
            if (number := data.get("id")) is not None:
                self._answers.pop(number).set_result(data)
                continue
            if data["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(str(data["params"]))
            for waiter in self._events.pop(data["method"], []):
                waiter.set_result(data["params"])

    async def close(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._ids)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(future, 60)
        assert "error" not in answer, answer
        return answer["result"]

    def event(self, method: str) -> asyncio.Future[dict[str, Any]]:
        """The next event of this name."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._events.setdefault(method, []).append(future)
        return future

    async def goto(self, url: str) -> None:
        """Load a page with everything in it."""
        loaded = self.event("Page.loadEventFired")
        result = await self.call("Page.navigate", url=url)
        assert "errorText" not in result, result
        await asyncio.wait_for(loaded, 60)

    async def run(self, expression: str) -> Any:
        """The value of a script, promises awaited."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait, looking again at every change of the document, until a script's value is true; that value."""
        return await self.run(
            "new Promise((done) => {"
            f"  const ask = () => ({condition});"
            "  const look = () => { const value = ask(); if (value) { watch.disconnect(); done(value); } };"
            "  const watch = new MutationObserver(look);"
            "  watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});"
            "  look();"
            "})"
        )

    async def screenshot(self) -> bytes:
        """The window as PNG: what `assert` shows nobody, for whoever looks into a failure."""
        result = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(result["data"])


@contextlib.asynccontextmanager
async def chromium(program: str, profile: Path) -> AsyncIterator[Tab]:
    """A fresh browser with one tab, gone with all its processes at the end."""
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 20,
    )
    assert process.stderr is not None
    drain: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(60):
            while True:
                line = (await process.stderr.readline()).decode(errors="replace")
                assert line, "Chromium ended before it listened"
                if line.startswith("DevTools listening on ws://"):
                    address = line.split("//", 1)[1].split("/", 1)[0]
                    break
        drain = asyncio.get_running_loop().create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                pages = [target for target in await answer.json() if target["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await tab.call(f"{domain}.enable")
                yield tab
                await tab.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if drain is not None:
            drain.cancel()  # what has left its group may hold the other end
            await asyncio.wait([drain])
        process._transport.close()  # type: ignore[attr-defined] # with its end of the pipe
