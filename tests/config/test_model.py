from dataclasses import fields

import pytest
from pydantic import ValidationError

from edgecache.config.model import Config
from edgecache.config.options import options
from edgecache.config.site import site_policy
from edgecache.policy.site import QueryMode, QueryRecipe, SitePolicy


def config(**keys: object) -> Config:
    return Config.model_validate({"origin": "http://o"} | keys)


def test_what_is_not_set_is_what_the_policy_does_by_itself() -> None:
    made = config()
    assert site_policy(made.sites[0], made.memory) == SitePolicy(strip_surrogate_keys=True)


def test_every_decision_of_the_policy_can_be_configured() -> None:
    given = {
        "target_fields": ["X-Edge-Control", "CDN-Cache-Control"],
        "surrogate_name": "pop1",
        "surrogate_capability": False,
        "override_ttl": "1h",
        "heuristics": False,
        "heuristic_fraction": 0.2,
        "heuristic_cap": "2d",
        "stale_while_revalidate": "10s",
        "stale_if_error": "1d",
        "stale_when_unreachable": "1h",
        "stale_despite_s_maxage": True,
        "store_set_cookie": True,
        "honour_request_directives": False,
        "retry_after_failure": "2s",
        "hit_for_pass": "5s",
        "query": {"drop": ["utm_*", "fbclid"], "sort": True},
        "max_object": "64KiB",
        "max_vary_fields": 3,
        "max_ranges": 2,
        "surrogate_keys_limit": "1KiB",
        "cache_status_name": "pop1",
        "cache_status_key": True,
        "no_vary_search": True,
        "early_hints": True,
        "slice": "1MiB",
        "compress": {"codings": ["gzip", "br", "gzip"], "types": ["Text/HTML"], "min_size": "2KiB", "max_size": "3KiB"},
    }
    made = config(cache=given)
    policy = site_policy(made.sites[0], made.memory, disk=True)
    default = SitePolicy(name="other")
    same = {f.name for f in fields(SitePolicy) if getattr(policy, f.name) == getattr(default, f.name)}
    assert not same
    assert policy.compress_codings == ("gzip", "br")
    assert policy.compress_types == ("text/html",)
    assert policy.target_fields == ("x-edge-control", "cdn-cache-control")
    assert policy.query == QueryRecipe(QueryMode.DROP, ("utm_*", "fbclid"), sort=True)
    assert policy.max_object_bytes == 64 << 10


@pytest.mark.parametrize(
    ("query", "recipe"),
    [
        pytest.param({}, QueryRecipe(), id="all"),
        pytest.param({"keep": ["a"]}, QueryRecipe(QueryMode.KEEP, ("a",)), id="keep"),
        pytest.param({"keep": []}, QueryRecipe(QueryMode.KEEP), id="ignore-the-query"),
        pytest.param({"drop": ["a"]}, QueryRecipe(QueryMode.DROP, ("a",)), id="drop"),
        pytest.param({"sort": True}, QueryRecipe(sort=True), id="sort"),
    ],
)
def test_query_recipes(query: dict[str, object], recipe: QueryRecipe) -> None:
    made = config(cache={"query": query})
    assert site_policy(made.sites[0], made.memory).query == recipe


def test_surrogate_keys_are_kept_from_clients_unless_asked_for() -> None:
    made = Config.model_validate({"sites": [{"origin": "http://a", "expose_surrogate_keys": True}]})
    assert not site_policy(made.sites[0], made.memory).strip_surrogate_keys


def test_the_largest_object_is_bounded_by_the_memory_tiers() -> None:
    made = config(cache={"max_object": "1GiB"}, memory={"max_object": "2MiB"})
    assert site_policy(made.sites[0], made.memory).max_object_bytes == 2 << 20


@pytest.mark.parametrize(
    ("given", "disk", "size"),
    [
        pytest.param({}, True, 4 << 20, id="default"),
        pytest.param({}, False, 0, id="no disk"),
        pytest.param({"slice": "64KiB"}, True, 64 << 10, id="given"),
        pytest.param({"slice": "off"}, True, 0, id="off"),
        pytest.param({"slice": False}, True, 0, id="off, as YAML reads it"),
    ],
)
def test_slices(given: dict[str, object], disk: bool, size: int) -> None:
    made = config(cache=given)
    assert site_policy(made.sites[0], made.memory, disk=disk).slice_bytes == size


@pytest.mark.parametrize("size", ["63KiB", "65MiB", "much"])
def test_slices_have_bounds(size: str) -> None:
    with pytest.raises(ValidationError, match="size"):
        config(cache={"slice": size})


def test_a_site_takes_what_it_does_not_say_from_the_top() -> None:
    made = Config.model_validate(
        {
            "cache": {"stale_if_error": "1d", "hit_for_pass": "9s"},
            "sites": [
                {"hosts": ["A.example."], "origin": "http://a", "cache": {"hit_for_pass": "1s"}},
                {"name": "rest", "origin": "http://b"},
            ],
        }
    )
    a, rest = made.sites
    assert (a.title, a.hosts) == ("a.example", ("a.example",))
    assert (a.cache.stale_if_error_s, a.cache.hit_for_pass_s) == (86400, 1)
    assert (rest.cache.stale_if_error_s, rest.cache.hit_for_pass_s) == (86400, 9)


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        pytest.param([{"origin": "http://a"}, {"origin": "http://b"}], "default", id="two-without-hosts"),
        pytest.param(
            [{"name": "a", "origin": "http://a"}, {"name": "b", "origin": "http://b"}],
            "every other host",
            id="two-catch-all",
        ),
        pytest.param(
            [
                {"name": "a", "hosts": ["x.example"], "origin": "http://a"},
                {"name": "b", "hosts": ["X.EXAMPLE"], "origin": "http://b"},
            ],
            "x.example",
            id="host-twice",
        ),
        pytest.param(
            [
                {"name": "a", "hosts": ["x.example"], "origin": "http://a"},
                {"name": "a", "hosts": ["y.example"], "origin": "http://b"},
            ],
            "two are called",
            id="name-twice",
        ),
    ],
)
def test_sites_that_contradict_each_other(sites: list[object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Config.model_validate({"sites": sites})


def test_origin_and_sites_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="either origin or sites"):
        config(sites=[{"origin": "http://a"}])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://a",
        "http://",
        "http://a/path",
        "http://a?q",
        "http://a#f",
        "http://u:p@a",
        "http://a:0",
        "http://a:99999",
        "http://a b",
        "http://a\\b",
        "http://ä",
        "http://[::1",
        5,
        None,
        "//a",
    ],
)
def test_what_is_no_origin(url: object) -> None:
    with pytest.raises(ValidationError):
        config(origin={"url": url})


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://Example.com", "http://example.com"),
        ("https://a:8443/", "https://a:8443"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("HTTP://10.0.0.1", "http://10.0.0.1"),
    ],
)
def test_origins(url: str, kept: str) -> None:
    assert config(origin=url).sites[0].origin.url == kept


@pytest.mark.parametrize(
    "host", ["a:80", "a b", "*", "*.*", "a.*", "", "-a", "http://a", "ä.example", "a" * 254, "[::g]", 5, "a..b"]
)
def test_what_is_no_host(host: object) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"sites": [{"hosts": [host], "origin": "http://a"}]})


def test_a_memory_too_small_for_its_largest_objects_is_refused() -> None:
    with pytest.raises(ValidationError, match="8MiB"):
        config(memory={"size": "4MiB"})


def test_nothing_changes_after_loading() -> None:
    made = config()
    with pytest.raises(ValidationError):
        made.memory.size_bytes = 1  # type: ignore[misc]


def test_python_names_are_not_keys() -> None:
    with pytest.raises(ValidationError):
        config(memory={"size_bytes": 1 << 30})


def test_every_option_has_a_meaning_and_a_variable_of_its_own() -> None:
    assert all(option.field.description for option in options())
    variables = [option.variable for option in options()]
    assert len(set(variables)) == len(variables)
