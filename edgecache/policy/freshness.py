"""How long a response is fresh and how old it is (RFC 9111 §4.2), and which field has the say (RFC 9213).

Worked out once, when the response arrives: what a later request needs are the absolute times of `StoredResponse`.
"""

from dataclasses import dataclass
from enum import StrEnum

from edgecache.http.dates import parse_date
from edgecache.http.fields import parse_delta, split_lines, split_parameters
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.structured import parse_dictionary
from edgecache.policy.directives import Directives, from_dictionary, parse_directives
from edgecache.policy.site import SitePolicy

_SURROGATE_DIRECTIVES = (
    *("max-age", "s-maxage", "no-store", "no-cache", "private"),
    *("stale-while-revalidate", "stale-if-error", "must-revalidate"),
)


class Source(StrEnum):
    """Whose word the control of a response is."""

    SURROGATE_CONTROL = "surrogate-control"
    TARGETED = "targeted"
    CACHE_CONTROL = "cache-control"


@dataclass(frozen=True)
class Control:
    """The directives that govern a response, from one field alone, and the names of the fields they replace."""

    directives: Directives
    source: Source = Source.CACHE_CONTROL

    @property
    def replaces_expires(self) -> bool:
        """A targeted field replaces Cache-Control and Expires (RFC 9213 §2.2), and so does Surrogate-Control."""
        return self.source is not Source.CACHE_CONTROL


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds of freshness; `explicit` when somebody said so, False when it is a guess or there is none."""

    seconds: float
    explicit: bool


def control_of(headers: Headers, site: SitePolicy) -> Control:
    """The first of Surrogate-Control, the site's targeted fields in order, and Cache-Control that has a valid say."""
    surrogate = surrogate_control(headers.get_all("surrogate-control"), site.surrogate_name)
    if surrogate is not None:
        return Control(surrogate, Source.SURROGATE_CONTROL)
    for name in site.target_fields:
        # RFC 9213 §2.1, §2.2: an empty or malformed field is as good as none, and the next one is asked.
        value = headers.get(name)
        members = parse_dictionary(value) if value else None
        targeted = from_dictionary(members) if members else None
        if targeted is not None:
            return Control(targeted, Source.TARGETED)
    return Control(parse_directives(headers.get_all("cache-control")))


def surrogate_control(lines: list[str], name: str) -> Directives | None:
    """What Surrogate-Control says to a surrogate called `name` (W3C Note "Edge Architecture Specification", §2).

    A directive is meant for all surrogates, or with a parameter for the ones so named; those for others are not for
    us. "max-age=60+30" allows 30 seconds more while stale. None where nothing that we know is for us.
    """
    if not lines:
        return None
    mine: list[str] = []
    for element in split_lines(lines):
        directive, *targets = split_parameters(element)
        if targets and name.lower() not in (target.lower() for target in targets):
            continue
        word, equals, argument = directive.partition("=")
        fresh, plus, stale = argument.partition("+")
        if word.lower() == "max-age" and equals and plus:
            mine += [f"max-age={fresh}", f"stale-while-revalidate={stale}", f"stale-if-error={stale}"]
        else:
            mine.append(directive)
    directives = parse_directives(mine)
    return directives if any(word in directives for word in _SURROGATE_DIRECTIVES) else None


def lifetime(response: Response, control: Control, response_time: float, site: SitePolicy) -> Lifetime:
    """freshness_lifetime (RFC 9111 §4.2.1), after the site's override."""
    if site.override_ttl_s is not None:
        return Lifetime(site.override_ttl_s, explicit=True)
    for name in ("s-maxage", "max-age"):
        seconds = control.directives.seconds(name)
        if seconds is not None:
            return Lifetime(float(seconds), explicit=True)
    if control.replaces_expires:
        return Lifetime(0.0, explicit=False)
    expires = response.headers.get_all("expires")
    if expires:
        # Dates that cannot be read or contradict each other: already expired (§4.2.1, §5.3).
        moments = {parse_date(value, response_time) for value in expires}
        moment = moments.pop()
        if moments or moment is None:
            return Lifetime(0.0, explicit=True)
        return Lifetime(max(0.0, moment - date_of(response.headers, response_time)), explicit=True)
    return Lifetime(0.0, explicit=False)


def heuristic_lifetime(headers: Headers, response_time: float, site: SitePolicy) -> float:
    """A share of the time since the last modification, capped (§4.2.2). Only for responses that allow a guess."""
    modified = last_modified(headers, response_time)
    if modified is None or not site.heuristics:
        return 0.0
    since = max(0.0, date_of(headers, response_time) - modified)
    return min(since * site.heuristic_fraction, site.heuristic_cap_s)


def date_of(headers: Headers, response_time: float) -> float:
    """The time the message was made: Date, or when it came where that is missing or malformed (RFC 9110 §6.6.1)."""
    lines = headers.get_all("date")
    moment = parse_date(lines[0], response_time) if len(lines) == 1 else None
    return response_time if moment is None else float(moment)


def last_modified(headers: Headers, now: float) -> int | None:
    """RFC 9110 §8.8.2; None where it is missing, malformed or there are several."""
    lines = headers.get_all("last-modified")
    return parse_date(lines[0], now) if len(lines) == 1 else None


def age_of(headers: Headers) -> int:
    """Age as received (RFC 9111 §5.1): the first member counts, and what is no integer does not."""
    values = split_lines(headers.get_all("age"))
    return (parse_delta(values[0]) or 0) if values else 0


def born_at(headers: Headers, request_time: float, response_time: float) -> float:
    """When the response was made, as far as we can tell: response_time less corrected_initial_age (§4.2.3).

    The more careful of the two ways is taken, so that a cache on the path that does not send Age is not believed:
    the larger of apparent age and corrected age value. A Date ahead of our clock means no apparent age.
    """
    date = date_of(headers, response_time)
    apparent_age = max(0.0, response_time - date)
    # HTTP dates have whole seconds: the second the Date lies in is not an age yet, and one not before the second of
    # the request says nothing that the response's delay does not say better.
    if apparent_age < 1.0 or date >= int(request_time):
        apparent_age = 0.0
    response_delay = max(0.0, response_time - request_time)
    corrected_age_value = age_of(headers) + response_delay
    return response_time - max(apparent_age, corrected_age_value)
