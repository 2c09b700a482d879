"""RFC 9111 §4.2, RFC 9213 and Surrogate-Control: how long a response is fresh."""

import pytest

from edgecache.policy.site import SitePolicy
from tests.conformance.model import Model, answer, date

YEARS = 68 * 365 * 86_400


def lifetime(fields: object, *, site: SitePolicy | None = None, **about: object) -> float:
    """Seconds for which the response answers without asking, up to 10,000."""
    edge = Model(site or SitePolicy(surrogate_capability=False))
    edge.ask(answer(fields, **about))  # type: ignore[arg-type]
    place = next(iter(edge.entries.values()), None)
    if place is None or place[0].flags & place[0].flags.NO_CACHE:
        return 0.0
    seconds = place[0].fresh_until - edge.now
    if 0 < seconds < YEARS:
        assert edge.at(seconds - 0.5).ask().cached
        assert not edge.at(seconds).ask(answer()).cached, "fresh while lifetime > age, and no longer (§4.2)"
    return max(0.0, seconds)


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        *(("max-age=60", 60), ("MAX-AGE=60", 60), ("max-age=0060", 60), ("max-age=0", 0), (" , max-age=60 ,", 60)),
        *(("s-maxage=90, max-age=60", 90), ("max-age=60, s-maxage=90", 90), ("s-maxage=0, max-age=60", 0)),
        # §5.2: both forms of argument
        *(('max-age="60"', 60), (r'max-age="6\0"', 60), ('s-maxage="90"', 90)),
        # §5.2.3: unknown directives change nothing, whatever is in them
        *(("foo, max-age=60", 60), ('x="max-age=90", max-age=60', 60), ('max-age=60, x="max-age=90"', 60)),
        *(("max-age=60, &&&", 60), ("max-age=60, =5", 60), ("@=2, max-age=60", 60)),
        # §4.2.1: lifetimes that cannot be read are no lifetimes
        *(("max-age=-1", 0), ("max-age=60.0", 0), ("max-age=60s", 0), ("max-age=a60", 0), ("max-age='60'", 0)),
        *(("max-age", 0), ("max-age=", 0), ("max-age =60", 0), ("max-age= 60", 0)),
        *(('max-age="60', 0), ("max-age: 60", 0)),
        *(("max-age=60;x", 0), ("max-age=1e3", 0), ("max-age=6 0", 0), ("s-maxage=x, max-age=60", 0)),
        # §4.2.1: the same one twice is one, two are a contradiction
        *(("max-age=60, max-age=60", 60), ("max-age=60, max-age=060", 60), ("max-age=60, max-age=90", 0)),
        *(("max-age=90, max-age=60", 0), ("max-age=60, max-age=x", 0), ("max-age=60, max-age=90, s-maxage=30", 30)),
    ],
)  # fmt: skip
def test_cache_control(control: str, seconds: int) -> None:
    assert lifetime({"Cache-Control": control}) == seconds


@pytest.mark.parametrize("value", ["2147483647", "2147483648", "2147483649", "99999999999", "9" * 400])
def test_lifetimes_beyond_what_can_be_represented(value: str) -> None:
    """§1.2.2."""
    assert lifetime({"Cache-Control": f"max-age={value}"}) >= 2**31 - 1


def test_directives_in_several_lines() -> None:
    assert lifetime([("Cache-Control", "public"), ("Cache-Control", "max-age=60")]) == 60
    assert lifetime([("Cache-Control", "max-age=60"), ("Cache-Control", "max-age=90")]) == 0
    assert lifetime([("Cache-Control", "s-maxage=60"), ("Cache-Control", "max-age=1")]) == 60


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"Expires": date(60), "Date": date(0)}, 60, id="future"),
        pytest.param({"Expires": date(0), "Date": date(0)}, 0, id="now"),
        pytest.param({"Expires": date(-60), "Date": date(0)}, 0, id="past"),
        pytest.param({"Expires": "0", "Date": date(0)}, 0, id="invalid"),
        pytest.param({"Expires": "", "Date": date(0)}, 0, id="empty"),
        pytest.param({"Expires": date(60), "Date": "foo"}, 60, id="invalid-date"),
        pytest.param({"Expires": date(460), "Date": date(400)}, 60, id="clock-ahead"),
        pytest.param({"Expires": date(300), "Date": date(400)}, 0, id="clock-ahead-expired"),
        pytest.param({"Expires": date(-340), "Date": date(-400)}, 0, id="clock-behind"),
        pytest.param({"Expires": date(20), "Date": date(10), "Age": "15"}, 0, id="age-beyond-with-clock-ahead"),
        pytest.param({"Expires": date(20), "Date": date(10), "Age": "4"}, 6, id="age-within-with-clock-ahead"),
        pytest.param({"Expires": date(10), "Date": date(-10), "Age": "25"}, 0, id="age-beyond-with-clock-behind"),
        pytest.param({"Expires": date(-60), "Cache-Control": "max-age=60"}, 60, id="max-age-wins-over-past"),
        pytest.param({"Expires": date(90), "Cache-Control": "max-age=60"}, 60, id="max-age-wins-over-future"),
        pytest.param({"Expires": date(90), "Cache-Control": "max-age=0"}, 0, id="no-time-wins-over-future"),
        pytest.param({"Expires": date(60), "Cache-Control": "public"}, 60, id="beside-other-directives"),
        pytest.param([("Expires", date(60)), ("Expires", date(60))], 60, id="the-same-twice"),
        pytest.param([("Expires", date(60)), ("Expires", date(90))], 0, id="two-dates"),
        pytest.param([("Expires", date(60)), ("Expires", "0")], 0, id="a-date-and-none"),
        pytest.param({"Expires": "Friday, 15-Jan-27 08:01:00 GMT"}, 60, id="rfc850"),
        pytest.param({"Expires": "Fri Jan 15 08:01:00 2027"}, 60, id="asctime"),
        pytest.param({"Expires": "Fri, 15 Jan 2027 08:01:00 UTC"}, 0, id="another-zone"),
        pytest.param({"Expires": "FRI, 15 JAN 2027 08:01:00 gmt"}, 60, id="case does not matter (§4.2)"),
    ],
)
def test_expires(fields: object, seconds: int) -> None:
    """§4.2.1, §5.3: Expires less Date; dates that cannot be read are in the past."""
    assert lifetime(fields) == seconds


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        *(("0", 60), ("20", 40), ("020", 40), ("60", 0), ("100", 0), ("2147483648", 0), ("99999999999999999999", 0)),
        # §5.1: the first of several members counts
        *(("20, 0", 40), ("0, 20", 60), ("20,junk", 40)),
        # §5.1: what is no integer is ignored
        *(("abc", 60), ("-20", 60), ("20.0", 60), ("", 60), ("junk, 20", 60), ("20;a=1", 60), ("2 0", 60), ("+20", 60)),
    ],
)
def test_age(age: str, seconds: int) -> None:
    assert lifetime({"Cache-Control": "max-age=60", "Age": age}) == seconds


def test_the_first_of_several_age_lines_counts() -> None:
    assert lifetime([("Cache-Control", "max-age=60"), ("Age", "20"), ("Age", "0")]) == 40
    assert lifetime([("Cache-Control", "max-age=60"), ("Age", "0"), ("Age", "20")]) == 60


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"Date": date(-20)}, 40, id="apparent-age"),
        pytest.param({"Date": date(-20), "Age": "30"}, 30, id="age-is-larger"),
        pytest.param({"Date": date(-30), "Age": "20"}, 30, id="apparent-age-is-larger"),
        pytest.param({"Date": date(500)}, 60, id="clock-ahead"),
        pytest.param({"Date": date(500), "Age": "20"}, 40, id="clock-ahead-and-age"),
        pytest.param({"Date": "yesterday"}, 60, id="invalid-date"),
    ],
)
def test_initial_age(fields: dict[str, str], seconds: int) -> None:
    """§4.2.3."""
    assert lifetime({"Cache-Control": "max-age=60", **fields}) == seconds


@pytest.mark.parametrize(
    ("since", "seconds"),
    [(0, 0), (100, 10), (1000, 100), (1_000_000, 86_400), (-100, 0)],
    ids=["now", "10%", "more", "capped", "in-the-future"],
)
def test_heuristic(since: int, seconds: int) -> None:
    """§4.2.2: a tenth of the time since the last modification, a day at most."""
    assert lifetime({"Last-Modified": date(-since)}) == seconds


def test_heuristic_needs_a_date_and_can_be_turned_off() -> None:
    assert lifetime({"Last-Modified": "yesterday"}) == 0
    assert lifetime([("Last-Modified", date(-1000)), ("Last-Modified", date(-2000))]) == 0
    assert lifetime({"Last-Modified": date(-1000)}, site=SitePolicy(heuristics=False)) == 0
    assert lifetime({"Last-Modified": date(-1000)}, site=SitePolicy(heuristic_fraction=0.5)) == 500
    assert lifetime({"Last-Modified": date(-1000)}, site=SitePolicy(heuristic_cap_s=7)) == 7


def test_explicit_freshness_excludes_the_guess() -> None:
    assert lifetime({"Last-Modified": date(-1000), "Expires": "0"}) == 0
    assert lifetime({"Last-Modified": date(-1000), "Cache-Control": "max-age=x"}) == 0


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"CDN-Cache-Control": "max-age=60"}, 60, id="alone"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Cache-Control": "max-age=5"}, 60, id="longer"),
        pytest.param({"CDN-Cache-Control": "max-age=5", "Cache-Control": "max-age=60"}, 5, id="shorter"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Cache-Control": "no-store"}, 60, id="replaces-no-store"),
        pytest.param(
            {"CDN-Cache-Control": "max-age=60", "Cache-Control": "private, s-maxage=1"}, 60, id="replaces-private"
        ),
        pytest.param({"CDN-Cache-Control": "no-store", "Cache-Control": "max-age=60"}, 0, id="no-store"),
        pytest.param({"CDN-Cache-Control": "private", "Cache-Control": "max-age=60"}, 0, id="private"),
        pytest.param({"CDN-Cache-Control": "no-cache", "Cache-Control": "max-age=60"}, 0, id="no-cache"),
        pytest.param({"CDN-Cache-Control": "max-age=0", "Expires": date(60)}, 0, id="no-time"),
        pytest.param({"CDN-Cache-Control": "public", "Expires": date(60)}, 0, id="replaces-expires"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Expires": date(-60)}, 60, id="past-expires"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Expires": "0"}, 60, id="invalid-expires"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Age": "20"}, 40, id="age-counts"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Age": "100"}, 0, id="age-beyond"),
        pytest.param({"CDN-Cache-Control": "max-age=5, s-maxage=60"}, 60, id="s-maxage"),
        pytest.param({"CDN-Cache-Control": "foobar, max-age=60;x=1"}, 60, id="extensions-and-parameters"),
        pytest.param({"CDN-Cache-Control": "max-age=5, max-age=60"}, 60, id="last-of-a-dictionary"),
        pytest.param({"CDN-Cache-Control": "max-age=60, no-store=?0"}, 60, id="false-is-absent"),
        pytest.param({"CDN-Cache-Control": "max-age=-5", "Cache-Control": "max-age=60"}, 0, id="negative"),
        # RFC 9213 §2.1, §2.2: a field that is malformed, empty or of wrong types is as good as none
        pytest.param({"CDN-Cache-Control": "", "Cache-Control": "max-age=60"}, 60, id="empty"),
        pytest.param({"CDN-Cache-Control": "max-age=5, &&&", "Cache-Control": "max-age=60"}, 60, id="malformed"),
        pytest.param({"CDN-Cache-Control": 'max-age="5"', "Cache-Control": "max-age=60"}, 60, id="string"),
        pytest.param({"CDN-Cache-Control": "max-age=5.0", "Cache-Control": "max-age=60"}, 60, id="decimal"),
        pytest.param({"CDN-Cache-Control": "max-age", "Cache-Control": "max-age=60"}, 60, id="boolean"),
        pytest.param({"CDN-Cache-Control": "max-age=(5)", "Cache-Control": "max-age=60"}, 60, id="inner-list"),
        pytest.param({"CDN-Cache-Control": "Max-Age=5", "Cache-Control": "max-age=60"}, 60, id="upper-case"),
        pytest.param({"CDN-Cache-Control": "max-age =5", "Cache-Control": "max-age=60"}, 60, id="space-before"),
        pytest.param({"CDN-Cache-Control": "max-age= 5", "Cache-Control": "max-age=60"}, 60, id="space-after"),
        pytest.param(
            {"CDN-Cache-Control": "no-store=1", "Cache-Control": "max-age=60"}, 60, id="no-store-with-a-value"
        ),
        pytest.param(
            {"CDN-Cache-Control": "max-age=5, private=a", "Cache-Control": "max-age=60"}, 5, id="private-field"
        ),
        pytest.param(
            {"CDN-Cache-Control": 'max-age=5, no-cache="a, b"', "Cache-Control": "max-age=60"}, 5, id="no-cache-fields"
        ),
        pytest.param(
            {"CDN-Cache-Control": "max-age=5, private=1", "Cache-Control": "max-age=60"}, 60, id="private-number"
        ),
    ],
)
def test_targeted_field(fields: dict[str, str], seconds: int) -> None:
    """RFC 9213 §2: the first valid one replaces Cache-Control and Expires."""
    assert lifetime(fields) == seconds


def test_targeted_fields_in_the_order_of_the_site() -> None:
    site = SitePolicy(target_fields=("acme-cache-control", "cdn-cache-control"))
    both = {"CDN-Cache-Control": "max-age=60", "Acme-Cache-Control": "max-age=30"}
    assert lifetime(both, site=site) == 30
    assert lifetime({**both, "Acme-Cache-Control": "!"}, site=site) == 60
    assert lifetime(both, site=SitePolicy(target_fields=())) == 0


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"Surrogate-Control": "max-age=60"}, 60, id="alone"),
        pytest.param({"Surrogate-Control": "MaX-aGe=60", "Cache-Control": "max-age=5"}, 60, id="case"),
        pytest.param({"Surrogate-Control": "max-age=60", "Cache-Control": "no-store"}, 60, id="replaces-no-store"),
        pytest.param({"Surrogate-Control": "no-store", "Cache-Control": "max-age=60"}, 0, id="no-store"),
        pytest.param({"Surrogate-Control": "max-age=60", "Expires": date(-60)}, 60, id="replaces-expires"),
        pytest.param({"Surrogate-Control": "max-age=0", "Expires": date(60)}, 0, id="no-time"),
        pytest.param({"Surrogate-Control": "max-age=60", "CDN-Cache-Control": "max-age=5"}, 60, id="before-targeted"),
        pytest.param({"Surrogate-Control": "max-age=60;Edgecache", "Cache-Control": "max-age=5"}, 60, id="for-us"),
        pytest.param({"Surrogate-Control": "max-age=60;other", "Cache-Control": "max-age=5"}, 5, id="for-another"),
        pytest.param({"Surrogate-Control": "max-age=30;other, max-age=60;edgecache"}, 60, id="each-its-own"),
        pytest.param({"Surrogate-Control": "max-age=60;other;edgecache"}, 60, id="for-several"),
        pytest.param({"Surrogate-Control": "max-age=60, foobar"}, 60, id="extension"),
        pytest.param({"Surrogate-Control": 'content="ESI/1.0"', "Cache-Control": "max-age=60"}, 60, id="content-only"),
        pytest.param({"Surrogate-Control": "foo", "Cache-Control": "max-age=60"}, 60, id="unknown-only"),
        pytest.param({"Surrogate-Control": "max-age =60", "Cache-Control": "max-age=5"}, 0, id="space-before"),
        pytest.param({"Surrogate-Control": "max-age= 60", "Cache-Control": "max-age=5"}, 0, id="space-after"),
        pytest.param({"Surrogate-Control": "max-age=60", "Age": "20"}, 40, id="age-counts"),
        pytest.param({"Surrogate-Control": "max-age=99999999999"}, 2**31, id="huge"),
        pytest.param({"Surrogate-Control": "max-age=60+30"}, 60, id="with-stale-time"),
    ],
)
def test_surrogate_control(fields: dict[str, str], seconds: int) -> None:
    assert lifetime(fields) == seconds


def test_override_comes_before_all_but_what_forbids_storing() -> None:
    site = SitePolicy(override_ttl_s=30)
    assert lifetime({"Cache-Control": "max-age=60"}, site=site) == 30
    assert lifetime({"Surrogate-Control": "max-age=60"}, site=site) == 30
    assert lifetime({}, site=site) == 30
    assert lifetime({"Cache-Control": "no-store"}, site=site) == 0
    assert lifetime({}, site=SitePolicy(override_ttl_s=0)) == 0
