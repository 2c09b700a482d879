"""A node as `edgecache serve -c FILE` starts it, whose arena is examined once all its processes have ended."""

import json
import sys
from pathlib import Path

from edgecache._native.inflight import Leases
from edgecache.app import Shared
from edgecache.config.load import load
from edgecache.observe import log
from edgecache.observe.slots import Gauge, gauge_total
from edgecache.supervisor.watch import Supervisor


def main() -> int:
    file = Path(sys.argv[sys.argv.index("-c") + 1])
    config = load(file).config
    log.set_up(config.log.level, config.log.format)
    shared = Shared(config)
    code = Supervisor(config, shared, lambda: load(file)).run()
    shared.arena.check()
    figures = shared.arena.stats()
    left = {
        "pins": figures["pins"],
        "bytes_pinned": figures["bytes_pinned"],
        "leases": len(Leases(shared.arena)),
        "connections": gauge_total(shared.counters, Gauge.CONNECTIONS),
        "fills": gauge_total(shared.counters, Gauge.FILLS),
    }
    print(json.dumps({"message": "examined", "left": left, "recovered": figures["recovered"]}), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
