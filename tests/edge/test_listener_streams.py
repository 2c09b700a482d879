"""Any run of good requests, cut anywhere: the answers are those of a plain model, in order, on one connection."""

import asyncio
import itertools

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.wirekit import RawClient, echo, listening

BODIES = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 90_000).map(lambda size: b"x" * size))
SIZES = st.lists(st.integers(1, 30_000), max_size=4)


def sized(body: bytes) -> bytes:
    return b"POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, sizes: list[int]) -> bytes:
    wire = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in sizes:
        piece, body = body[:size], body[size:]
        if piece:
            wire += b"%x\r\n%s\r\n" % (len(piece), piece)
    return wire + (b"%X\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


REQUESTS = st.lists(
    st.one_of(
        BODIES.map(lambda body: (sized(body), body)),
        st.tuples(BODIES, SIZES).map(lambda given_: (chunked(*given_), given_[0])),
        st.just((b"GET /g HTTP/1.1\r\nHost: h\r\n\r\n", b"")),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS, st.lists(st.integers(0, 200_000), max_size=6))
@example([(sized(b"x" * 90_000), b"x" * 90_000)] * 8, [])
async def test_any_cut_gives_the_same_answers(requests, cuts) -> None:
    wire = b"".join(request for request, _ in requests)
    bounds = sorted({0, len(wire), *(cut % len(wire) for cut in cuts)})
    async with listening(echo) as listener, await RawClient.connect(listener.port) as client:

        async def speak() -> None:
            for start, end in itertools.pairwise(bounds):
                await client.send(wire[start:end])
                await asyncio.sleep(0.0005)  # so that the cut reaches the listener as one

        speaking = asyncio.ensure_future(speak())
        for _, body in requests:
            got = await client.answer()
            assert (got.status, got.body) == (200, body)
        await speaking
        client.eof()
        assert await client.rest() == b""
        assert listener.requests == len(requests)
