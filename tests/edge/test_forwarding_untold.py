import pytest

from edgecache.config.model import ForwardingConfig
from edgecache.edge.forwarding import Hop, request_to_origin
from edgecache.http.headers import Headers
from edgecache.http.message import Peer, Request

FACTS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        pytest.param({}, FACTS, id="all"),
        pytest.param({"forwarded": False}, FACTS - {"forwarded"}, id="no-forwarded"),
        pytest.param({"x_forwarded": False}, {"forwarded"}, id="only-forwarded"),
        pytest.param({"x_forwarded": False, "forwarded": False}, set(), id="none"),
    ],
)
def test_what_the_origin_is_told_of_the_client(config: dict[str, bool], told: set[str]) -> None:
    claimed = Headers([("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")])
    request = Request("GET", "http", "a.example", "/", claimed, peer=Peer("192.0.2.1", 5))
    sent = request_to_origin(request, Hop(untold=ForwardingConfig.model_validate(config).untold)).headers
    assert {name.lower() for name, _ in sent} & FACTS == told
    assert "203.0.113.9" not in str(sent)
