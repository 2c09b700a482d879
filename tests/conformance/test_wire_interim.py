"""Interim responses and trailers on the wire: passed on while they are news, never stored as part of the answer."""

import pytest

from tests.conformance.wire import Asked, message, wire
from tests.wirekit import RawClient

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-Interim: 1\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
@pytest.mark.parametrize(
    ("interim", "statuses"),
    [
        pytest.param(HINTS, [103], id="103"),
        pytest.param(PROCESSING, [102], id="102"),
        pytest.param(PROCESSING + HINTS + HINTS, [102, 103, 103], id="several, in order"),
        pytest.param(b"HTTP/1.1 199 New\r\nX-New: 1\r\n\r\n", [199], id="one nobody has heard of"),
    ],
)
async def test_interim_answers_are_passed_on_and_the_final_one_is_its_own(
    interim: bytes, statuses: list[int], control: str
) -> None:
    """RFC 9110 §15.2; RFC 9111 §3: the response code is final."""
    async with wire(lambda _: message(("Cache-Control", control), interim=interim)) as here:
        await here.send()
        seen = [await here.client.answer() for _ in statuses]
        assert [answer.status for answer in seen] == statuses
        final = await here.client.answer()
        assert (final.status, final.body) == (200, b"hello")
        assert not {"link", "x-interim", "x-new"} & set(final.names())


async def test_interim_answers_are_not_stored() -> None:
    async with wire(lambda _: message(("Cache-Control", "max-age=600"), interim=HINTS)) as here:
        await here.send()
        assert [(await here.client.answer()).status for _ in range(2)] == [103, 200]
        for _ in range(2):
            answer = await here.ask()
            assert (answer.status, answer.body) == (200, b"hello")
            assert not {"link", "x-interim"} & set(answer.names())
        assert len(here.asked) == 1


async def test_a_validation_s_interim_answers_are_news_too() -> None:
    def replies(asked: Asked) -> bytes:
        fields = [("Cache-Control", "max-age=60"), ("Age", "90"), ("ETag", '"1"')]
        if asked.get("if-none-match"):
            return message(*fields, status="304 Not Modified", interim=HINTS)
        return message(*fields)

    async with wire(replies) as here:
        await here.fill()
        await here.send()
        assert [(await here.client.answer()).status for _ in range(2)] == [103, 200]


async def test_http_1_0_gets_none() -> None:
    """RFC 9110 §15.2: it has no notion of them."""
    async with (
        wire(lambda _: message(("Cache-Control", "no-store"), interim=HINTS)) as here,
        await RawClient.connect(here.world.edge.listeners[0].port) as old,
    ):
        await old.send(f"GET / HTTP/1.0\r\nHost: {here.world.authority}\r\n\r\n".encode())
        assert b" 103 " not in await old.rest()


async def test_100_is_for_whoever_expects_it() -> None:
    """RFC 9110 §10.1.1: an origin's 100 is about its own connection; ours tells our client when to go on."""
    async with wire(lambda _: message(interim=b"HTTP/1.1 100 Continue\r\n\r\n")) as here:
        answer = await here.ask("POST", "/", ("Content-Length", "2"), body=b"hi")
        assert (answer.status, answer.body) == (200, b"hello")


CHUNKED = b"Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Hop, Set-Cookie\r\nConnection: X-Hop\r\n"
TAIL = b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nConnection: X-Late\r\n\r\n"


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
async def test_trailers_come_with_the_body_they_end(control: str) -> None:
    """RFC 9110 §6.5: passed on with the response as it comes, never merged into its header."""
    head = f"HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n".encode()
    async with wire(lambda _: head + CHUNKED + b"\r\n" + TAIL) as here:
        answer = await here.ask("GET", "/", ("TE", "trailers"), ("Connection", "TE"))
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer.trailers == [("X-Sum", "42")]
        assert "x-sum" not in answer.names()
        assert "x-hop" not in answer.names()


async def test_trailers_are_not_stored() -> None:
    """RFC 9111 §3.1: a cache may drop them; what announces them goes too, and the length is known now."""
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
    async with wire(lambda _: head + CHUNKED + b"\r\n" + TAIL) as here:
        await here.ask()
        for lines in ([], [("Cache-Control", "max-age=300")]):
            answer = await here.ask("GET", "/", *lines)
            assert "; hit" in (answer.get("cache-status") or "")
            assert (answer.body, answer.trailers, answer.get("content-length")) == (b"hello", [], "5")
            assert not {"x-sum", "trailer", "transfer-encoding", "set-cookie"} & set(answer.names())
        assert len(here.asked) == 1


async def test_trailers_of_a_request_reach_the_origin() -> None:
    async with wire(lambda _: message()) as here:
        lines = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum"), ("TE", "trailers"), ("Connection", "TE")]
        body = b"2\r\nhi\r\n0\r\nX-Sum: 7\r\nContent-Type: text/html\r\n\r\n"
        assert (await here.ask("PUT", "/", *lines, body=body)).status == 200
        (asked,) = here.asked
        assert (asked.body, asked.trailers) == (b"hi", [("X-Sum", "7")])
        assert "x-sum" not in asked.names()
        assert asked.get("te") == "trailers"
