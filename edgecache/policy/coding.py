"""Content codings made by the edge: what may be compressed, which form a request gets (RFC 9110 §8.4, §12.5.3).

A coding is applied once, when the response is stored, and kept as a variant of its own beside identity. What the
origin has encoded is left alone, and so is what it says to vary by Accept-Encoding: there it chooses itself. Every
function here decides; compressing is the edge's.

One representation, several forms: a 304 or a purge means all of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from edgecache.http.fields import parse_media_type, parse_weighted, split_lines
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import validation, vary
from edgecache.policy.conditional import entity_tag
from edgecache.policy.directives import parse_directives
from edgecache.policy.site import SitePolicy

IDENTITY = "identity"

_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}  # RFC 9110 §8.4.1.1, §8.4.1.3
_DIGESTS = frozenset({"content-md5", "content-digest", "repr-digest", "digest"})


def compressible(stored: StoredResponse, site: SitePolicy) -> bool:
    """A whole 200 of a listed type and a size worth it, not encoded yet, that nobody forbids to transform.

    Digests would not be true of another form, and cannot be made before the body is there: such a response stays as
    it is. `body_size` 0 means that the size is not known yet, and then it is not the reason to refuse.
    """
    headers = stored.response.headers
    return (
        stored.response.status == 200
        and stored.held is None
        and "content-encoding" not in headers
        and "accept-encoding" not in (vary.vary_names(headers) or ())
        and not any(name in headers for name in _DIGESTS)
        and not _untouchable(headers)
        and (stored.body_size == 0 or worth(stored, site))
        and _listed(headers.get("content-type") or "", site.compress_types)
    )


def awaits_forms(stored: StoredResponse, site: SitePolicy) -> bool:
    """Are other forms to be made of this complete response, now that it is stored?"""
    return vary.made_of(stored.selecting) == IDENTITY and worth(stored, site)


def worth(stored: StoredResponse, site: SitePolicy) -> bool:
    """Is its size one that is compressed?"""
    return site.compress_min_bytes <= stored.body_size <= site.compress_max_bytes


def _untouchable(headers: Headers) -> bool:
    """no-transform (RFC 9111 §5.2.2.6)."""
    return parse_directives(headers.get_all("cache-control")).says("no-transform")


def _listed(value: str, types: Sequence[str]) -> bool:
    """Is the media type one of `types`, which may be "text/*" too?"""
    media = parse_media_type(value)
    return media is not None and (media.essence in types or f"{media.type}/*" in types)


def choose(request_headers: Headers, available: Sequence[str]) -> str:
    """Which of `available`, best first, to send: the one the client prefers, ours among equals (§12.5.3).

    `IDENTITY` where the client takes none of them, or names none, or what it says cannot be read: identity is what
    everybody can read, also one that refuses it (§12.5.3 lets a server ignore that rather than fail).
    """
    value = request_headers.get("accept-encoding")
    weighted = parse_weighted(value) if value is not None else None
    if not weighted:
        return IDENTITY
    weights = {_ALIASES.get(name, name): weight for name, weight in reversed(weighted)}
    any_other = weights.get("*", 0)
    best, best_weight = IDENTITY, weights.get(IDENTITY, 0)
    for coding in reversed(available):
        weight = weights.get(coding, any_other)
        if weight > 0 and weight >= best_weight:
            best, best_weight = coding, weight
    return best


def matches(selected: vary.Selecting, request_headers: Headers) -> bool:
    """May a response with this selection answer the request (RFC 9111 §4.1)? Of several forms identity always may."""
    made = vary.made_of(selected)
    acceptable = made in (None, IDENTITY) or choose(request_headers, (str(made),)) == made
    return acceptable and vary.matches(selected, request_headers)


def prepared(stored: StoredResponse, site: SitePolicy) -> StoredResponse:
    """The record of a response that is about to be stored: of what will have other forms, the identity one."""
    if not compressible(stored, site):
        return stored
    return replace(
        stored,
        response=stored.response.with_headers(with_vary(stored.response.headers)),
        selecting=vary.with_made(stored.selecting, IDENTITY),
        flags=stored.flags | StoredFlag.HAS_VARY,
    )


def shown(response: Response, stored: StoredResponse) -> Response:
    """The response that `stored` was made of, for the client that asked for it: other caches must know that it has
    other forms."""
    if vary.made_of(stored.selecting) is None:
        return response
    return response.with_headers(with_vary(response.headers))


def freshened(form: StoredResponse, fresh: StoredResponse) -> StoredResponse | None:
    """Another form of a response that a 304 has freshened (RFC 9111 §4.3.4), with the same news.

    None where the origin now forbids to transform it.
    """
    if _untouchable(fresh.response.headers):
        return None
    headers = validation.freshened(form.response.headers, fresh.response.headers)
    return replace(
        fresh,
        response=fresh.response.with_headers(headers),
        selecting=form.selecting,
        flags=fresh.flags & ~StoredFlag.ENCODED | form.flags & StoredFlag.ENCODED,
        body_size=form.body_size,
    )


def encoded(stored: StoredResponse, coding: str) -> StoredResponse:
    """The record of the same response in `coding` (not identity), its size not known yet.

    A strong entity-tag becomes weak: the octets are others, the meaning is the same (§8.8.1). Length and support for
    ranges of the other form go.
    """
    headers = stored.response.headers.without({"content-length", "accept-ranges"}).plus([("Content-Encoding", coding)])
    headers = with_vary(headers)
    tag = entity_tag(headers)
    if tag is not None and not tag.weak:
        headers = headers.replaced("etag", str(replace(tag, weak=True)))
    return replace(
        stored,
        response=stored.response.with_headers(headers),
        selecting=vary.with_made(stored.selecting, coding),
        flags=stored.flags | StoredFlag.ENCODED | StoredFlag.HAS_VARY,
        body_size=0,
    )


def with_vary(headers: Headers) -> Headers:
    """The fields of each form of a response that has several: Vary names Accept-Encoding (§12.5.5)."""
    names = [name.lower() for name in split_lines(headers.get_all("vary"))]
    if "accept-encoding" in names or "*" in names:
        return headers
    return headers.replaced("vary", ", ".join([*headers.get_all("vary"), "Accept-Encoding"]))
