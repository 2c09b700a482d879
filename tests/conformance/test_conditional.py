"""RFC 9110 §13: conditional requests answered by the cache, in the order of precedence."""

import pytest

from tests.conformance.model import Model, answer, date

FRESH = ("Cache-Control", "max-age=1000")


def outcome(stored: dict[str, str], asked: object, *, status: int = 200, method: str = "GET") -> str:
    """ "whole" or "304" from the cache, "origin" where only the origin can say."""
    edge = Model()
    edge.ask(answer([FRESH, *stored.items()], status=status))
    result = edge.at(5).ask(answer(status=412), asked, method=method)  # type: ignore[arg-type]
    if result.asked:
        return "origin"
    return "304" if result.status == 304 else "whole"


A = {"ETag": '"a"'}
WEAK = {"ETag": 'W/"a"'}
OLD = {"Last-Modified": date(-1000)}


@pytest.mark.parametrize(
    ("stored", "asked", "result"),
    [
        # §13.1.2 If-None-Match: weak comparison
        pytest.param(A, {"If-None-Match": '"a"'}, "304", id="match"),
        pytest.param(A, {"If-None-Match": 'W/"a"'}, "304", id="weak-asked"),
        pytest.param(WEAK, {"If-None-Match": '"a"'}, "304", id="weak-stored"),
        pytest.param(WEAK, {"If-None-Match": 'W/"a"'}, "304", id="weak-both"),
        pytest.param(A, {"If-None-Match": '"b"'}, "whole", id="no-match"),
        pytest.param(A, {"If-None-Match": '"b", "a" ,"c"'}, "304", id="one-of-several"),
        pytest.param(A, {"If-None-Match": '"b", junk, "a"'}, "304", id="among-junk"),
        pytest.param(A, {"If-None-Match": "*"}, "304", id="any"),
        pytest.param({}, {"If-None-Match": "*"}, "304", id="any-without-tag"),
        pytest.param({}, {"If-None-Match": '"a"'}, "whole", id="no-tag-stored"),
        pytest.param(A, {"If-None-Match": "a"}, "whole", id="unquoted"),
        pytest.param({"ETag": "a"}, {"If-None-Match": "a"}, "whole", id="unquoted-both"),
        pytest.param({"ETag": 'w/"a"'}, {"If-None-Match": 'w/"a"'}, "whole", id="lower-case-w"),
        pytest.param({"ETag": '"é"'}, {"If-None-Match": '"é"'}, "304", id="obs-text"),
        pytest.param(A, {"If-None-Match": ""}, "whole", id="empty"),
        # §13.1.3 If-Modified-Since, only without If-None-Match
        pytest.param(OLD, {"If-Modified-Since": date(-1000)}, "304", id="not-modified"),
        pytest.param(OLD, {"If-Modified-Since": date(-500)}, "304", id="not-modified-since-later"),
        pytest.param(OLD, {"If-Modified-Since": date(-1001)}, "whole", id="modified"),
        pytest.param(OLD, {"If-Modified-Since": date(9999)}, "304", id="future"),
        pytest.param(OLD, {"If-Modified-Since": "Friday, 15-Jan-27 07:43:20 GMT"}, "304", id="rfc850"),
        pytest.param(OLD, {"If-Modified-Since": "today"}, "whole", id="malformed"),
        pytest.param(OLD, [("If-Modified-Since", date(0)), ("If-Modified-Since", date(0))], "whole", id="two-dates"),
        pytest.param({}, {"If-Modified-Since": date(0)}, "304", id="date-stands-in"),
        pytest.param({}, {"If-Modified-Since": date(-1)}, "whole", id="date-is-later"),
        pytest.param({"Date": "junk"}, {"If-Modified-Since": date(0)}, "304", id="time-received-stands-in"),
        pytest.param(
            {**A, **OLD}, {"If-None-Match": '"b"', "If-Modified-Since": date(0)}, "whole", id="tag-decides-no"
        ),
        pytest.param(
            {**A, **OLD}, {"If-None-Match": '"a"', "If-Modified-Since": date(-9999)}, "304", id="tag-decides-yes"
        ),
        # §13.1.1 If-Match: strong comparison. That it fails only the origin may say.
        pytest.param(A, {"If-Match": '"a"'}, "whole", id="if-match"),
        pytest.param(A, {"If-Match": '"b", "a"'}, "whole", id="if-match-list"),
        pytest.param(A, {"If-Match": "*"}, "whole", id="if-match-any"),
        pytest.param(A, {"If-Match": '"b"'}, "origin", id="if-match-fails"),
        pytest.param(WEAK, {"If-Match": 'W/"a"'}, "origin", id="if-match-weak"),
        pytest.param({}, {"If-Match": '"a"'}, "origin", id="if-match-without-tag"),
        pytest.param(A, {"If-Match": '"a"', "If-None-Match": '"a"'}, "304", id="if-match-then-if-none-match"),
        pytest.param(A, {"If-Match": '"b"', "If-None-Match": '"a"'}, "origin", id="if-match-first"),
        # §13.1.4 If-Unmodified-Since, only without If-Match
        pytest.param(OLD, {"If-Unmodified-Since": date(-1000)}, "whole", id="unmodified"),
        pytest.param(OLD, {"If-Unmodified-Since": date(-1001)}, "origin", id="unmodified-fails"),
        pytest.param({}, {"If-Unmodified-Since": date(0)}, "origin", id="unmodified-without-date"),
        pytest.param(OLD, {"If-Unmodified-Since": "junk"}, "whole", id="unmodified-malformed"),
        pytest.param(
            {**A, **OLD}, {"If-Match": '"a"', "If-Unmodified-Since": date(-9999)}, "whole", id="if-match-decides"
        ),
        pytest.param(OLD, {"If-Unmodified-Since": date(0), "If-Modified-Since": date(0)}, "304", id="both-dates"),
    ],
)
def test_precedence(stored: dict[str, str], asked: object, result: str) -> None:
    assert outcome(stored, asked) == result


@pytest.mark.parametrize("asked", [{"If-None-Match": '"a"'}, {"If-None-Match": "*"}, {"If-Modified-Since": date(0)}])
@pytest.mark.parametrize("status", [301, 404, 410, 500])
def test_no_condition_applies_to_what_is_no_success(status: int, asked: dict[str, str]) -> None:
    """§13.2.1."""
    assert outcome({**A, **OLD}, asked, status=status) == "whole"


def test_head() -> None:
    assert outcome(A, {"If-None-Match": '"a"'}, method="HEAD") == "304"


def test_stale_or_missing_goes_to_the_origin_with_if_match() -> None:
    edge = Model()
    result = edge.ask(answer({**A, "Cache-Control": "max-age=5"}), {"If-Match": '"a"'})
    assert result.asked[0].headers.get("if-match") == '"a"'
    result = edge.at(9).ask(answer(status=412), {"If-Match": '"a"'})
    assert result.status == 412
    assert result.asked[0].headers.get("if-match") == '"a"'


def test_if_match_that_fails_where_the_origin_may_not_be_asked() -> None:
    edge = Model()
    edge.ask(answer([FRESH, *A.items()]))
    result = edge.ask(lines={"If-Match": '"b"', "Cache-Control": "only-if-cached"})
    assert (result.status, result.body) == (412, b"")
    assert not {"etag", "cache-control", "age"} & {name.lower() for name, _ in result.headers}


def test_miss_is_asked_for_whole_and_the_condition_answered_from_it() -> None:
    edge = Model()
    result = edge.ask(answer([FRESH, *A.items()]), {"If-None-Match": '"a"'})
    assert result.status == 304
    assert "if-none-match" not in result.asked[0].headers
    assert edge.ask().body == b"body"


def test_fields_of_a_304() -> None:
    """RFC 9110 §15.4.5."""
    edge = Model()
    kept = ["Cache-Control", "Content-Location", "Date", "ETag", "Expires", "Vary", "Access-Control-Allow-Origin"]
    gone = ["Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Last-Modified", "Accept-Ranges"]
    values = dict.fromkeys([*kept, *gone], "1") | {
        "Cache-Control": "max-age=10",
        "Date": date(0),
        "ETag": '"a"',
        "Vary": "",
    }
    edge.ask(answer({**values, "Content-Length": "4"}))
    result = edge.at(3).ask(lines={"If-None-Match": '"a"'})
    names = {name.lower() for name, _ in result.headers}
    assert {name.lower() for name in kept} <= names
    assert not {name.lower() for name in gone} & names
    assert result.headers.get("age") == "3"


def test_a_304_without_etag_says_last_modified() -> None:
    edge = Model()
    edge.ask(answer([FRESH, *OLD.items()]))
    assert edge.ask(lines={"If-Modified-Since": date(0)}).headers.get("last-modified") == date(-1000)
