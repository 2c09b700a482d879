"""Early hints from what is stored (RFC 8297): links a client may follow while the origin is asked."""

import re

from edgecache.http.fields import parse_parameters, split_parameters
from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import StoredResponse
from edgecache.policy.site import SitePolicy

_RELATIONS = frozenset({"preload", "preconnect", "modulepreload"})
_LINK = re.compile(r"(?:[^,\"<]|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)|<[^>]*+(?:>|\Z))+", re.DOTALL)


def while_waiting(request: Request, stored: StoredResponse, site: SitePolicy) -> Response | None:
    """What to tell a client that waits for the origin to confirm or replace `stored`; None: nothing.

    Browsers heed a 103 for the page they navigate to and for nothing else, and say which request that is.
    """
    if not site.early_hints or request.method != "GET" or stored.unconfirmed:
        return None
    navigates = request.headers.get("sec-fetch-mode") in (None, "navigate")
    return early_hints(stored) if navigates else None


def early_hints(stored: StoredResponse) -> Response | None:
    """A 103 with the preload links of a stored success; None where it has none, or none that can be read."""
    if not 200 <= stored.response.status < 300:
        return None
    links = [link for line in stored.response.headers.get_all("link") for link in split_links(line) if _hints(link)]
    return Response(103, "Early Hints", Headers(("Link", link) for link in links)) if links else None


def split_links(value: str) -> list[str]:
    """The links of a Link field (RFC 8288 §3): commas inside the angle brackets do not separate."""
    return [text for match in _LINK.finditer(value) if (text := match[0].strip(" \t"))]


def _hints(link: str) -> bool:
    target, bracket, rest = link.partition(">")
    if not target.startswith("<") or not bracket or rest.lstrip(" \t")[:1] != ";":
        return False
    parameters = parse_parameters([part if "=" in part else f"{part}=x" for part in split_parameters(rest)[1:]])
    relation = next((value for name, value in parameters or () if name == "rel"), "")
    return not _RELATIONS.isdisjoint(relation.lower().split())
