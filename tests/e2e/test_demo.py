"""The demo as a person sees it: start, look, reload, publish, look again."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import dns.asyncquery
import dns.message
import pytest

from tests.conftest import require
from tests.e2e.browser import Tab, chromium
from tests.e2e.edge import TOKEN, Process

pytestmark = pytest.mark.e2e


@pytest.fixture
def demo() -> Iterator[str]:
    """The demo's URL. It must end with 0 and complain of nothing."""
    args = ("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    running = Process(*args, signs=("listening on",))
    try:
        yield f"http://127.0.0.1:{running.ports()[0]}"
    finally:
        code = running.stop()
    assert code == 0, running.lines
    assert running.complaints() == []


async def look(tab: Tab) -> str:
    """The word of the panel, once it has settled."""
    word: str = await tab.until("document.documentElement.dataset.edge")
    return word


async def test_miss_hit_publish_miss_in_a_browser(demo: str, tmp_path: Path) -> None:
    async with chromium(require("chromium"), tmp_path / "profile") as tab:
        page = f"{demo}/products/42"
        name = "document.querySelector('h1').textContent"
        await tab.goto(page)
        assert await look(tab) == "MISS"
        before = await tab.run(name)
        await tab.goto(page)
        assert await look(tab) == "HIT"
        assert "did not see this request" in await tab.run("document.getElementById('edge-text').textContent")
        assert await tab.until("document.getElementById('edge-parts').textContent.includes('/products/42.svg')")
        # Press the button: the form goes through the edge, the shop purges, and the browser is sent back here.
        loaded = tab.event("Page.loadEventFired")
        await tab.run("document.querySelector('#publish button').click()")
        await asyncio.wait_for(loaded, 60)
        assert await look(tab) == "MISS"
        assert await tab.run(name) != before
        log = await tab.until("document.getElementById('edge-log').textContent")
        assert "purged product-42" in log
        assert "published version 2" in log
        await tab.goto(page)
        assert await look(tab) == "HIT"
        assert not [entry for entry in tab.console if "Content Security Policy" in entry]


async def test_what_the_panel_says_is_what_happened(demo: str, tmp_path: Path) -> None:
    async with chromium(require("chromium"), tmp_path / "profile") as tab:
        counts = "[...document.querySelectorAll('.tally b')].map((b) => Number(b.textContent))"
        settled = "document.getElementById('tally-origin').textContent !== '–'"
        await tab.goto(f"{demo}/about")
        assert await look(tab) == "MISS"
        await tab.until(settled)
        origin = (await tab.run(counts))[1]
        await tab.goto(f"{demo}/about")
        assert await look(tab) in ("HIT", "REVALIDATED")  # the latter when the machine took five seconds over it
        await tab.until(settled)
        again = (await tab.run(counts))[1]
        assert again - origin <= (await tab.run("document.documentElement.dataset.edge") == "REVALIDATED")
        await tab.goto(f"{demo}/basket")
        assert await look(tab) == "PASS"


async def test_each_page_does_what_it_says(demo: str) -> None:
    async with aiohttp.ClientSession() as session:

        async def status(path: str, **headers: str) -> str:
            async with session.get(demo + path, headers=headers) as response:
                assert response.status == 200
                await response.read()
                return response.headers["Cache-Status"]

        for path in ("/", "/products", "/products/41", "/products/41.svg", "/kiln", "/assets/shop.css"):
            assert "fwd=uri-miss" in await status(path), path
            assert "; hit" in await status(path), path
        for _ in range(2):
            assert "fwd=" in await status("/basket")
        assert "stored" in await status("/hello", **{"Accept-Language": "de"})
        assert "fwd=vary-miss" in await status("/hello", **{"Accept-Language": "fr"})
        assert "; hit" in await status("/hello", **{"Accept-Language": "de"})


async def test_publish_purges_what_shows_the_product_and_nothing_else(demo: str) -> None:
    shows = ("/products", "/products/42", "/products/42.svg")
    others = ("/", "/products/41", "/products/41.svg")
    async with aiohttp.ClientSession() as session:

        async def hit(path: str) -> bool:
            async with session.get(demo + path) as response:
                await response.read()
                return "; hit" in response.headers["Cache-Status"]

        for path in shows + others:
            await hit(path)
        async with session.post(f"{demo}/products/42/publish", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/products/42")
        assert {path: await hit(path) for path in shows + others} == dict.fromkeys(shows, False) | dict.fromkeys(
            others, True
        )


async def test_a_taken_port_is_named_with_a_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgecache", "demo", "--listen", address, "--admin", "127.0.0.1:0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        said = (out + err).decode()
        assert process.returncode == 2
        assert address in said
        assert "--listen" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_stops_at_once_with_pages_open(number: signal.Signals) -> None:
    args = ("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    running = Process(*args, signs=("listening on",))
    try:
        url = f"http://127.0.0.1:{running.ports()[0]}/demo/feed"
        async with aiohttp.ClientSession() as session, session.get(url) as feed:
            assert re.match(rb"data: {", await feed.content.readuntil(b"\n\n"))
            running.process.send_signal(number)
            await feed.read()  # the stream ends properly
        assert await asyncio.to_thread(running.process.wait, 20) == 0
    finally:
        running.stop()
    assert running.complaints() == []


async def test_two_edges_one_purge_and_a_resolver_that_finds_the_next_edge() -> None:
    require("unbound")
    running = Process("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", signs=("listening on",))
    try:
        port = running.ports()[0]
        async with asyncio.timeout(20):
            while not (killed := re.search(r"kill -9 (\d+)", "\n".join(running.lines))):  # noqa: ASYNC110 - its output
                await asyncio.sleep(0.02)
        text = "\n".join(running.lines)
        resolver = int(re.search(r"dig \+short -p (\d+)", text)[1])  # type: ignore[index]
        admin = re.search(r"Admin API +(http://[^/]+)", text)[1]  # type: ignore[index]

        async def nearest(source: str) -> str:
            query = dns.message.make_query("www.demo.example", "A")
            answer = await dns.asyncquery.udp(query, "127.0.0.1", 10, resolver, source=source)
            return str(answer.answer[0][0])

        assert (await nearest("127.1.0.9"), await nearest("127.2.0.9")) == ("127.0.0.1", "127.0.0.2")
        async with aiohttp.ClientSession() as session:

            async def status(address: str) -> str:
                async with session.get(f"http://{address}:{port}/products/42") as answer:
                    return answer.headers["Cache-Status"]

            for address in ("127.0.0.1", "127.0.0.2"):
                await status(address)
                assert "hit" in await status(address)
            command = (sys.executable, "-m", "edgecache", "purge", "--to", admin, "--key", "product-42", "--wait")
            env = {**os.environ, "EDGECACHE_TOKEN": TOKEN}
            told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, env=env)
            assert {"frankfurt", "new-york"} <= set(told.stdout.split())
            for address in ("127.0.0.1", "127.0.0.2"):
                assert "uri-miss" in await status(address)
        os.kill(int(killed[1]), signal.SIGKILL)
        async with asyncio.timeout(30):
            while await nearest("127.2.0.9") != "127.0.0.1":  # noqa: ASYNC110 - another process's clock
                await asyncio.sleep(0.1)
    finally:
        code = running.stop()
    assert code == 0, running.lines
    assert running.complaints() == []
