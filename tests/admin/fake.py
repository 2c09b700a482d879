"""A small real node: keeps objects in a dictionary and purges them, so that the API has something to steer."""

from dataclasses import dataclass, field

from edgecache.admin.node import ExplainedEntry, Explanation
from edgecache.http.headers import Headers
from edgecache.purge.bus import Caller
from edgecache.purge.message import EdgeReceipt, PurgeError, PurgeKind, PurgeOrder, PurgeReceipt

TOKEN = "the-token-of-these-tests"


@dataclass
class DictNode:
    name: str = "edge-1"
    objects: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """URL -> surrogate keys."""
    orders: list[tuple[PurgeOrder, bool]] = field(default_factory=list)
    why_not: str = ""
    silent: bool = False
    """Does not confirm purges."""
    broken: bool = False
    audited: list[dict[str, object]] = field(default_factory=list)
    """Newest first."""
    figures: dict[str, object] = field(default_factory=lambda: {"edge": "edge-1"})

    def ready(self) -> tuple[bool, str]:
        return not self.why_not, self.why_not

    async def purge(
        self,
        order: PurgeOrder,
        *,
        caller: Caller,
        wait: bool,
        timeout_s: float | None = None,
        key: str | None = None,
    ) -> PurgeReceipt:
        if self.broken:
            raise RuntimeError("a bug with a secret in it")
        for index, url in enumerate(order.urls):
            if not url.startswith(("http://", "https://")):
                raise PurgeError("an absolute URL is needed", path=f"urls[{index}]")
        if order.site == "unknown":
            raise PurgeError("there is no such site", path="site", status=404)
        self.orders.append((order, wait))
        if order.kind is PurgeKind.HARD:
            self.objects = {
                url: keys
                for url, keys in self.objects.items()
                if not order.everything and url not in order.urls and not set(keys) & set(order.keys)
            }
        return PurgeReceipt(len(self.orders), (EdgeReceipt(self.name, not self.silent, 0.0012),))

    async def purged(self, sequence: int) -> dict[str, object]:
        if not 0 < sequence <= len(self.orders):
            raise PurgeError(f"there was no purge {sequence} here", status=404)
        return {"sequence": sequence, "edges": [{"edge": self.name, "applied": True}], "away": []}

    async def audit(self, before: int | None, limit: int) -> dict[str, object]:
        return {"records": self.audited[:limit], "before": before, "limit": limit}

    async def edges(self) -> dict[str, object]:
        if self.broken:
            raise PurgeError("the coordinator cannot be reached", status=503)
        return {"head": len(self.orders), "edges": [{"edge": self.name, "connected": True}]}

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        if not url.startswith("http://"):
            raise ValueError("an absolute URL is needed")
        stored = url in self.objects
        entry = ExplainedEntry(
            key=url,
            status=200,
            age_s=12.0,
            fresh_for_s=48.0,
            stale_for_s=3600.0,
            body_bytes=1536,
            tier="memory",
            flags=("has-vary",),
            vary=(("accept-language", headers.get("accept-language")),),
            surrogate_keys=self.objects.get(url, ()),
            fields=(("Content-Type", "text/html"), ("X-Odd", "\x9b31mred")),
        )
        return Explanation(
            url=url,
            site="default",
            cache_key=f"{method} {url}",
            verdict="serve" if stored else "fetch",
            reason="fresh" if stored else "uri-miss",
            detail="",
            cache_status="edgecache; hit" if stored else "edgecache; fwd=uri-miss",
            stored=(entry,) if stored else (),
            notes=("Nothing else would change it.",),
        )

    def stats(self) -> dict[str, object]:
        return self.figures

    def metrics(self) -> bytes:
        return b"# TYPE up gauge\nup 1\n"
