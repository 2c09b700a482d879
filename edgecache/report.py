"""How answers look on a terminal: tables and lines made of plain values. Nothing here asks, decides or exits."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_VERDICT_STYLES = {
    "serve": "bold green",
    "revalidate": "bold yellow",
    "fetch": "bold cyan",
    "pass": "bold magenta",
    "reject": "bold red",
}
_DASH = "-"
_PIPE_WIDTH = 10_000


def console(*, stderr: bool = False) -> Console:
    """Colours on a terminal only; piped output is plain and never wrapped."""
    out = Console(stderr=stderr, highlight=False, emoji=False)
    if not out.is_terminal:
        out = Console(stderr=stderr, highlight=False, emoji=False, width=_PIPE_WIDTH, no_color=True)
    return out


def plain(value: object) -> str:
    """What a stranger may have sent, made safe for a terminal: nothing in it can move the cursor."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def count(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def octets(value: float | None) -> str:
    """1536 is "1.5 KiB"."""
    if value is None:
        return _DASH
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def percent(value: float | None) -> str:
    return _DASH if value is None else f"{value * 100:.1f} %"


def milliseconds(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def span(seconds: float) -> str:
    """A length of time for people: "2 h 5 min"."""
    left = abs(round(seconds))
    if left < 1 and seconds:
        return f"{abs(seconds) * 1000:.0f} ms"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def _table(*headings: str, title: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def _pairs(rows: Iterable[tuple[str, str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), value if isinstance(value, Text) else Text(plain(value)))
    return table


# --- stats ---


def stats(figures: dict[str, Any], rates: tuple[float, float] | None = None) -> RenderableType:
    """All of /v1/stats: the well-known subjects as tables, whatever else there is as name and value.

    `rates`: requests and octets sent per second, where they are known.
    """
    parts: list[RenderableType] = []
    if "coordinator" in figures:
        figures = _coordinator(figures)
    if "edge" in figures:
        uptime = figures.get("uptime_s")
        line = f"{figures['edge']}  edgecache {figures.get('version', '')}"
        parts.append(Text(plain(line) + (f"  up {span(uptime)}" if uptime is not None else ""), style="bold"))
    if "requests" in figures:
        parts += [_overview(figures, rates), _sites(figures)]
    known = {
        "edge",
        "version",
        "uptime_s",
        "requests",
        "hit_ratio",
        "bytes",
        "latency_ms",
        "origin_latency_ms",
        "sites",
    }
    rest = [(name, value) for name, value in figures.items() if name not in known]
    for name, value in rest:
        if isinstance(value, dict):
            rows = [
                (_label(key), _value(key, item)) for key, item in value.items() if not isinstance(item, dict | list)
            ]
            parts.append(Group(Text(_label(name), style="bold"), _pairs(rows)))
    flat = [(_label(name), _value(name, value)) for name, value in rest if not isinstance(value, dict | list)]
    if flat:
        parts.append(_pairs(flat))
    return Group(*_spaced(parts))


def _coordinator(figures: dict[str, Any]) -> dict[str, Any]:
    """A coordinator's, with its subjects beside it."""
    own = dict(figures["coordinator"])
    subjects = {name: own.pop(name) for name, value in tuple(own.items()) if isinstance(value, dict)}
    if "since" in own:
        own["since"] = f"{datetime.fromtimestamp(own['since'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    return {**figures, "coordinator": own, **subjects}


def rates(before: dict[str, Any], after: dict[str, Any], elapsed_s: float) -> tuple[float, float] | None:
    """Requests and octets sent per second between two answers; None where an edge does not say, or was restarted."""
    try:
        requests = after["requests"]["total"] - before["requests"]["total"]
        sent = after["bytes"]["sent"] - before["bytes"]["sent"]
    except (KeyError, TypeError):
        return None
    return None if requests < 0 or elapsed_s <= 0 else (requests / elapsed_s, sent / elapsed_s)


def _spaced(parts: list[RenderableType]) -> list[RenderableType]:
    spaced: list[RenderableType] = []
    for part in parts:
        spaced += [part] if not spaced else [Text(), part]
    return spaced


def _overview(figures: dict[str, Any], rates: tuple[float, float] | None) -> RenderableType:
    requests, latency = figures["requests"], figures.get("latency_ms", {})
    moved = figures.get("bytes", {})
    outcomes = [(name, number) for name, number in requests.get("by_outcome", {}).items() if number]
    statuses = [(name, number) for name, number in requests.get("by_status", {}).items() if number]
    return _pairs(
        [
            ("requests", count(requests.get("total")) + (f"  now {count(rates[0])}/s" if rates else "")),
            ("hit ratio", Text(percent(figures.get("hit_ratio")), style="bold green")),
            ("answered", "  ".join(f"{name} {count(number)}" for name, number in outcomes) or _DASH),
            ("status", "  ".join(f"{name} {count(number)}" for name, number in statuses) or _DASH),
            ("sent", octets(moved.get("sent")) + (f"  now {octets(rates[1])}/s" if rates else "")),
            ("received", octets(moved.get("received"))),
            ("latency", _latency(latency)),
            ("origin", _latency(figures.get("origin_latency_ms", {}))),
        ]
    )


def _latency(found: dict[str, float | None]) -> str:
    known = [(name, found.get(name)) for name in ("p50", "p90", "p99")]
    if all(value is None for _, value in known):
        return _DASH
    return "  ".join(f"{name} {milliseconds(value)} ms" for name, value in known)


def _sites(figures: dict[str, Any]) -> RenderableType:
    table = _table("site", "requests", "hit ratio", "sent", "p50 ms", "p99 ms", "errors")
    for name, site in figures.get("sites", {}).items():
        latency = site.get("latency_ms", {})
        table.add_row(
            Text(plain(name)),
            count(site["requests"]["total"]),
            percent(site.get("hit_ratio")),
            octets(site.get("bytes", {}).get("sent")),
            milliseconds(latency.get("p50")),
            milliseconds(latency.get("p99")),
            count(site["requests"].get("by_outcome", {}).get("error", 0)),
        )
    return table


def _label(key: str) -> str:
    for suffix in ("_bytes", "_s"):
        key = key.removesuffix(suffix)
    return key.replace("_", " ")


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: _DASH}[value]
    if isinstance(value, int | float):
        if key.endswith("_s"):
            return span(value)
        if "bytes" in key or key == "size":
            return octets(value)
        return count(value) if float(value).is_integer() else f"{value:,.3f}"
    return str(value)


# --- purge ---


def purge(receipt: dict[str, Any]) -> RenderableType:
    """A row per edge."""
    table = _table("edge", "applied", "took", title=f"purge {receipt['sequence']}")
    for edge in receipt["edges"]:
        done = Text("yes", style="green") if edge["applied"] else Text("no", style="bold red")
        table.add_row(Text(plain(edge["edge"])), done, f"{milliseconds(edge['duration_s'] * 1000)} ms")
    for name in receipt.get("away", ()):
        table.add_row(Text(plain(name)), Text("away", style="yellow"), "")
    return table


def audit(records: Iterable[dict[str, Any]]) -> RenderableType:
    """A row per purge, in the order given."""
    table = _table("purge", "when (UTC)", "token", "from", "kind", "targets")
    table.add_column("what", overflow="fold")
    for each in records:
        when = f"{datetime.fromtimestamp(each['time'], UTC):%Y-%m-%d %H:%M:%S}"
        who = (Text(plain(each["token"]) or _DASH), Text(plain(each["address"]) or _DASH))
        what = Text(plain(each["summary"]))
        table.add_row(str(each["sequence"]), when, *who, Text(plain(each["kind"])), count(each["targets"]), what)
    return table


# --- tokens ---


def tokens(rows: Iterable[dict[str, Any]]) -> RenderableType:
    """A row per token."""
    table = _table("token", "scopes", "sites", "hosts", "purges/s")
    for row in rows:
        names = [", ".join(map(plain, row[key])) for key in ("scopes", "sites", "hosts")]
        rate = "as configured" if row["rate"] is None else f"{row['rate']:g}"
        table.add_row(Text(plain(row["name"])), *map(Text, names), rate)
    return table


# --- explain ---


def explain(found: dict[str, Any]) -> RenderableType:
    """The verdict first, then what it rests on."""
    verdict = Text(found["verdict"], style=_VERDICT_STYLES.get(found["verdict"], "bold"))
    verdict.append(f"  {plain(found['reason'])}", style="not bold default")
    if found.get("detail"):
        verdict.append(f"  {plain(found['detail'])}", style="not bold dim")
    rows: list[tuple[str, str | Text]] = [
        ("verdict", verdict),
        ("url", found["url"]),
        ("site", found["site"]),
        ("cache key", found["cache_key"]),
        ("Cache-Status", found["cache_status"]),
    ]
    if found.get("in_flight"):
        rows.append(("in flight", "yes: a fetch of it is under way"))
    rows += [("note", note) for note in found.get("notes", ())]
    parts: list[RenderableType] = [_pairs(rows)]
    stored = found.get("stored", ())
    if not stored:
        parts.append(Text("nothing is stored under this key", style="dim"))
    for index, entry in enumerate(stored, 1):
        title = "stored" if len(stored) == 1 else f"stored {index} of {len(stored)}"
        parts.append(Group(Text(title, style="bold"), _pairs(_entry(entry))))
    return Group(*_spaced(parts))


def _entry(entry: dict[str, Any]) -> list[tuple[str, str | Text]]:
    fresh = entry["fresh_for_s"]
    state = Text(f"fresh for {span(fresh)}", "green") if fresh >= 0 else Text(f"stale for {span(fresh)}", "yellow")
    if entry["stale_for_s"] > 0:
        state.append(f", usable stale for {span(entry['stale_for_s'])}", style="default")
    rows: list[tuple[str, str | Text]] = [
        ("status", str(entry["status"])),
        ("age", span(entry["age_s"])),
        ("freshness", state),
        ("body", f"{octets(entry['body_bytes'])} in {entry['tier']}"),
    ]
    if entry["flags"]:
        rows.append(("flags", ", ".join(entry["flags"])))
    if entry["vary"]:
        chosen = ", ".join(f"{name}: {_DASH if value is None else value}" for name, value in entry["vary"])
        rows.append(("vary", chosen))
    if entry["surrogate_keys"]:
        rows.append(("keys", " ".join(entry["surrogate_keys"])))
    rows += [("field" if index == 0 else "", f"{name}: {value}") for index, (name, value) in enumerate(entry["fields"])]
    return rows


# --- check ---


def problems(found: Iterable[Any]) -> RenderableType:
    """A line per problem: where, which key and value, what was expected."""
    lines: list[RenderableType] = []
    for problem in found:
        line = Text(plain(problem.where), style="bold")
        if problem.path:
            line.append(f"  {plain(problem.path)}", style="not bold cyan")
        if problem.value is not None:
            line.append(f" = {plain(problem.value)}", style="not bold default")
        line.append(f": expected {plain(problem.expected)}", style="not bold default")
        lines.append(line)
    return Group(*lines)


def geodns(found: dict[str, Any]) -> RenderableType:
    """What `edgecache geodns --explain` found."""
    here = found["location"]
    where = ", ".join(str(here[key]) for key in ("subdivision", "country", "continent") if here[key]) or "unknown"
    if here["latitude"] is not None:
        where += f" ({here['latitude']}, {here['longitude']})"
    facts = Table.grid(padding=(0, 2))
    facts.add_row("client", plain(found["client"]))
    facts.add_row("location", plain(where))
    facts.add_row("network", f"{found['network']}, whose PoPs are in order of: {plain(found['list_by'])}")
    facts.add_row("name", plain(found["name"]) + ("" if found["zone"] else ": in no zone of this server"))
    facts.add_row("health", plain(found["health"]))
    pops = Table(box=None, pad_edge=False)
    for head, justify in (("PoP", "left"), ("km", "right"), ("state", "left")):
        pops.add_column(head, justify="right" if justify == "right" else "left")
    for pop in found["pops"]:
        pops.add_row(plain(pop["name"]), count(pop["distance_km"]), plain(pop["state"]))
    parts: list[RenderableType] = [facts, "", pops]
    for kind, answer in found["answers"].items():
        if answer is None:
            continue
        parts += ["", f"{kind}: {answer['rcode']}, scope {answer['scope']}, {answer['reason']}"]
        parts += [f"  passed over {plain(one)}" for one in answer["passed"]]
        if answer["by_client"]:
            parts.append("  by weights or shares: other clients there may be answered otherwise")
        parts += [Text(f"  {plain(line)}") for line in answer["records"]]
    return Group(*parts)
