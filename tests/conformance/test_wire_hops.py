"""Fields of one connection never reach the next one (RFC 9110 §7.6.1), by whatever way an answer comes about.

The public suite stores its hop-by-hop fields under values that it does not compare, so it passes a cache that leaks
them. Here the fields are looked for on the wire: to the client on a miss, a hit (of the fast lane and of the ordinary
path), after a validation, straight through, in a range, instead of an error; to the origin on each request it gets.
"""

from collections.abc import Awaitable, Callable

import pytest

from edgecache.http.clock import wall_clock
from tests.conformance.wire import Asked, Lines, Wire, date, message, wire
from tests.wirekit import Answer

HOP_BY_HOP: Lines = [
    ("Connection", "keep-alive, X-Hop, x-hop-two"),
    ("X-Hop", "secret-1"),
    ("X-Hop-Two", "secret-2"),
    ("Keep-Alive", "timeout=5, secret-3"),
    ("Proxy-Connection", "secret-4"),
    ("Proxy-Authenticate", 'Basic realm="secret-5"'),
    ("Proxy-Authentication-Info", "secret-6"),
    ("TE", "secret-7"),
    ("Upgrade", "secret-8"),
]
TO_ORIGIN: Lines = [*HOP_BY_HOP, ("Proxy-Authorization", "Basic secret-9"), ("HTTP2-Settings", "secret-10")]
END_TO_END: Lines = [("X-Kept", "1"), ("X-Kept", "2")]
NAMES = {name.lower() for name, _ in TO_ORIGIN} | {"transfer-encoding", "trailer"}


def leaked(fields: Lines) -> Lines:
    """Fields of the other connection among these. Connection itself may be there: about this connection."""
    return [
        (name, value) for name, value in fields if "secret" in value or (name.lower() in NAMES - {"connection"})
    ] + [(name, value) for name, value in fields if name.lower() == "connection" and "hop" in value.lower()]


def fresh(asked: Asked) -> bytes:
    return message(*HOP_BY_HOP, *END_TO_END, ("Cache-Control", "max-age=600"), ("ETag", '"1"'))


def stale(asked: Asked) -> bytes:
    """Already stale, so that the next request is a validation; which is answered in the affirmative."""
    fields = [*HOP_BY_HOP, ("Cache-Control", "max-age=60, stale-if-error=600"), ("Age", "90"), ("ETag", '"1"')]
    if asked.get("if-none-match"):
        return message(*fields, ("X-Kept", "3"), ("X-Kept", "4"), status="304 Not Modified")
    return message(*fields, *END_TO_END)


def never(asked: Asked) -> bytes:
    return message(*HOP_BY_HOP, *END_TO_END, ("Cache-Control", "no-store"))


def failing(asked: Asked) -> bytes:
    return message(*HOP_BY_HOP, status="500 No") if asked.get("if-none-match") else stale(asked)


def early(asked: Asked) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in [*HOP_BY_HOP, ("Link", "</a>"), *END_TO_END])
    return message(*END_TO_END, ("Cache-Control", "no-store"), interim=f"HTTP/1.1 103 Early\r\n{head}\r\n".encode())


async def miss(way: Wire) -> Answer:
    return await way.fill()


async def hit(way: Wire) -> Answer:
    await way.fill()
    return await way.ask()


async def ordinary_hit(way: Wire) -> Answer:
    """Takes judgement, so the fast lane leaves it alone."""
    await way.fill()
    return await way.ask("GET", "/", ("Cache-Control", "max-age=300"))


async def head_hit(way: Wire) -> Answer:
    await way.fill()
    return await way.ask("HEAD")


async def range_hit(way: Wire) -> Answer:
    await way.fill()
    return await way.ask("GET", "/", ("Range", "bytes=1-2"))


async def not_modified_hit(way: Wire) -> Answer:
    await way.fill()
    return await way.ask("GET", "/", ("If-None-Match", '"1"'))


async def only_once(way: Wire) -> Answer:
    return await way.ask()


async def validated(way: Wire) -> Answer:
    await way.fill()
    return await way.ask()


async def after_validation(way: Wire) -> Answer:
    """What the 304 left in the store."""
    await way.fill()
    await way.ask()
    return await way.ask("GET", "/", ("Cache-Control", "max-stale"))


async def post(way: Wire) -> Answer:
    return await way.ask("POST", "/", ("Content-Length", "2"), body=b"hi")


Way = Callable[[Wire], Awaitable[Answer]]


@pytest.mark.parametrize(
    ("replies", "way", "status", "cache_status"),
    [
        pytest.param(fresh, miss, 200, "fwd=uri-miss", id="miss"),
        pytest.param(fresh, hit, 200, "; hit", id="hit"),
        pytest.param(fresh, ordinary_hit, 200, "; hit", id="hit on the ordinary path"),
        pytest.param(fresh, head_hit, 200, "; hit", id="hit of HEAD"),
        pytest.param(fresh, range_hit, 206, "; hit", id="range of a hit"),
        pytest.param(fresh, not_modified_hit, 304, "; hit", id="304 of a hit"),
        pytest.param(stale, validated, 200, "fwd-status=304", id="validated"),
        pytest.param(stale, after_validation, 200, "; hit", id="after a validation"),
        pytest.param(failing, validated, 200, "fwd-status=500", id="instead of an error"),
        pytest.param(never, only_once, 200, "fwd=uri-miss", id="not stored"),
        pytest.param(never, post, 200, "fwd=method", id="POST"),
        pytest.param(early, only_once, 103, None, id="interim"),
    ],
)
async def test_nothing_of_the_origin_s_connection_reaches_the_client(
    replies: Callable[[Asked], bytes], way: Way, status: int, cache_status: str | None
) -> None:
    async with wire(replies) as here:
        answer = await way(here)
        assert answer.status == status
        assert leaked(answer.fields) == []
        kept = [value for name, value in answer.fields if name == "X-Kept"]
        assert kept in (["1", "2"], ["3", "4"])
        if cache_status is not None:
            assert cache_status in (answer.get("cache-status") or "")


@pytest.mark.parametrize(
    ("replies", "before", "method"),
    [
        pytest.param(fresh, False, "GET", id="miss"),
        pytest.param(fresh, False, "HEAD", id="HEAD"),
        pytest.param(stale, True, "GET", id="validation"),
        pytest.param(never, False, "OPTIONS", id="straight through"),
        pytest.param(never, False, "PROPFIND", id="a method nobody here knows"),
    ],
)
async def test_nothing_of_the_client_s_connection_reaches_the_origin(
    replies: Callable[[Asked], bytes], before: bool, method: str
) -> None:
    async with wire(replies) as here:
        if before:
            await here.fill()
        await here.ask(method, "/", *TO_ORIGIN, *END_TO_END)
        last = here.asked[-1]
        assert last.method == method
        assert leaked(last.fields) == []
        assert [value for name, value in last.fields if name == "X-Kept"] == ["1", "2"]


async def test_a_background_validation_leaks_nothing_either() -> None:
    def replies(asked: Asked) -> bytes:
        return message(("Cache-Control", "max-age=60, stale-while-revalidate=600"), ("Age", "90"), ("ETag", '"1"'))

    async with wire(replies) as here:
        await here.fill()
        answer = await here.ask("GET", "/", *TO_ORIGIN, *END_TO_END)
        assert "; hit" in (answer.get("cache-status") or "")
        await here.ask("POST", "/other")  # the same origin has answered: the validation went out before
        (validation,) = [asked for asked in here.asked if asked.get("if-none-match")]
        assert leaked(validation.fields) == []


@pytest.mark.parametrize("named", ["Cache-Control", "Vary", "CDN-Cache-Control", "Expires"])
async def test_connection_cannot_unsay_what_forbids_storing(named: str) -> None:
    """Which fields a response is stored by is not the last hop's business (RFC 9110 §7.6.1)."""
    forbids = {"Cache-Control": "no-store", "Vary": "*", "CDN-Cache-Control": "no-store"}
    forbids["Expires"] = date(-60, wall_clock())
    fields = [("Connection", named), (named, forbids[named]), ("Date", date(0, wall_clock()))]
    if named not in ("Cache-Control", "Expires"):
        fields.append(("Cache-Control", "max-age=600"))
    async with wire(lambda _: message(*fields)) as here:
        await here.ask()
        await here.ask()
        assert len(here.asked) == 2
