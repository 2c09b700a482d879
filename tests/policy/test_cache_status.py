"""Cache-Status (RFC 9211): the member's text, and where it goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.structured import parse_list
from edgecache.policy import cache_status
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, answer

SITE = SitePolicy(cache_status_name="pop", cache_status_key=True)


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({}, "pop"),
        ({"hit": True, "reason": Reason.FRESH, "ttl": 12.9}, "pop; hit; ttl=12"),
        (
            {"hit": True, "reason": Reason.STALE_WHILE_REVALIDATE, "ttl": -1.5},
            "pop; hit; ttl=-2; detail=stale-while-revalidate",
        ),
        ({"reason": Reason.URI_MISS, "stored": True, "fwd_status": 200}, "pop; fwd=uri-miss; fwd-status=200; stored"),
        ({"reason": Reason.URI_MISS, "collapsed": True}, "pop; fwd=uri-miss; collapsed"),
        ({"reason": Reason.NO_CACHE, "fwd_status": 304}, "pop; fwd=stale; fwd-status=304; detail=no-cache"),
        ({"reason": Reason.HIT_FOR_PASS}, "pop; fwd=bypass; detail=hit-for-pass"),
        ({"reason": Reason.ONLY_IF_CACHED}, "pop; detail=only-if-cached"),
        (
            {"reason": Reason.STALE_IF_ERROR, "hit": True, "fwd": "stale", "fwd_status": 503},
            "pop; fwd=stale; fwd-status=503; detail=stale-if-error",
        ),
        ({"reason": Reason.STALE, "detail": "origin-refused"}, "pop; fwd=stale; detail=origin-refused"),
        ({"detail": 'two "words"'}, 'pop; detail="two \\"words\\""'),
        ({"hit": True, "key": "http://a/"}, 'pop; hit; key="http://a/"'),
        ({"hit": True, "stored": True, "collapsed": True, "fwd_status": 200}, "pop; hit"),
        ({"hit": True, "ttl": 1e30}, "pop; hit; ttl=999999999999999"),
    ],
)
def test_member(about: dict[str, object], text: str) -> None:
    assert cache_status.member(SITE, **about) == text  # type: ignore[arg-type]


def test_the_key_is_shown_only_where_the_site_says_so() -> None:
    assert cache_status.member(SitePolicy(), hit=True, key="http://a/") == "edgecache; hit"


@given(
    st.text(alphabet=st.characters(max_codepoint=255)),
    st.text(max_size=10),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_member_is_always_a_list_of_one(key: str, detail: str, ttl: float) -> None:
    text = cache_status.member(SITE, hit=True, key=key, detail=detail, ttl=ttl)
    assert len(parse_list(text) or []) == 1


def test_appended_after_the_origins_side() -> None:
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=9", "Cache-Status": "shield; hit"}))
    assert edge.ask().headers.get_all("cache-status") == ["shield; hit", "edgecache; hit; ttl=9"]
