"""Which stored variant answers a request (RFC 9111 §4.1, RFC 9110 §12.5).

The names in Vary and the request's values of them, normalised by meaning, select a variant. Two values share a
normal form only where the field's definition gives them the same meaning:

- any field: lines combined, white space around list elements removed;
- Accept, Accept-Charset, Accept-Encoding, Accept-Language: elements in lower case, sorted by weight and then by
  name, weights written one way.

Where the origin says in Content-Language which language it chose, a request that prefers exactly that language to
every other would be given it again: such a variant is found by its language, whatever the rest of Accept-Language.

A response that the edge keeps in several content codings (`coding`) is found by the coding, not by what the request
says of them. Both are values that begin with "=", as no request's own ever does.
"""

from collections.abc import Sequence

from edgecache.http.fields import is_token, parse_weighted, split_lines, split_list
from edgecache.http.headers import Headers

Selecting = tuple[tuple[str, str | None], ...]
"""(lower-case field name, normalised value or None where the request has none), in the order of the names."""

_NEGOTIATED = frozenset({"accept", "accept-charset", "accept-encoding", "accept-language"})
_LANGUAGE = "accept-language"
_ENCODING = "accept-encoding"


def vary_names(headers: Headers) -> tuple[str, ...] | None:
    """The names in Vary, lower case, sorted, each once; None where it has "*" or cannot be read: no request matches."""
    names = {element.lower() for element in split_lines(headers.get_all("vary"))}
    return tuple(sorted(names)) if all(name != "*" and is_token(name) for name in names) else None


def selecting(names: Sequence[str], request_headers: Headers, made: str | None = None) -> Selecting:
    """The request's normalised values of the fields that select; `made`: the coding that the edge has given it."""
    exact = tuple((name, _value(name, request_headers)) for name in names)
    return exact if made is None else with_made(exact, made)


def with_made(selected: Selecting, coding: str) -> Selecting:
    """The selection of the form that the edge keeps in `coding`."""
    return tuple(sorted({**dict(selected), _ENCODING: f"={coding}"}.items()))


def made_of(selected: Selecting) -> str | None:
    """The coding under which the edge keeps this form; None where it makes none of this response."""
    value = next((value for name, value in selected if name == _ENCODING), None)
    return value[1:] if value is not None and value.startswith("=") else None


def _value(name: str, headers: Headers) -> str | None:
    combined = headers.get(name)
    return None if combined is None else normalise(name, combined)


def normalise(name: str, value: str) -> str:
    """One text for all values that mean the same for this field; none begins with "=", which is ours."""
    if name in _NEGOTIATED and (weighted := parse_weighted(value)) is not None:
        text = ",".join(item + _weight(weight) for item, weight in _ordered(weighted))
    else:
        text = ",".join(split_list(value))
    return f" {text}" if text.startswith("=") else text


def _ordered(weighted: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(dict.fromkeys(weighted), key=lambda each: (-each[1], each[0]))


def _weight(thousandths: int) -> str:
    return "" if thousandths == 1000 else f";q={thousandths / 1000:g}"


def secondary_key(selecting: Selecting) -> bytes:
    """A text that is the same for equal selections and for no others; hashed together with the primary key."""
    parts = [f"{name}:{len(value)}:{value}" if value is not None else f"{name}:-" for name, value in selecting]
    return "\n".join(parts).encode("latin-1", "backslashreplace")


def lookup(names: Sequence[str], request_headers: Headers, made: str | None = None) -> tuple[Selecting, ...]:
    """The selections under which a response for this request may be stored, the exact one first.

    `made`: the coding wanted, where the edge keeps several.
    """
    exact = selecting(names, request_headers, made)
    preferred = _preferred_language(request_headers) if _LANGUAGE in names else None
    return (exact,) if preferred is None else (exact, _by_language(exact, preferred))


def storage(
    names: Sequence[str], request_headers: Headers, response_headers: Headers, made: str | None = None
) -> tuple[Selecting, ...]:
    """The selections to store a response under.

    One; or two where the response's own language would be found by requests that prefer it, but not by this one.
    """
    exact = selecting(names, request_headers, made)
    language = _content_language(response_headers) if _LANGUAGE in names else None
    if language is None:
        return (exact,)
    by_language = _by_language(exact, language)
    return (by_language,) if _preferred_language(request_headers) == language else (exact, by_language)


def homes(stored: Selecting, response_headers: Headers) -> tuple[Selecting, ...]:
    """Where `storage` may have put a response with this selection."""
    language = _content_language(response_headers) if _LANGUAGE in dict(stored) else None
    return (stored,) if language is None else (stored, _by_language(stored, language))


def matches(stored: Selecting, request_headers: Headers) -> bool:
    """May a response with this selection answer the request? Whether it takes a coding we made, `coding` knows."""
    return stored in lookup([name for name, _ in stored], request_headers, made_of(stored))


def _by_language(exact: Selecting, language: str) -> Selecting:
    # "=" does not begin a normalised value (see `normalise`), so this is no request's own selection.
    return tuple((name, f"={language}" if name == _LANGUAGE else value) for name, value in exact)


def _preferred_language(headers: Headers) -> str | None:
    """The one language with a higher weight than all others (RFC 9110 §12.5.4); None where there is a tie or "*"."""
    ordered = _ordered(parse_weighted(headers.get(_LANGUAGE) or "") or [])
    if not ordered or ordered[0][1] == 0 or ordered[0][0] == "*":
        return None
    return ordered[0][0] if len(ordered) == 1 or ordered[0][1] > ordered[1][1] else None


def _content_language(headers: Headers) -> str | None:
    """The language of the response where it is one (RFC 9110 §8.5)."""
    languages = split_lines(headers.get_all("content-language"))
    return languages[0].lower() if len(languages) == 1 else None
