"""When the origin hangs up: a stale answer where nothing forbids it, else an error of ours (RFC 9111 §4.2.4).

The npm release of the public suite asks this too, but looks in the error for a field that only its origin sends, so
nothing can pass there.
"""

import pytest

from tests.conformance.wire import Asked, Lines, message, wire

STALE: Lines = [("Age", "90"), ("ETag", '"1"')]


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        pytest.param([("Cache-Control", "max-age=60")], True, id="max-age"),
        pytest.param([("Cache-Control", "max-age=60, stale-if-error=600")], True, id="stale-if-error"),
        pytest.param([("Cache-Control", "max-age=60, must-revalidate")], False, id="must-revalidate"),
        pytest.param([("Cache-Control", "max-age=60, proxy-revalidate")], False, id="proxy-revalidate"),
        pytest.param([("Cache-Control", "max-age=60, no-cache")], False, id="no-cache"),
        pytest.param([("Cache-Control", "s-maxage=60")], False, id="s-maxage"),
        pytest.param([("Cache-Control", "max-age=60, s-maxage=60, stale-if-error=600")], False, id="s-maxage first"),
        pytest.param([("CDN-Cache-Control", "max-age=60, must-revalidate")], False, id="targeted must-revalidate"),
        pytest.param(
            [("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "must-revalidate")], True, id="targeted wins"
        ),
    ],
)
@pytest.mark.parametrize("failure", ["hangs up", "breaks off", "answers garbage"])
async def test_stale_or_an_error(fields: Lines, used: bool, failure: str) -> None:
    said = {"hangs up": b"", "breaks off": b"HTTP/1.1 200 O", "answers garbage": b"SSH-2.0-x\r\n\r\n"}[failure]
    down = False

    def replies(asked: Asked) -> bytes:
        return said if down else message(*STALE, *fields, ("X-Origin", "1"))

    async with wire(replies, hang_up_after=failure == "breaks off") as here:
        await here.fill()
        down = True
        answer = await here.ask()
        if used:
            assert (answer.status, answer.body) == (200, b"hello")
            assert int(answer.get("age") or 0) >= 90
        else:
            assert answer.status == 502
            assert answer.get("x-origin") is None
            assert b"hello" not in answer.body
        down = False
        assert (await here.ask()).status == 200


@pytest.mark.parametrize(
    ("control", "stored"),
    [
        pytest.param("max-age=600", False, id="max-age"),
        pytest.param("max-age=600, public", True, id="public"),
        pytest.param("s-maxage=600", True, id="s-maxage"),
        pytest.param('max-age=600, private="set-cookie"', True, id="without the cookie"),
    ],
)
async def test_a_cookie_is_given_away_only_with_a_word_for_shared_caches(control: str, stored: bool) -> None:
    count = 0

    def replies(asked: Asked) -> bytes:
        nonlocal count
        count += 1
        return message(("Cache-Control", control), ("Set-Cookie", f"session={count}"))

    async with wire(replies) as here:
        assert (await here.ask()).get("set-cookie") == "session=1"
        second = (await here.ask()).get("set-cookie")
        if not stored:
            assert second == "session=2"
        else:
            assert second == (None if "private" in control else "session=1")
            assert count == 1
