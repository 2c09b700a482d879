"""Two gibibytes over an edge with a disk: what the origin sends, what memory it takes, and a browser that seeks."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import require
from tests.e2e.browser import chromium
from tests.e2e.edge import Edge, edge_process
from tests.e2e.film import FRAME, SECONDS, colour, key_frame, make_film
from tests.e2e.nginx import Nginx
from tests.e2e.test_site import count_peak_from_here, curl, memory_kib

pytestmark = pytest.mark.e2e

SIZE = 2 << 30
SLICE = 4 << 20
STEP = 1 << 20
"""At each multiple of it the file says where it is; else it holds nothing."""
LONG_AGO = (1_600_000_000, 1_600_000_000)


def made(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in range(0, SIZE, STEP):
            file.seek(at)
            file.write(mark(at))
    os.utime(path, LONG_AGO)


def mark(at: int) -> bytes:
    return b"here is %020d" % at


@pytest.fixture(scope="module")
def big(www: Nginx) -> Path:
    folder = www.base / "www" / "big"
    folder.mkdir(exist_ok=True)
    made(folder / "two")
    return folder


@pytest.fixture
def edge(www: Nginx, tmp_path: Path) -> Iterator[Edge]:
    with edge_process(www.url, f"workers: 0\ndisk: {{path: {tmp_path / 'cache'}, size: 4GiB}}") as running:
        yield running


async def test_curl_seeks_and_the_origin_sends_no_more_than_the_slices(www: Nginx, big: Path, edge: Edge) -> None:
    url = f"{edge.url}/big/two"
    places = [0, 1 << 30, (1 << 30) + 3 * STEP, SIZE - STEP, 700 * STEP]
    for at in places:
        got = await curl("-r", f"{at}-{at + 999}", url)
        assert got == mark(at) + bytes(1000 - len(mark(at)))
    assert (await curl("-r", "-1048576", url))[:28] == mark(SIZE - STEP)
    sent = await www.sent("/big/two")
    assert [octets for octets, _ in sent] == [SLICE] * 4, "two of the places are in one slice"
    for at in places:
        assert (await curl("-r", f"{at}-{at + 999}", url))[:28] == mark(at)
    assert len(await www.sent("/big/two")) == 4


@pytest.mark.alone
async def test_a_hundred_readers_take_little_memory(www: Nginx, big: Path, edge: Edge) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    (big / "shared").hardlink_to(big / "two")
    await curl("-r", "0-99", f"{edge.url}/big/two")
    count_peak_from_here(edge.process.pid)
    before = memory_kib(edge.process.pid, "VmRSS")

    async def read(session: aiohttp.ClientSession, number: int) -> None:
        first = number * 20 * STEP
        wanted = {"Range": f"bytes={first}-{first + 6 * STEP - 1}"}
        async with session.get(f"{edge.url}/big/shared", headers=wanted) as answer:
            assert answer.status == 206
            at = first
            while data := await answer.content.read(STEP - at % STEP):
                if at % STEP == 0 and len(data) > 28:
                    assert data[:28] == mark(at)
                at += len(data)
                if number % 4 == 0:
                    await asyncio.sleep(0.01)
            assert at == first + 6 * STEP

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(read(session, number) for number in range(100)))
    grown = memory_kib(edge.process.pid, "VmHWM") - before
    sent = sum(octets for octets, _ in await www.sent("/big/shared"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert grown < 64 * 1024
    assert sent <= 100 * 4 * SLICE


SEEK = """
  (async () => {
    const video = window.video ??= document.createElement('video');
    const happens = (name) => new Promise((done, fail) => {
      video.addEventListener(name, done, {once: true});
      video.addEventListener('error', () => fail(new Error(video.error.message)), {once: true});
    });
    if (!video.src) {
      const there = happens('loadeddata');
      video.muted = true;
      video.preload = 'auto';
      video.src = '/big/film.webm';
      await there;
    }
    const seeked = happens('seeked');
    video.currentTime = %f;
    await seeked;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 64;
    const context = canvas.getContext('2d');
    const wanted = [%d, %d, %d];
    let pixel;
    for (let looks = 0; looks < 200; looks++) {  // the frame may be shown a little after the event
      context.drawImage(video, 0, 0);
      pixel = [...context.getImageData(32, 32, 1, 1).data];
      if (wanted.every((value, channel) => Math.abs(value - pixel[channel]) < 16)) break;
      await new Promise((done) => setTimeout(done, 50));
    }
    return [video.duration, ...pixel];
  })()
"""


async def test_a_browser_seeks_in_a_film_of_two_gibibytes(www: Nginx, big: Path, edge: Edge, tmp_path: Path) -> None:
    clusters = 12
    (big / "film.html").write_text("<!doctype html><title>film</title><link rel=icon href=data:,>")
    async with chromium(require("chromium"), tmp_path / "profile") as tab:
        await tab.goto(f"{edge.url}/big/film.html")
        frames = [key_frame(await tab.run(FRAME % colour(number))) for number in range(clusters)]
        size = make_film(big / "film.webm", frames, SIZE // (clusters - 1))
        os.utime(big / "film.webm", LONG_AGO)
        assert size > SIZE
        for cluster in (0, 7, 11, 2, 9, 7):
            duration, *pixel, _ = await tab.run(SEEK % (cluster * SECONDS + 2.5, *colour(cluster)))
            assert duration == clusters * SECONDS
            assert all(abs(got - wanted) < 16 for got, wanted in zip(pixel, colour(cluster), strict=True)), cluster
    sent = await www.sent("/big/film.webm")
    figures = await edge.stats()
    fetched = sum(octets for octets, _ in sent)
    assert fetched < 512 << 20, "some slices around each place; a player reads ahead as it likes"
    assert fetched <= figures["bytes"]["sent"] + 3 * SLICE * figures["requests"]["total"]
    assert len({asked for _, asked in sent}) == len(sent), "each slice once"
    assert any(asked != "-" for _, asked in sent), "slices"
