"""Line plots as SVG text, for pages that need no server, no script and no network, and print well."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

COLOURS = ("#1b6ca8", "#c4462d", "#3d8b40", "#8a4fa3", "#b8860b")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4")
"""Beside colours: prints in black and white too."""
WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 26, 34

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: Sequence[Point]
    dots: bool = False
    """Only marks, no line."""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between the two."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}" if value == round(value, 3) else f"{value:.3g}"


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x_title: str = "seconds",
    marks: Iterable[tuple[float, str]] = (),
    low: float | None = 0.0,
    high: float | None = None,
    shown: Callable[[float], str] = short,
    log_x: bool = False,
) -> str:
    """One plot. `marks`: named moments, as vertical lines."""
    points = [point for one in series for point in one.points if math.isfinite(point[1])]
    if not points:
        return f'<p class="empty">{html.escape(title)}: nothing was measured.</p>'
    scale = math.log2 if log_x else float
    left, right = min(scale(x) for x, _ in points), max(scale(x) for x, _ in points)
    right = right if right > left else left + 1
    bottom = min(y for _, y in points) if low is None else low
    top = max(y for _, y in points) * 1.05 if high is None else high
    top = top if top > bottom else bottom + 1

    def across(x: float) -> float:
        return LEFT + (scale(x) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (min(max(y, bottom), top) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title, quote=True)}">',
        f'<text class="title" x="{LEFT}" y="14">{html.escape(title)}</text>',
    ]
    for value in ticks(bottom, top):
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{html.escape(shown(value))}</text>')
    values = sorted({x for x, _ in points}) if log_x else ticks(left, right, 8)
    for value in values if len(values) < 12 else values[:: len(values) // 8]:
        text = _octets(value) if log_x else short(value)
        x = across(value)
        # Half of a long one at the edge would be cut off.
        anchor = "end" if x > WIDTH - RIGHT - 8 else "middle"
        at_x = min(x + 3.2 * len(text), WIDTH) if anchor == "end" else x
        parts.append(f'<text x="{at_x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{text}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end" class="axis">{html.escape(x_title)}</text>'
    )
    for at, name in marks:
        if left <= scale(max(at, 1e-9) if log_x else at) <= right:
            x = across(at)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            parts.append(
                f'<text class="mark" transform="translate({x + 3:.1f} {TOP + 4}) rotate(90)">{html.escape(name)}</text>'
            )
    for index, one in enumerate(series):
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        real = [(across(x), up(y)) for x, y in one.points if math.isfinite(y)]
        if one.dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>' for x, y in real]
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in real)
            parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-dasharray="{dash}"/>')
        x = WIDTH - RIGHT - 150 * (len(series) - index)
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="10" y2="10" stroke="{colour}" stroke-width="2"')
        parts.append(f' stroke-dasharray="{dash}"/><text x="{x + 28}" y="14">{html.escape(one.name)}</text>')
    parts.append("</svg></figure>")
    return "\n".join(parts)


def _octets(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
