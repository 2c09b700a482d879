"""103 Early Hints through a real edge: the origin's own, and those of a stored page that has to be asked about."""

import asyncio

import pytest
from aiohttp import web

from tests.edge.world import World, until, world
from tests.wirekit import Answer, RawClient

LINK = "</style.css>; rel=preload; as=style"


async def ask(w: World, path: str = "/a", *lines: str, version: str = "1.1") -> list[Answer]:
    """Every head that answers one GET, the final one last."""
    async with await RawClient.connect(w.edge.listeners[0].port) as client:
        head = [f"GET {path} HTTP/{version}", f"Host: {w.authority}", *lines]
        await client.send("\r\n".join([*head, "", ""]).encode())
        answers = [await client.answer()]
        while answers[-1].status < 200:
            answers.append(await client.answer())
        return answers


def page(w: World, control: str = "max-age=0", link: str = f"{LINK}, </next>; rel=next") -> None:
    """Confirmed by 304; `w.gate` holds the origin back."""
    w.gate = asyncio.Event()
    w.gate.set()

    async def answer(request: web.Request) -> web.StreamResponse:
        await w.gate.wait()
        headers = {"Cache-Control": control, "ETag": '"v1"', "Link": link}
        return web.Response(status=304 if "If-None-Match" in request.headers else 200, headers=headers)

    w.answer = answer


ON = {"early_hints": True}


async def test_the_origins_own_are_passed_on_to_everybody_who_waits():
    async with world() as w:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.write(f"HTTP/1.1 103 Early Hints\r\nLink: {LINK}\r\n\r\n".encode())
            await gate.wait()
            return web.Response(body=b"page", headers={"Cache-Control": "max-age=60"})

        w.answer = answer
        async with await RawClient.connect(w.edge.listeners[0].port) as client:
            await client.send(f"GET /a HTTP/1.1\r\nHost: {w.authority}\r\n\r\n".encode())
            hints = await client.answer()
            assert (hints.status, hints.get("link")) == (103, LINK)
            gate.set()
            assert (await client.answer()).body == b"page"
        (hit,) = await ask(w)
        assert "; hit" in (hit.get("cache-status") or "")


async def test_a_stale_page_sends_its_links_before_the_origin_has_answered():
    async with world(cache=ON) as w:
        page(w)
        (first,) = await ask(w)
        assert first.status == 200
        w.gate.clear()
        async with await RawClient.connect(w.edge.listeners[0].port) as client:
            await client.send(f"GET /a HTTP/1.1\r\nHost: {w.authority}\r\n\r\n".encode())
            hints = await client.answer()
            assert (hints.status, hints.fields) == (103, [("Link", LINK)])
            w.gate.set()
            final = await client.answer()
            assert (final.status, final.get("link")) == (200, f"{LINK}, </next>; rel=next")
        assert len(w.asked) == 2


async def test_everybody_who_waits_is_told_once():
    async with world(cache=ON) as w:
        page(w)
        await ask(w)
        w.gate.clear()
        waiting = [asyncio.ensure_future(ask(w)) for _ in range(3)]
        await until(lambda: [fill.waiting for fill in w.edge.pipeline.collapse.fills.values()] == [3])
        w.gate.set()
        for answers in await asyncio.gather(*waiting):
            assert [answer.status for answer in answers] == [103, 200]


@pytest.mark.parametrize(
    ("settings", "control", "link", "lines", "version"),
    [
        pytest.param({}, "max-age=0", LINK, (), "1.1", id="off"),
        pytest.param(ON, "max-age=60", LINK, (), "1.1", id="served-at-once"),
        pytest.param(ON, "max-age=0, stale-while-revalidate=60", LINK, (), "1.1", id="served-stale-at-once"),
        pytest.param(ON, "max-age=0", "</next>; rel=next", (), "1.1", id="no-links-to-load"),
        pytest.param(ON, "max-age=0", LINK, ("Sec-Fetch-Mode: no-cors",), "1.1", id="no-page"),
        pytest.param(ON, "max-age=0", LINK, ("Connection: close",), "1.0", id="http-1.0"),
        pytest.param(ON, "max-age=0", LINK, ("Authorization: x",), "1.1", id="not-theirs-to-have"),
    ],
)
async def test_no_hints(settings, control, link, lines, version):
    async with world(cache=settings) as w:
        page(w, control, link)
        await ask(w)
        assert [answer.status for answer in await ask(w, "/a", *lines, version=version)] == [200]
        await until(lambda: not w.edge.pipeline.collapse.fills)


async def test_the_fast_lane_serves_sites_with_hints():
    async with world(cache=ON) as w:
        page(w, "max-age=60")
        await ask(w)
        lane = w.edge.listeners[0].lane
        before = lane.served
        await ask(w)
        assert lane.served == before + 1
