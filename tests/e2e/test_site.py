"""A real site behind the edge: nginx serving documentation, curl and Chromium asking for it."""

import asyncio
import re
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import require
from tests.e2e.browser import chromium
from tests.e2e.edge import Edge
from tests.e2e.nginx import Nginx
from tests.e2e.tree import assets_of

pytestmark = pytest.mark.e2e

_fresh = count(1)
OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date"}
OF_THE_EDGE = {"age", "cache-status", "via"}


def cold() -> str:
    """A query nobody has used: the file behind it is the same, the cache key is not."""
    return f"?cold={next(_fresh)}"


def page_and_assets(www: Nginx, doc: Path | None) -> list[str]:
    page = doc if doc is not None else www.base / "www" / "site" / "index.html"
    prefix = "/doc/" if doc is not None else "/site/"
    return [prefix + page.name, *(prefix + name for name in assets_of(page))]


async def curl(*args: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        require("curl"), "-sS", "--fail", "--max-time", "60", *args, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


@pytest.fixture(params=["real", "made"])
def paths(request: pytest.FixtureRequest, www: Nginx) -> list[str]:
    """A page and what it loads."""
    return page_and_assets(www, request.getfixturevalue("doc") if request.param == "real" else None)


async def test_curl_twice_costs_the_origin_once(www: Nginx, front: Edge, paths: list[str], tmp_path: Path) -> None:
    query = cold()

    async def load(base: str, name: str) -> list[bytes]:
        args = []
        for number, path in enumerate(paths):
            args += ["-o", str(tmp_path / f"{name}{number}"), f"{base}{path}{query}"]
        await curl(*args)
        return [(tmp_path / f"{name}{number}").read_bytes() for number in range(len(paths))]

    direct = await load(www.url, "direct")
    await www.asked()
    first = await load(front.url, "first")
    assert sorted(await www.asked()) == sorted(f"200 GET {path}{query}" for path in paths)
    second = await load(front.url, "second")
    assert await www.asked() == []
    assert first == direct
    assert second == direct
    assert len(paths) > 3


async def test_chromium_twice_costs_the_origin_once(www: Nginx, front: Edge, paths: list[str], tmp_path: Path) -> None:
    program = require("chromium")
    await front.purge({"all": True})
    # Browsers ask for it when they like, at times after everything else: it is cached (as a 404) from the start.
    async with aiohttp.ClientSession() as session, session.get(f"{front.url}/favicon.ico") as icon:
        assert icon.status == 404
    await www.asked()
    loaded = "performance.getEntriesByType('resource').filter((entry) => entry.responseStatus === 200).length"
    async with chromium(program, tmp_path / "profile") as tab:
        await tab.goto(front.url + paths[0])
        first = await www.asked()
        assert {f"200 GET {path}" for path in paths} <= set(first)
        assert await tab.run(loaded) >= len(paths) - 1
        # The browser's own cache would hide the edge. (Switching it off would say no-cache in each request.)
        await tab.call("Network.clearBrowserCache")
        await tab.goto(front.url + paths[0])
        assert await tab.run(loaded) >= len(paths) - 1
        # What a style sheet names the browser asks for when it draws: at times not before the page is left again.
        asked = first + await www.asked()
        assert len(asked) == len(set(asked)), "once each, whenever it was"


async def test_an_expired_page_is_revalidated_with_304(www: Nginx, front: Edge) -> None:
    path = f"/brief/index.html{cold()}"
    await www.asked()
    async with aiohttp.ClientSession() as session:

        async def ask() -> tuple[str, bytes]:
            async with session.get(front.url + path) as response:
                assert response.status == 200
                return response.headers["Cache-Status"], await response.read()

        _, body = await ask()
        status, _ = await ask()
        assert "hit" in status
        while "hit" in status and "fwd" not in status:  # it expires after a second: ask until it has
            await asyncio.sleep(0.05)
            status, again = await ask()
        assert "fwd=stale" in status
        assert "fwd-status=304" in status
        assert again == body
        status, _ = await ask()
        assert "hit" in status, "freshened for another second"
    asked = await www.asked()
    assert asked == [f"200 GET {path}", f"304 GET {path}"]


async def test_soft_purge_makes_it_ask_and_304_suffices(www: Nginx, front: Edge) -> None:
    path = f"/site/manual.css{cold()}"
    first = await curl(front.url + path)
    await www.asked()
    await front.purge({"urls": [front.url + path], "soft": True})
    assert await curl(front.url + path) == first
    assert await www.asked() == [f"304 GET {path}"]
    assert await curl(front.url + path) == first
    assert await www.asked() == []


async def test_what_nginx_compressed_stays_as_it_is(www: Nginx, front: Edge) -> None:
    path = f"/site/manual.css{cold()}"
    gzip = {"Accept-Encoding": "gzip"}
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session:

        async def ask(base: str, headers: dict[str, str]) -> tuple[str | None, bytes, str]:
            async with session.get(base + path, headers=headers) as response:
                return (
                    response.headers.get("Content-Encoding"),
                    await response.read(),
                    response.headers.get("Cache-Status", ""),
                )

        direct = await ask(www.url, gzip)
        plain = await ask(www.url, {})
        assert (direct[0], plain[0]) == ("gzip", None)
        await www.asked()
        for again in (False, True):
            squeezed, whole = await ask(front.url, gzip), await ask(front.url, {})
            assert squeezed[:2] == direct[:2]
            assert whole[:2] == plain[:2]
            assert ("hit" in squeezed[2], "hit" in whole[2]) == (again, again)
        assert len(await www.asked()) == 2


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("asked", ["0-99", "100-199", "-7", "3000-"])
async def test_ranges(www: Nginx, front: Edge, asked: str, warm: bool) -> None:
    path = f"/site/plate-3.png{cold()}"
    if warm:
        await curl(front.url + path)
    await www.asked()
    async with aiohttp.ClientSession() as session:
        answers = []
        for base in (www.url, front.url):
            async with session.get(base + path, headers={"Range": f"bytes={asked}"}) as response:
                answers.append((response.status, response.headers["Content-Range"], await response.read()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 206
    assert len(await www.asked()) == (1 if warm else 2)


@pytest.mark.parametrize("path", ["/site/index.html", "/site/plate-1.png", "/never/manual.js", "/site/nothing.html"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_heads_are_the_origins(www: Nginx, front: Edge, method: str, path: str) -> None:
    path += cold()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        heads = []
        for base in (www.url, front.url, front.url):
            async with session.request(method, base + path) as response:
                lines = [(name.lower(), value) for name, value in response.headers.items()]
                heads.append((response.status, response.reason, sorted(lines), await response.read()))
    direct, first, second = heads
    for through in (first, second):
        assert through[:2] == direct[:2]
        assert through[3] == direct[3]
        names = OF_THE_CONNECTION | OF_THE_EDGE | {"content-length"}
        assert [line for line in through[2] if line[0] not in names] == [
            line for line in direct[2] if line[0] not in names
        ]
        assert OF_THE_EDGE - {"age"} <= {name for name, _ in through[2]}


def memory_kib(pid: int, what: str) -> int:
    match = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def count_peak_from_here(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.alone
async def test_two_gibibytes_pass_in_bounded_memory(www: Nginx, front: Edge) -> None:
    size = 2 << 30
    big = www.base / "www" / "big"
    big.mkdir(exist_ok=True)
    with (big / "zeros").open("wb") as file:
        file.truncate(size)
    await curl(front.url + "/site/index.html")
    count_peak_from_here(front.process.pid)
    before = memory_kib(front.process.pid, "VmRSS")
    got = await curl("-o", "/dev/null", "-w", "%{size_download}", f"{front.url}/big/zeros{cold()}")
    peak = memory_kib(front.process.pid, "VmHWM")
    assert int(got) == size
    assert peak - before < 32 * 1024
