"""Purges on the public listener, from listed addresses only. For everybody else these requests are the site's own.

Who asks is whoever the connection came from, or, behind a trusted proxy, who that says; a network that is listed and
holds a proxy which is not trusted lets in all of the proxy's clients.
"""

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from edgecache.admin.dialects.desk import MAX_BODY_BYTES, Admit, Desk
from edgecache.http.message import Request, Response

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PublicDesk:
    """What the pipeline asks before it takes a request for a site's."""

    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self,
        desk: Desk,
        networks: Iterable[Network],
        client_ip: Callable[[Request], str],
        admit: Callable[[str], Admit],
    ) -> None:
        """`admit`: by the client's address."""
        self._desk = desk
        self._networks = tuple(networks)
        self._client_ip = client_ip
        self._admit = admit
        self._listed = lru_cache(maxsize=1024)(self._within)

    def takes(self, request: Request) -> bool:
        """Is it a purge, from an address that may ask for one?"""
        return self._desk.find(request) is not None and self._listed(self._client_ip(request))

    async def answer(self, request: Request, body: bytes) -> tuple[Response, bytes]:
        """Of one that it takes."""
        found = self._desk.find(request)
        assert found is not None
        answer = await self._desk.answer(found, request, body, self._admit(self._client_ip(request)))
        return answer.response, answer.body

    def too_large(self, request: Request) -> tuple[Response, bytes]:
        """Of one that it takes, and whose body is larger than `max_body_bytes`."""
        found = self._desk.find(request)
        assert found is not None
        answer = self._desk.too_large(found)
        return answer.response, answer.body

    def _within(self, ip: str) -> bool:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
