"""HTTP-date: the three formats of RFC 9110 §5.6.7, nothing near them, and the one we write."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.dates import format_date, parse_date

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37), id="imf-fixdate"),
        pytest.param("SUN, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37), id="case of the weekday"),
        pytest.param("Sun, 06 nOV 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37), id="case of the month"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 gMt", at(1994, 11, 6, 8, 49, 37), id="case of the zone"),
        pytest.param("sunday, 06-NOV-94 08:49:37 gmt", at(1994, 11, 6, 8, 49, 37), id="case of rfc850"),
        pytest.param("SUN NOV  6 08:49:37 1994", at(1994, 11, 6, 8, 49, 37), id="case of asctime"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37), id="rfc850"),
        pytest.param("Sun Nov  6 08:49:37 1994", at(1994, 11, 6, 8, 49, 37), id="asctime"),
        pytest.param("Wed Nov 16 08:49:37 1994", at(1994, 11, 16, 8, 49, 37), id="asctime-two-digit-day"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 0, id="epoch"),
        pytest.param("Wed, 31 Dec 1969 23:59:59 GMT", -1, id="before-the-epoch"),
        pytest.param("Sun, 21 Nov 2286 04:46:39 GMT", at(2286, 11, 21, 4, 46, 39), id="far-future"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", at(9999, 12, 31, 23, 59, 59), id="last-year"),
        pytest.param("Tue, 29 Feb 2000 00:00:00 GMT", at(2000, 2, 29), id="leap-day-of-a-fourth-century"),
        pytest.param("Thu, 29 Feb 2024 00:00:00 GMT", at(2024, 2, 29), id="leap-day"),
        pytest.param("Sat, 31 Dec 2016 23:59:60 GMT", at(2017, 1, 1), id="leap-second"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37), id="weekday-not-compared"),
        pytest.param("Thursday, 18-Aug-50 02:01:18 GMT", at(2050, 8, 18, 2, 1, 18), id="rfc850-in-this-half-century"),
        pytest.param("Monday, 01-Jun-76 00:00:00 GMT", at(2076, 6, 1), id="rfc850-exactly-fifty-years-ahead"),
        pytest.param("Monday, 01-Jun-76 00:00:01 GMT", at(1976, 6, 1, 0, 0, 1), id="rfc850-a-second-further-is-past"),
        pytest.param("Friday, 01-Jan-77 00:00:00 GMT", at(1977, 1, 1), id="rfc850-next-year-is-past"),
    ],
)
def test_reads(text: str, moment: int) -> None:
    assert parse_date(text, NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "now", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 GMT "),
        " Sun, 06 Nov 1994 08:49:37 GMT",
        *("Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 06 Nov 1994 8:49:37 GMT"),
        *("ſun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 Z", "Sun, 06 Nov 1994 08:49:37 AEST"),
        *("Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun 06 Nov 1994 08:49:37 GMT"),
        *("Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06  Nov 1994 08:49:37 GMT"),
        *("Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT"),
        *("Sun, 00 Nov 1994 08:49:37 GMT", "Thu, 31 Nov 1994 08:49:37 GMT", "Sun, 29 Feb 2023 00:00:00 GMT"),
        *("Mon, 29 Feb 1900 00:00:00 GMT", "Sat, 32 Jan 2000 00:00:00 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"),
        *("Sunday, 29-Feb-23 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT", "Sun Nov 6 08:49:37 1994"),
        *("Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", "Sun, ０６ Nov 1994 08:49:37 GMT"),
    ],
)  # fmt: skip
def test_refuses(text: str) -> None:
    assert parse_date(text, NOW) is None


@given(st.integers(0, at(9999, 12, 31)))
def test_writes_what_it_reads(moment: int) -> None:
    assert parse_date(format_date(moment), NOW) == moment
    assert format_date(moment) == datetime.fromtimestamp(moment, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_writes_the_second_a_fraction_lies_in() -> None:
    assert format_date(784111777.999) == "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.text(alphabet="SunMonday, 0169-:GMTNovFeb\x00é", max_size=40))
def test_never_raises(text: str) -> None:
    assert parse_date(text, NOW) is None or isinstance(parse_date(text, NOW), int)
