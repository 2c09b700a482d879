"""RFC 9111 §4.2.4, RFC 5861: stale responses, and soft purges."""

import pytest

from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, Origin, answer, unreachable

ERROR = answer(status=503, body=b"error")
PROHIBITIONS = ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"]


def filled(control: str, site: SitePolicy | None = None, **fields: str) -> Model:
    edge = Model(site)
    edge.ask(answer({"Cache-Control": control, **fields}, body=b"old"))
    return edge


@pytest.mark.parametrize("control", PROHIBITIONS)
@pytest.mark.parametrize("window", ["", ", stale-while-revalidate=100, stale-if-error=100"])
@pytest.mark.parametrize("origin", [unreachable, ERROR], ids=["unreachable", "503"])
def test_forbidden_also_when_the_origin_fails(control: str, window: str, origin: Origin) -> None:
    """§4.2.4, §5.2.2.2, §5.2.2.4, §5.2.2.8, §5.2.2.10: and RFC 5861 does not change that."""
    edge = filled(f"max-age=10, {control}{window}", SitePolicy(stale_if_error_s=100), ETag='"a"')
    result = edge.at(20).ask(origin)
    assert result.status >= 500
    assert result.asked[0].headers.get("if-none-match") == '"a"'


@pytest.mark.parametrize("control", PROHIBITIONS)
def test_max_stale_does_not_lift_the_prohibition(control: str) -> None:
    """§5.2.1.2 is a wish of the client's."""
    edge = filled(f"max-age=10, {control}")
    assert edge.at(20).ask(answer(), {"Cache-Control": "max-stale"}).asked


def test_while_revalidating() -> None:
    """RFC 5861 §3: served at once, with one request in the background; what comes is used from then on."""
    edge = filled("max-age=10, stale-while-revalidate=20", ETag='"a"')
    result = edge.at(15).ask(answer({"Cache-Control": "max-age=10", "ETag": '"b"'}, body=b"new"))
    assert (result.body, result.reason) == (b"old", Reason.STALE_WHILE_REVALIDATE)
    assert result.headers.get("age") == "15"
    assert result.asked[0].headers.get("if-none-match") == '"a"'
    again = edge.ask()
    assert (again.body, again.headers.get("age")) == (b"new", "0")


@pytest.mark.parametrize(("at", "waits"), [(10, False), (30, False), (30.5, True), (100, True)])
def test_past_the_window_it_waits(at: float, waits: bool) -> None:
    edge = filled("max-age=10, stale-while-revalidate=20")
    assert (edge.at(at).ask(answer(body=b"new")).body == b"new") is waits


@pytest.mark.parametrize(
    ("control", "served"),
    [
        ("max-age=0", False),
        ("max-age=100", False),
        ("min-fresh=1", False),
        ("no-cache", False),
        ("max-age=100, max-stale", True),
        ("x", True),
    ],
)
def test_a_client_that_wants_nothing_stale_waits(control: str, served: bool) -> None:
    """§5.2.1.1, §5.2.1.3, §5.2.1.4."""
    edge = filled("max-age=10, stale-while-revalidate=20")
    assert (edge.at(15).ask(answer(body=b"new"), {"Cache-Control": control}).body == b"old") is served


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_on_error(status: int) -> None:
    """RFC 5861 §4."""
    edge = filled("max-age=10, stale-if-error=20")
    result = edge.at(25).ask(answer(status=status))
    assert (result.status, result.body, result.reason) == (200, b"old", Reason.STALE_IF_ERROR)
    assert edge.at(31).ask(answer(status=status)).status == status
    assert edge.at(32).ask(unreachable).status == 200, "disconnected, what was stored is still there"


@pytest.mark.parametrize("status", [400, 404, 501, 505])
def test_other_answers_are_no_errors(status: int) -> None:
    edge = filled("max-age=10, stale-if-error=20")
    assert edge.at(25).ask(answer(status=status)).status == status


def test_an_error_with_freshness_of_its_own_comes_after_the_window() -> None:
    edge = filled("max-age=10, stale-if-error=20")
    error = answer({"Cache-Control": "max-age=5"}, status=503)
    assert edge.at(15).ask(error).status == 200
    assert edge.at(31).ask(error).status == 503
    assert edge.at(32).ask().status == 503


def test_windows_of_the_site() -> None:
    """In effect where the response does not say itself."""
    site = SitePolicy(stale_while_revalidate_s=20, stale_if_error_s=40)
    edge = filled("max-age=10", site)
    assert edge.at(25).ask(ERROR).body == b"old"
    assert edge.at(45).ask(ERROR).reason is Reason.STALE_IF_ERROR
    assert edge.at(51).ask(ERROR).status == 503
    edge = filled("max-age=10, stale-while-revalidate=0, stale-if-error=0", site)
    assert edge.at(11).ask(ERROR).status == 503


@pytest.mark.parametrize("window", ["stale-while-revalidate=x", "stale-while-revalidate", "stale-while-revalidate=-5"])
def test_a_window_that_cannot_be_read_is_none(window: str) -> None:
    edge = filled(f"max-age=10, {window}", SitePolicy(stale_while_revalidate_s=20))
    assert edge.at(11).ask(answer(body=b"new")).body == b"new"


def test_unreachable_means_disconnected() -> None:
    """§4.2.4: without any permission, but only for as long as the site says."""
    edge = filled("max-age=10", SitePolicy(stale_when_unreachable_s=50))
    assert edge.at(60).ask(unreachable).body == b"old"
    assert edge.at(61).ask(unreachable).status == 502
    assert filled("max-age=10", SitePolicy(stale_when_unreachable_s=0)).at(11).ask(unreachable).status == 502


def test_unreachable_and_nothing_stored() -> None:
    assert Model().ask(unreachable).status == 502


def test_stored_already_stale() -> None:
    edge = Model()
    edge.ask(
        answer(
            {"Cache-Control": "max-age=10", "Age": "60", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, body=b"old"
        )
    )
    assert edge.at(1).ask(unreachable).body == b"old"


def test_s_maxage_beside_windows_where_the_site_says_so() -> None:
    site = SitePolicy(stale_despite_s_maxage=True)
    edge = filled("s-maxage=10, stale-while-revalidate=20", site)
    assert edge.at(15).ask(answer(body=b"new")).body == b"old"
    assert filled("s-maxage=10", site).at(15).ask(unreachable).status == 502, "only where the response has windows"
    edge = filled("s-maxage=10, must-revalidate, stale-if-error=20", site)
    assert edge.at(15).ask(unreachable).status == 502


@pytest.mark.parametrize(
    ("control", "served"),
    [
        *(
            ("max-stale", True),
            ("max-stale=10", True),
            ("max-stale=9", False),
            ("max-stale=x", False),
            ("max-stale=-1", False),
        ),
        *(('max-stale="10"', True), ("max-stale=5, max-stale=50", False), ("max-age=50, max-stale=10", True)),
        *(("max-age=15, max-stale=10", False), ("max-stale, no-cache", False)),
    ],
)
def test_max_stale(control: str, served: bool) -> None:
    """§5.2.1.2."""
    edge = filled("max-age=10")
    assert edge.at(20).ask(answer(), {"Cache-Control": control}).cached is served


def test_revalidation_that_brings_no_freshness_replaces_what_was_stored() -> None:
    edge = filled("max-age=10, stale-if-error=100", ETag='"a"')
    assert edge.at(20).ask(answer({"Cache-Control": "no-store"}, body=b"new")).body == b"new"
    assert edge.at(21).ask(unreachable).status == 502


# --- soft purges (DESIGN §7): stale from that moment ---


def test_soft_purged_is_validated() -> None:
    edge = filled("max-age=100", ETag='"a"')
    edge.at(5).soft_purge()
    result = edge.ask(answer({"ETag": '"a"', "Cache-Control": "max-age=100"}, status=304))
    assert (result.body, result.reason) == (b"old", Reason.SOFT_PURGED)
    assert edge.at(50).ask().cached, "confirmed, it is fresh again"


def test_soft_purged_may_be_used_while_revalidating() -> None:
    edge = filled("max-age=100, stale-while-revalidate=20")
    edge.at(5).soft_purge()
    result = edge.ask(answer({"Cache-Control": "max-age=100"}, body=b"new"))
    assert (result.body, result.reason) == (b"old", Reason.STALE_WHILE_REVALIDATE)
    assert edge.ask().body == b"new"


@pytest.mark.parametrize(("at", "body"), [(5, b"old"), (120, b"old"), (121, b"error")])
def test_soft_purged_may_be_used_on_error(at: float, body: bytes) -> None:
    edge = filled("max-age=100, stale-if-error=20")
    edge.at(5).soft_purge()
    assert edge.at(at).ask(ERROR).body == body


def test_soft_purged_does_not_lift_prohibitions_nor_obey_clients() -> None:
    edge = filled("max-age=100, must-revalidate, stale-if-error=20")
    edge.at(5).soft_purge()
    assert edge.ask(unreachable).status == 502
    edge = filled("max-age=100")
    edge.at(5).soft_purge()
    assert not edge.ask(answer(), {"Cache-Control": "max-stale"}).cached
    edge = filled("max-age=100")
    edge.at(5).soft_purge()
    assert edge.ask(unreachable).body == b"old", "disconnected"


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("max-age=10", 10),
        ("max-age=10, stale-if-error=5", 15),
        ("max-age=10, stale-if-error=5, stale-while-revalidate=7", 17),
    ],
)
def test_the_last_moment_for_any_stale_use(control: str, seconds: int) -> None:
    edge = filled(control)
    (stored, _), *_ = edge.entries.values()
    assert stored.stale_until - edge.now == seconds
