"""One process for the operator: it checks PoPs, tells those that answer, keeps people's orders, and shows it all."""

import logging
import math
from typing import Any

from edgecache.config.geodns import GeoDnsConfig
from edgecache.geodns.blob import Blob
from edgecache.geodns.checks import Checker
from edgecache.geodns.mapping import Mapping
from edgecache.geodns.tally import Rows
from edgecache.observe.metrics import Figure, expose_labelled

_log = logging.getLogger("edgecache.geodns")

_HELPS = {
    "geodns_geo_answers": "Answers that depend on the client, by why they are what they are.",
    "geodns_slow_answers": "Answers by the ordinary path, by RCODE.",
    "geodns_udp_packets": "Packets over UDP, by what became of them; a packet may count several times.",
    "geodns_tcp": "Connections and queries over TCP.",
    "geodns_country_answers": "Answers that depend on the client, by the client's country.",
    "geodns_pop_answers": "Answers by the PoP that came first.",
}


class GeoControl:
    """`admin.geodns.GeoNode`."""

    def __init__(self, config: GeoDnsConfig, mapping: Mapping, health: Blob, orders: Blob, rows: Rows) -> None:
        """`health`: of this configuration; `orders`: of the node, over configurations."""
        self._config = config
        self._mapping = mapping
        self._health = health
        self._orders = orders
        self._rows = rows
        self._checker = Checker(config, self._changed)
        self._started = False
        self._told: Any = None
        found = orders.read()
        ordered = found[1] if found is not None else {"drained": [], "pushed": {}}
        self._drained: set[str] = set(ordered["drained"])
        self._pushed: dict[str, bool] = ordered["pushed"]

    async def start(self) -> None:
        """Returns when every PoP has been looked at once, and who answers has been told."""
        self._checker.order(self._drained, self._pushed)
        await self._checker.start()
        self._started = True
        self._changed()
        down = [pop.name for pop in self._checker.pops if not pop.usable]
        if down:
            _log.warning("PoPs that are not in answers: %s", ", ".join(down))

    async def close(self) -> None:
        await self._checker.close()

    def _changed(self) -> None:
        if not self._started:
            return
        pops = self._checker.pops
        settled = [None if math.isinf(pop.settled_s) else pop.settled_s for pop in pops]
        value = {"usable": [pop.usable for pop in pops], "settled_s": settled}
        if value != self._told:
            self._told = value
            self._health.write(value)

    # --- what the operator may ask ---

    def ready(self) -> tuple[bool, str]:
        return self._started, "answering" if self._started else "PoPs are looked at for the first time"

    def pops(self) -> list[dict[str, Any]]:
        return [
            {
                "name": pop.name,
                "usable": pop.usable,
                "why": pop.why,
                "check": pop.detail,
                "drained": pop.drained or None,
                "reported": pop.pushed,
                "settled_s": None if math.isinf(pop.settled_s) else pop.settled_s,
                "addresses": list(given.addresses),
                "answers": self._rows.total(self._rows.layout.pop(pop.name)),
            }
            for pop, given in zip(self._checker.pops, self._config.pops, strict=True)
        ]

    def drain(self, name: str, *, drained: bool) -> None:
        """Raises LookupError."""
        self._checker[name]
        (self._drained.add if drained else self._drained.discard)(name)
        _log.info("PoP %s: %s by the admin API", name, "drained" if drained else "no longer drained")
        self._ordered()

    def report(self, name: str, *, up: bool | None) -> None:
        """Raises LookupError."""
        self._checker[name]
        if up is None:
            self._pushed.pop(name, None)
        else:
            self._pushed[name] = up
        _log.info("PoP %s: reported %s", name, {True: "up", False: "down", None: "nothing any more"}[up])
        self._ordered()

    def _ordered(self) -> None:
        self._orders.write({"drained": sorted(self._drained), "pushed": self._pushed})
        self._checker.order(self._drained, self._pushed)

    def stats(self) -> dict[str, Any]:
        rows: dict[str, dict[str, int]] = {}
        for family, labels, place in self._rows.layout.named():
            value = self._rows.total(place)
            if value:
                rows.setdefault(family, {})[next(iter(labels.values()))] = value
        mapping = self._mapping
        return {
            "pops": self.pops(),
            "networks": {"ipv4": len(mapping.v4), "ipv6": len(mapping.v6), "lists": len(mapping.lists)},
            **rows,
        }

    def metrics(self) -> bytes:
        members = [
            (f"geodns_{family}", labels, float(self._rows.total(place)))
            for family, labels, place in self._rows.layout.named()
        ]
        seen = [one for one in members if one[2] or not one[0].endswith("country_answers")]
        usable = sum(pop.usable for pop in self._checker.pops)
        figures = [
            Figure("geodns_pops", "PoPs there are.", len(self._checker.pops)),
            Figure("geodns_pops_usable", "PoPs that are in answers.", usable),
            Figure(
                "geodns_networks", "Ranges of addresses after merging.", len(self._mapping.v4) + len(self._mapping.v6)
            ),
        ]
        return expose_labelled(seen, _HELPS, figures)
