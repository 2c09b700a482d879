"""Age, Date and Via on the wire: once each, and right, by whatever way an answer comes about."""

import re

import pytest

from edgecache.http.clock import wall_clock
from edgecache.http.dates import parse_date
from tests.conformance.wire import Asked, Lines, date, message, wire

VIA = "1.1 edgecache"


def values(fields: Lines, name: str) -> list[str]:
    return [value for key, value in fields if key.lower() == name]


def fresh(*more: tuple[str, str]) -> bytes:
    return message(("Cache-Control", "max-age=600"), ("ETag", '"1"'), *more)


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        pytest.param("GET", [], id="GET"),
        pytest.param("HEAD", [], id="HEAD"),
        pytest.param("GET", [("Cache-Control", "max-age=500")], id="ordinary path"),
        pytest.param("GET", [("If-None-Match", '"1"')], id="304"),
        pytest.param("GET", [("Range", "bytes=0-1")], id="206"),
    ],
)
async def test_a_hit_has_one_age_that_counts_from_the_one_received(method: str, lines: Lines) -> None:
    """RFC 9111 §4.2.3, §5.1."""
    async with wire(lambda _: fresh(("Age", "100"))) as here:
        began = wall_clock()
        first = await here.fill()
        assert values(first.fields, "age") == ["100"]
        answer = await here.ask(method, "/", *lines)
        (age,) = values(answer.fields, "age")
        assert re.fullmatch("[0-9]+", age)
        assert 100 <= int(age) <= 101 + wall_clock() - began


async def test_age_and_apparent_age() -> None:
    """The larger counts: a Date in our past is an age too (§4.2.3)."""
    async with wire(lambda _: fresh(("Date", date(-120, wall_clock())), ("Age", "5"))) as here:
        await here.fill()
        (age,) = values((await here.ask()).fields, "age")
        assert 120 <= int(age) < 150


@pytest.mark.parametrize("way", ["straight through", "miss"])
async def test_what_was_not_stored_before_has_no_age_of_ours(way: str) -> None:
    control = "no-store" if way == "straight through" else "max-age=600"
    async with wire(lambda _: message(("Cache-Control", control))) as here:
        assert values((await here.ask()).fields, "age") == []


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
async def test_date_stays_and_is_made_where_it_is_missing(control: str) -> None:
    """RFC 9110 §6.6.1: an origin's Date is its own; a recipient with a clock adds a missing one, once."""
    theirs = date(-30, wall_clock())
    dates = {"/with": [("Date", theirs)], "/without": []}
    async with wire(lambda asked: message(("Cache-Control", control), *dates[asked.target])) as here:
        for _ in range(2):
            assert values((await here.ask("GET", "/with")).fields, "date") == [theirs]
        made = [values((await here.ask("GET", "/without")).fields, "date") for _ in range(2)]
        for lines in made:
            (text,) = lines
            moment = parse_date(text, wall_clock())
            assert moment is not None
            assert abs(moment - wall_clock()) < 60
        if control != "no-store":
            assert made[0] == made[1]  # made when it came, and kept


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
async def test_via_names_every_hop_in_order_both_ways(control: str) -> None:
    """RFC 9110 §7.6.3."""
    async with wire(lambda _: message(("Cache-Control", control), ("Via", "1.0 inner"))) as here:
        for _ in range(2):
            answer = await here.ask("GET", "/", ("Via", "1.1 outer"))
            assert values(answer.fields, "via") == [f"1.0 inner, {VIA}"]
        assert re.fullmatch(r"1\.1 outer, 1\.1 edgecache-[0-9a-f]+", here.asked[0].get("via") or "")


async def test_a_validation_does_not_add_a_second_via_or_age() -> None:
    def replies(asked: Asked) -> bytes:
        fields = [("Cache-Control", "max-age=60"), ("Age", "90"), ("ETag", '"1"'), ("Via", "1.0 inner")]
        return message(*fields, status="304 Not Modified" if asked.get("if-none-match") else "200 OK")

    async with wire(replies) as here:
        await here.fill()
        for _ in range(2):
            answer = await here.ask()
            assert values(answer.fields, "via") == [f"1.0 inner, {VIA}"]
            assert len(values(answer.fields, "age")) == 1
            assert len(values(answer.fields, "date")) == 1
        assert len(here.asked) == 3


async def test_an_error_made_here_is_dated_and_not_to_be_stored() -> None:
    async with wire(lambda _: b"") as here:
        answer = await here.ask()
        assert answer.status == 502
        assert len(values(answer.fields, "date")) == 1
        assert answer.get("cache-control") == "no-store"
        assert values(answer.fields, "age") == []


async def test_what_the_origin_said_about_the_cache_stays_in_front() -> None:
    """RFC 9211 §2: the member nearest the origin comes first."""
    async with wire(lambda _: fresh(("Cache-Status", "inner; hit"))) as here:
        assert re.fullmatch(r"inner; hit, edgecache; fwd=uri-miss.*", (await here.fill()).get("cache-status") or "")
        assert re.fullmatch(r"inner; hit, edgecache; hit.*", (await here.ask()).get("cache-status") or "")
