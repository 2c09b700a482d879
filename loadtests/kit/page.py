"""The page that a run leaves: one HTML file with everything in it."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import edgecache
from loadtests.kit.plot import Series, lines
from loadtests.kit.profile import Check, Profile, Run
from loadtests.kit.tally import Tally, quantile

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem }
table { border-collapse: collapse; margin: .4rem 0 1rem } caption { text-align: left; font-weight: 600 }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.kept { color: #1f6b2c } .broken { color: #a3221a; font-weight: 600 }
figure { margin: .6rem 0; break-inside: avoid } svg { width: 100%; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: #333 } svg text.title { font-weight: 600; font-size: 12px }
svg polyline { fill: none; stroke-width: 1.8 } svg .grid { stroke: #e3e3e3 }
svg line.mark { stroke: #999; stroke-dasharray: 3 3 } svg text.mark { fill: #666; font-size: 10px }
@media print { body { margin: 0; max-width: none; font-size: 11px } a { color: inherit } }
"""
SHARES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
GRID = ("what", "before", "after", "difference", "at most")
"""Of `Run.table`."""
HIDDEN = frozenset({"turns", "phases", "curve", "measured", "first", "last", "troubles"})


def render(
    profile: Profile,
    run: Run,
    seen: Tally,
    checks: Sequence[Check],
    more: Iterable[str] = (),
    *,
    html_of_locust: str = "",
) -> str:
    """The whole page. `more`: further sections, as HTML."""
    kept = all(check.holds for check in checks)
    rows = "".join(
        f'<tr><td class="{"kept" if check.holds else "broken"}">{"kept" if check.holds else "BROKEN"}</td>'
        f"<td>{html.escape(str(check))}</td></tr>"
        for check in checks
    )
    beside = f' · <a href="{html_of_locust}">locust\'s own page</a>' if html_of_locust else ""
    body = [
        f"<h1>{html.escape(profile.name)}: {'the promise is kept' if kept else 'the promise is broken'}</h1>",
        f"<p>{html.escape(profile.title if run.edge is not None else profile.elsewhere)}{beside}</p>",
        f"<table><caption>The promise</caption>{rows}</table>",
        *([_grid(run.table)] if run.table else []),
        _table("Figures", _figures(run, seen)),
        _latency_table(seen),
        *more,
        *_plots(run, seen),
        _table("The run", _setting(profile, run)),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(profile.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><body>'
        + "\n".join(body)
        + "</html>\n"
    )


def write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8")


def _table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    inner = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table><caption>{html.escape(title)}</caption>{inner}</table>"


def _grid(rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in GRID)
    inner = "".join(
        f"<tr><th>{html.escape(row[0])}</th>" + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in row[1:])
        for row in rows
    )
    return f"<table><caption>Before and after</caption><tr>{head}</tr>{inner}</table>"


def _figures(run: Run, seen: Tally) -> list[tuple[str, object]]:
    requests, hits = seen.total("requests"), seen.total("hits")
    rows: list[tuple[str, object]] = [
        ("requests", f"{requests:,}"),
        ("octets of bodies", f"{seen.total('octets'):,}"),
        ("hit ratio", f"{hits / requests:.2%}" if requests else "-"),
    ]
    if run.edge is not None and requests:
        rows.append(("origin offload", f"{1 - len(run.origin.asked()) / requests:.2%}"))
    rows += [(name, f"{seen.total(name):,}") for name in seen.names() if name.startswith("status")]
    rows += [(name, f"{count:,}") for name in ("lost", "refused", "wrong", "late") if (count := seen.total(name))]
    rows.append(("purges", len(run.purges)))
    rows += [(name, value) for name, value in run.facts.items() if name not in HIDDEN]
    return rows


def _latency_table(seen: Tally) -> str:
    head = "".join(f'<th class="n">{name} ms</th>' for _, name in SHARES)
    rows = ""
    for kind in seen.kinds():
        buckets = seen.latencies(kind)
        cells = "".join(f'<td class="n">{(quantile(buckets, share) or 0) * 1000:.2f}</td>' for share, _ in SHARES)
        rows += f'<tr><th>{html.escape(kind)}</th><td class="n">{sum(buckets.values()):,}</td>{cells}</tr>'
    return f'<table><caption>Latency</caption><tr><th></th><th class="n">requests</th>{head}</tr>{rows}</table>'


def _setting(profile: Profile, run: Run) -> list[tuple[str, object]]:
    plan = run.plan
    rate = f"{plan['rate']:g} requests/s, measured from when each was due" if plan["rate"] else "as fast as users ask"
    return [
        ("profile", profile.name),
        ("measured", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("versions", f"edgecache {edgecache.__version__}, Python {platform.python_version()}, {platform.platform()}"),
        ("users, locust processes", f"{plan['users']}, {plan['processes']}"),
        ("load", rate),
        ("target", plan["host"] if run.edge is None else "an edge and an origin of this run's own, on loopback"),
        ("seed", plan["seed"]),
    ]


def _plots(run: Run, seen: Tally) -> list[str]:
    seconds = sorted(seen.counts)
    if not seconds:
        return []
    begin = seconds[0]
    asked: dict[int, int] = {}
    if run.edge is not None:
        for at, _ in run.origin.asked():
            asked[int(at)] = asked.get(int(at), 0) + 1
    marks = [(at - begin, name) for at, name in run.marks]
    if len(marks) > 12:
        marks = marks[:: len(marks) // 12 + 1]
    busy = [(second, requests) for second in seconds if (requests := seen.counts[second]["requests"])]
    ratio = [(second - begin, seen.counts[second]["hits"] / requests) for second, requests in busy]
    series = [Series("hit ratio", ratio)]
    if run.edge is not None:
        offload = [(second - begin, max(0.0, 1 - asked.get(second, 0) / requests)) for second, requests in busy]
        series.append(Series("origin offload", offload))
    found = [lines("Hit ratio and origin offload", series, marks=marks, high=1.0, shown=lambda v: f"{v:.0%}")]
    if kinds := seen.kinds():
        kind = max(kinds, key=lambda kind: seen.latencies(kind).total())  # of several the one asked for most
        by_share = [
            Series(
                name,
                [
                    (second - begin, (quantile(seen.latencies(kind, [second]), share) or 0) * 1000)
                    for second in sorted(seen.times)
                ],
            )
            for share, name in SHARES[:3]
        ]
        found.append(lines(f"Latency, ms: {kind}", by_share, marks=marks))
    found.append(
        lines("Requests per second", [Series("requests", [(s - begin, float(r)) for s, r in busy])], marks=marks)
    )
    purges: dict[int, int] = {}
    for at, _ in run.purges:
        purges[int(at)] = purges.get(int(at), 0) + 1
    found.append(
        lines("Purges per second", [Series("purges", [(s - begin, float(purges.get(s, 0))) for s in seconds])])
        if purges
        else "<p>Nothing was purged.</p>"
    )
    if run.samples:
        memory = [(sample.at - begin, sample.own_bytes / (1 << 20)) for sample in run.samples]
        found.append(
            lines("Memory of all processes beside what they share, MiB", [Series("resident", memory)], marks=marks)
        )
    return found
