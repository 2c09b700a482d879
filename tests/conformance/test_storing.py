"""RFC 9111 §3: which responses are stored, and for whom."""

import pytest

from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, answer, date

FRESH = ("Cache-Control", "max-age=60")
OLD = ("Last-Modified", date(-1000))

EXPLICIT = [
    200,
    201,
    203,
    204,
    299,
    300,
    301,
    302,
    303,
    307,
    308,
    400,
    403,
    404,
    410,
    418,
    451,
    499,
    500,
    503,
    504,
    599,
]
HEURISTIC = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]  # RFC 9110 §15.1
NOT_HEURISTIC = [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599]


@pytest.mark.parametrize("status", EXPLICIT)
def test_any_final_status_with_explicit_freshness(status: int) -> None:
    """§3: a status need not be known for its response to be stored."""
    edge = Model()
    first = edge.ask(answer([FRESH], status=status))
    again = edge.at(1).ask()
    assert (first.status, again.status) == (status, status)
    assert again.cached


@pytest.mark.parametrize("status", HEURISTIC)
def test_heuristically_cacheable_status(status: int) -> None:
    """§4.2.2, RFC 9110 §15.1."""
    edge = Model()
    edge.ask(answer([OLD], status=status))
    assert edge.at(99).ask().cached
    assert not edge.at(101).ask(answer()).cached


@pytest.mark.parametrize("status", NOT_HEURISTIC)
def test_not_heuristically_cacheable_status(status: int) -> None:
    edge = Model()
    edge.ask(answer([OLD], status=status))
    assert not edge.at(1).ask(answer()).cached


@pytest.mark.parametrize("status", NOT_HEURISTIC)
def test_public_allows_a_guess_for_any_status(status: int) -> None:
    """§4.2.2: public marks the response as explicitly cacheable (§5.2.2.9)."""
    edge = Model()
    edge.ask(answer([OLD, ("Cache-Control", "public")], status=status))
    assert edge.at(1).ask().cached


@pytest.mark.parametrize(
    ("status", "control", "stored"),
    [
        (200, "max-age=60, must-understand", True),
        (200, "max-age=60, must-understand, no-store", True),
        (404, "max-age=60, no-store, must-understand", True),
        (599, "max-age=60, must-understand", False),
        (599, "max-age=60, must-understand, no-store", False),
        (299, "max-age=60, must-understand", False),
        (200, "max-age=60, no-store", False),
    ],
)
def test_must_understand(status: int, control: str, stored: bool) -> None:
    """§5.2.2.3: stored only if the status is understood, and then whatever no-store says."""
    edge = Model()
    edge.ask(answer({"Cache-Control": control}, status=status))
    assert edge.at(1).ask(answer()).cached is stored


@pytest.mark.parametrize(
    "control",
    [
        *(
            "no-store",
            "No-Store, max-age=60",
            "max-age=60, no-store=x",
            'max-age=60, no-store="x',
            "max-age=60;no-store",
        ),
        *(
            "private",
            "PRIVATE, max-age=60",
            "private=, max-age=60",
            'private="", max-age=60',
            'private="a b", max-age=60',
        ),
        *('max-age=60, x="open, private', "max-age=60 private", "max-age=60, private;x", "max-age=60, ( private )"),
    ],
)
def test_forbidden_in_whatever_shape(control: str) -> None:
    """§5.2.2.5, §5.2.2.7: what forbids storing counts even where it is malformed."""
    edge = Model()
    edge.ask(answer({"Cache-Control": control}))
    assert not edge.at(1).ask(answer()).cached


@pytest.mark.parametrize(
    "control",
    ["max-age=60, no-storex", "max-age=60, xno-store", "max-age=60, not-private=1", 'max-age=60, x="no-store"'],
)
def test_words_that_only_look_like_it(control: str) -> None:
    edge = Model()
    edge.ask(answer({"Cache-Control": control}))
    assert edge.at(1).ask().cached


@pytest.mark.parametrize(
    ("control", "left_out"),
    [
        ('max-age=60, private="x-user"', ["x-user"]),
        ('max-age=60, private="x-user, set-cookie"', ["x-user", "set-cookie"]),
        ('max-age=60, no-cache="X-User"', ["x-user"]),
        ("max-age=60, no-cache=x-user, private=set-cookie", ["x-user", "set-cookie"]),
    ],
)
def test_field_names_limit_what_is_stored(control: str, left_out: list[str]) -> None:
    """§5.2.2.4, §5.2.2.7: only the named fields may not be reused; whoever asked first gets them."""
    edge = Model(SitePolicy(store_set_cookie=True))
    fields = [("Cache-Control", control), ("X-User", "me"), ("Set-Cookie", "a=b"), ("X-Other", "1")]
    first = edge.ask(answer(fields))
    assert all(name in first.headers for name in ("x-user", "set-cookie", "x-other"))
    again = edge.at(1).ask()
    assert [name for name in ("x-user", "set-cookie", "x-other") if name not in again.headers] == left_out


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        pytest.param({"Cache-Control": "max-age=60"}, False, id="freshness-is-not-enough"),
        pytest.param({"Expires": date(60)}, False, id="expires-is-not-enough"),
        pytest.param({"Cache-Control": "max-age=60, public"}, True, id="public"),
        pytest.param({"Cache-Control": "max-age=60, must-revalidate"}, True, id="must-revalidate"),
        pytest.param({"Cache-Control": "s-maxage=60"}, True, id="s-maxage"),
        pytest.param({"CDN-Cache-Control": "max-age=60"}, False, id="targeted-is-not-enough"),
        pytest.param({"CDN-Cache-Control": "max-age=60, public"}, True, id="targeted-public"),
        pytest.param({"CDN-Cache-Control": "max-age=60", "Cache-Control": "public"}, False, id="replaced-public"),
    ],
)
def test_authenticated_requests(fields: dict[str, str], stored: bool) -> None:
    """§3.5."""
    edge = Model()
    edge.ask(answer(fields), {"Authorization": "me"})
    assert edge.at(1).ask(answer()).cached is stored
    assert edge.at(1).ask(answer(), {"Authorization": "you"}).cached is stored


def test_what_is_stored_for_all_is_not_for_those_with_credentials() -> None:
    """Beyond §3.5, on the safe side: an origin that does not mention credentials may still look at them."""
    edge = Model()
    edge.ask(answer([FRESH]))
    result = edge.at(1).ask(answer([FRESH]), {"Authorization": "me"})
    assert not result.cached
    assert result.reason is Reason.AUTHORIZATION
    assert edge.at(2).ask().cached, "what was stored stays"


@pytest.mark.parametrize(
    ("fields", "site", "stored"),
    [
        pytest.param({"Cache-Control": "max-age=60"}, {}, False, id="freshness-is-not-enough"),
        pytest.param({"Cache-Control": "max-age=60, public"}, {}, True, id="public"),
        pytest.param({"Cache-Control": "s-maxage=60"}, {}, True, id="s-maxage"),
        pytest.param({"CDN-Cache-Control": "max-age=60"}, {}, True, id="targeted"),
        pytest.param({"Surrogate-Control": "max-age=60"}, {}, True, id="surrogate-control"),
        pytest.param({"Cache-Control": 'max-age=60, private="set-cookie"'}, {}, True, id="left-out"),
        pytest.param({"Cache-Control": "max-age=60"}, {"store_set_cookie": True}, True, id="site-says-so"),
    ],
)
def test_set_cookie(fields: dict[str, str], site: dict[str, bool], stored: bool) -> None:
    """A choice: docs/conformance.md."""
    edge = Model(SitePolicy(**site))  # type: ignore[arg-type]
    edge.ask(answer({**fields, "Set-Cookie": "session=1"}))
    assert edge.at(1).ask(answer()).cached is stored


def test_no_store_in_the_request() -> None:
    """§5.2.1.5: neither stored nor answered from the store."""
    edge = Model()
    assert edge.ask(answer([FRESH]), {"Cache-Control": "no-store"}).reason is Reason.REQUEST_DIRECTIVE
    assert not edge.ask(answer([FRESH])).cached
    assert not edge.ask(answer([FRESH]), {"Cache-Control": "no-store"}).cached
    assert edge.ask().cached


def test_request_directives_may_be_ignored_by_the_site() -> None:
    edge = Model(SitePolicy(honour_request_directives=False))
    edge.ask(answer([FRESH]), {"Cache-Control": "no-store"})
    assert edge.ask(lines={"Cache-Control": "no-cache"}).cached


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        pytest.param({"Cache-Control": "max-age=60", "Content-Location": "/"}, True, id="same-path"),
        pytest.param({"Expires": date(60), "Content-Location": "http://EXAMPLE.com:80"}, True, id="same-uri"),
        pytest.param({"Cache-Control": "s-maxage=60", "Content-Location": ""}, True, id="empty-reference"),
        pytest.param({"Cache-Control": "max-age=60", "Content-Location": "/other"}, False, id="other-path"),
        pytest.param(
            {"Cache-Control": "max-age=60", "Content-Location": "https://example.com/"}, False, id="other-scheme"
        ),
        pytest.param({"Cache-Control": "max-age=60"}, False, id="no-content-location"),
        pytest.param({"Content-Location": "/", "Last-Modified": date(-1000)}, False, id="a-guess"),
        pytest.param({"Cache-Control": "max-age=60, private", "Content-Location": "/"}, False, id="private"),
    ],
)
def test_post_with_its_own_content_location(fields: dict[str, str], stored: bool) -> None:
    """RFC 9110 §9.3.3."""
    edge = Model()
    edge.ask(answer(fields, body=b"posted"), method="POST")
    result = edge.at(1).ask(answer())
    assert result.cached is stored
    assert (result.body == b"posted") is stored


@pytest.mark.parametrize("status", [206, 303, 404, 500])
def test_post_that_is_no_success_is_not_stored(status: int) -> None:
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=60", "Content-Location": "/"}, status=status), method="POST")
    assert not edge.at(1).ask(answer()).cached


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "M-SEARCH", "get"])
def test_other_methods_are_not_stored(method: str) -> None:
    """Methods are case-sensitive (RFC 9110 §9.1)."""
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=60", "Content-Location": "/"}), method=method)
    assert not edge.at(1).ask(answer()).cached


def test_head_is_answered_from_get_but_does_not_fill() -> None:
    edge = Model()
    assert not edge.ask(answer([FRESH]), method="HEAD").cached
    assert not edge.ask(answer([FRESH], body=b"12345")).cached
    head = edge.at(1).ask(method="HEAD")
    assert (head.body, head.headers.get("content-length")) == (b"", "5")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"Cache-Control": "max-age=0"}, id="no-time"),
        pytest.param({"Expires": "0"}, id="expired"),
        pytest.param({"Cache-Control": "public"}, id="public-alone"),
        pytest.param({"ETag": "*"}, id="a-tag-that-cannot-validate"),
    ],
)
def test_what_could_never_be_used_is_not_stored_and_remembered(fields: dict[str, str]) -> None:
    edge = Model()
    edge.ask(answer(fields))
    again = edge.at(1).ask(answer(fields))
    assert not again.cached
    assert again.reason is Reason.HIT_FOR_PASS
    assert edge.at(125).ask(answer(fields)).reason is Reason.URI_MISS, "the memory ends"


def test_a_response_that_becomes_storable_ends_the_memory() -> None:
    edge = Model()
    edge.ask(answer())
    edge.at(1).ask(answer([FRESH]))
    assert edge.at(2).ask().cached


@pytest.mark.parametrize(
    "fields",
    [{"ETag": '"a"'}, {"ETag": "bare"}, {"Last-Modified": date(0)}, {"Cache-Control": "no-cache", "ETag": '"a"'}],
)
def test_a_validator_is_reason_enough(fields: dict[str, str]) -> None:
    edge = Model()
    edge.ask(answer(fields, body=b"kept"))
    again = edge.at(1).ask(answer(fields, status=304))
    assert (again.status, again.body) == (200, b"kept")


@pytest.mark.parametrize(
    ("fields", "site"),
    [
        ({"Vary": "*"}, {}),
        ({"Vary": "a, *"}, {}),
        ({"Vary": "a b"}, {}),
        ({"Vary": "a, b, c"}, {"max_vary_fields": 2}),
        ({"Content-Length": "2000"}, {"max_object_bytes": 1999}),
        ({"Surrogate-Key": "aaa bbb"}, {"max_tag_bytes": 5}),
    ],
)
def test_limits(fields: dict[str, str], site: dict[str, int]) -> None:
    edge = Model(SitePolicy(**site))  # type: ignore[arg-type]
    edge.ask(answer({**fields, "Cache-Control": "max-age=60"}))
    assert edge.at(1).ask(answer([FRESH])).reason is Reason.HIT_FOR_PASS


def test_a_server_error_is_not_remembered() -> None:
    edge = Model()
    edge.ask(answer(status=500))
    assert edge.at(1).ask(answer([FRESH])).reason is Reason.URI_MISS


@pytest.mark.parametrize("status", [304, 416])
def test_statuses_that_are_nothing_by_themselves(status: int) -> None:
    edge = Model()
    edge.ask(answer([FRESH], status=status))
    assert not edge.at(1).ask(answer([FRESH])).cached


def test_fields_that_are_not_stored() -> None:
    """§3.1: of the connection, named by Connection, of a proxy. The client that fills gets none of them either."""
    hop = ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade"]
    proxy = ["Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization"]
    fields = [
        FRESH,
        *((name, "x-named, X-Other") for name in hop + proxy),
        ("X-Named", "1"),
        ("x-other", "2"),
        ("X-Kept", "3"),
    ]
    edge = Model()
    for result in (edge.ask(answer(fields)), edge.at(1).ask()):
        names = {name.lower() for name, _ in result.headers}
        assert not names & {name.lower() for name in [*hop, *proxy, "x-named", "x-other"]}
        assert "x-kept" in names


def test_date_is_added_where_the_origin_sends_none() -> None:
    """RFC 9110 §6.6.1."""
    edge = Model()
    edge.ask(answer([FRESH], dated=False))
    assert edge.at(5).ask().headers.get("date") == date(0)
