"""The file of `edgecache geodns` becomes a `LoadedGeo`, or one `ConfigError` that lists everything wrong: what the keys
allow, what the zones hold, and PoPs that are named and not there.

Names and zones are checked also where keys are wrong, in all that could be read. What only follows from a part that
could not is left out: while the name of a PoP is unread, no PoP is said not to be there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from edgecache.config.geodns import GeoDnsConfig
from edgecache.config.load import ConfigError, Override, Problem, by_place, explain, put_at, raw, read_file, whereabouts
from edgecache.config.options import Path, show, spell
from edgecache.config.salvage import is_unread, salvage
from edgecache.config.zones import Finding, ZoneData, read_zones


@dataclass(frozen=True, slots=True)
class LoadedGeo:
    config: GeoDnsConfig
    zones: tuple[ZoneData, ...]
    warnings: tuple[str, ...]


def is_geodns(file: FilePath) -> bool:
    """Is this a configuration of `edgecache geodns`, rather than an edge's? Raises `ConfigError`."""
    document, _ = read_file(file)
    return "zones" in document.data or "pops" in document.data


def load_geodns(file: FilePath, overrides: Iterable[Override] = ()) -> LoadedGeo:
    """Reads the file and the zone files it names. Raises `ConfigError`."""
    document, problems = read_file(file)
    data: dict[str, Any] = document.data
    given: dict[Path, str] = {}
    for override in overrides:
        put_at(data, override.path, override.value)
        given[override.path] = override.option
    where_is = whereabouts(file, document, given)
    try:
        config = GeoDnsConfig.model_validate(data)
    except ValidationError as error:
        problems += explain(error.errors(include_url=False), where_is, data, GeoDnsConfig)
        config = salvage(GeoDnsConfig, data)
    zones, found = read_zones(config)
    for finding in (*found, *_names(config)):
        value = raw(data, finding.path)
        shown = None if value is None else show(value)
        problems.append(Problem(where_is(finding.path), spell(finding.path), shown, finding.expected))
    if problems:
        raise ConfigError(sorted(problems, key=by_place))
    return LoadedGeo(config, zones, tuple(_warnings(config)))


def _names(config: GeoDnsConfig) -> Iterator[Finding]:
    """PoPs that are named more than once, or named and not there."""
    known: dict[str, int] = {}
    for index, pop in enumerate(config.pops):
        if is_unread(pop.name):
            continue
        if pop.name in known:
            yield Finding(("pops", index, "name"), f"each name once; pops[{known[pop.name]}] has it too")
        known.setdefault(pop.name, index)
    if all(pop.standby for pop in config.pops):
        yield Finding(("pops",), "at least one PoP that is no standby")
    complete = not any(is_unread(pop.name) for pop in config.pops)
    expected = f"a PoP of this file: {', '.join(list(known)[:20])}"
    location = config.location
    lists: list[tuple[Path, tuple[str, ...]]] = [(("location", "default"), location.default)]
    lists += [(("location", "networks", k, "pops"), one.pops) for k, one in enumerate(location.networks)]
    lists += [(("location", "overrides", k, "pops"), one.pops) for k, one in enumerate(location.overrides)]
    given = {name for _, names in lists for name in names} | {pop.name for pop in config.pops if not pop.standby}
    all_given = not any(map(is_unread, given))
    for i, zone in enumerate(config.zones):
        for k, geo in enumerate(zone.geo):
            path: Path = ("zones", i, "geo", k)
            lists.append(((*path, "pops"), geo.pops))
            unserved = geo.pops and known.keys() >= set(geo.pops) and given.isdisjoint(geo.pops)
            if unserved and all_given and geo.all_down not in known and not is_unread(geo.all_down):
                yield Finding((*path, "pops"), "a PoP that is no standby: no client is sent to these")
            if complete and not is_unread(geo.all_down) and geo.all_down not in {"every", "nearest", *known}:
                yield Finding((*path, "all_down"), f"every, nearest, or {expected}")
    for path, names in lists:
        for k, name in enumerate(names):
            if is_unread(name):
                continue
            if name not in known:
                if complete:
                    yield Finding((*path, k), expected)
            elif name in names[:k]:
                yield Finding((*path, k), "each PoP once")
    keys: dict[str, int] = {}
    for k, override in enumerate(location.overrides):
        said = [one for one in (override.country, override.subdivision, override.continent) if one is not None]
        if len(said) != 1 or is_unread(said[0]):
            continue
        if override.key in keys:
            yield Finding(
                ("location", "overrides", k), f"one override for each; overrides[{keys[override.key]}] is the same"
            )
        keys.setdefault(override.key, k)


def _warnings(config: GeoDnsConfig) -> Iterator[str]:
    if not config.location.files:
        known = "only the configured networks are" if config.location.networks else "nobody is"
        yield f"location.files names no database: {known} sent to the nearest PoP, others get the default"
