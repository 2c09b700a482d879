"""A request must not be able to name the places that the cache makes for itself among variants.

`Accept-Language: =de` used to be stored where requests that prefer German are sent, whatever the origin answered.
"""

import pytest

from edgecache.http.headers import Headers
from edgecache.policy import vary


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("accept-language", "=de", "=de"),
        ("accept-language", "=DE", "=de"),
        ("accept-language", ", =de;q=1", "=de"),
        ("accept-encoding", "=br", "=br"),
        ("accept-encoding", "=br;q=2", "=br;q=2"),
        ("x-plain", "=br", "=br"),
    ],
)
def test_no_request_value_begins_as_ours_do(name: str, value: str, own: str) -> None:
    selected = vary.selecting([name], Headers([(name, value)]))
    assert selected != ((name, own),)
    assert vary.made_of(selected) is None


def test_what_asks_for_nonsense_is_not_found_by_those_who_ask_for_german() -> None:
    names = ["accept-language"]
    odd = Headers([("Accept-Language", "=de")])
    stored = vary.storage(names, odd, Headers())
    assert not set(stored) & set(vary.lookup(names, Headers([("Accept-Language", "de")])))
    assert set(stored) <= set(vary.lookup(names, odd))
