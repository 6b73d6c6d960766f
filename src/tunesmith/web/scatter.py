"""A chart of scores against what they cost: a dot with its interval for each cell, its name beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from markupsafe import Markup

from tunesmith.web.charts import WIDTH, number, tick_step

LEFT, RIGHT, TOP, BOTTOM = 52, 600, 34, 246
LETTER, LINE = 6.6, 14.0  # of a label, in units of the view box


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPoint:
    name: str
    cost: float
    value: float
    low: float
    high: float
    is_chosen: bool


def cost_chart(points: Sequence[CostPoint], *, metric: str, cost: str, is_log: bool) -> Markup:
    """Empty without points. Labels step aside for each other, none is left out."""
    if not points:
        return Markup("")
    lowest, highest = min(p.low for p in points), max(p.high for p in points)
    step = tick_step(highest - lowest or 1.0)
    floor_y, ceiling = floor(lowest / step + 1e-9) * step, (ceil(highest / step - 1e-9) * step) or step
    ticks = _log_ticks(points) if is_log else _plain_ticks(points)
    first, last = ticks[0], ticks[-1]

    def x(v: float) -> float:
        a, b, c = (log10(first), log10(last), log10(v)) if is_log else (first, last, v)
        return LEFT + (RIGHT - LEFT) * (c - a) / ((b - a) or 1.0)

    def y(v: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (v - floor_y) / ((ceiling - floor_y) or 1.0)

    title = f"{metric} against {cost}"
    out = [
        f'<svg viewBox="0 0 {WIDTH} {BOTTOM + 46}" role="img" aria-label="{escape(title)}; the table has the numbers">'
    ]
    for i in range(round((ceiling - floor_y) / step) + 1):
        v = floor_y + i * step
        out.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        out.append(f'<text x="{LEFT - 7}" y="{y(v) + 4:.1f}" text-anchor="end">{number(v, step)}</text>')
    for tick in ticks:
        out.append(f'<text x="{x(tick):.1f}" y="{BOTTOM + 17}" text-anchor="middle">{short(tick)}</text>')
    for p in points:
        kind = "tuned" if p.is_chosen else "base"
        at = x(p.cost)
        out.append(f'<line class="ci {kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"/>')
        out.append(f'<circle class="dot {kind}" cx="{at:.1f}" cy="{y(p.value):.1f}" r="5"/>')
    for p, (at_x, at_y, anchor) in zip(points, _labels([(x(p.cost), y(p.value), p.name) for p in points]), strict=True):
        out.append(f'<text class="name" x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}">{escape(p.name)}</text>')
    scale = ", on a log scale" if is_log else ""
    out.append(
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 37}" text-anchor="middle">{escape(cost)}{scale}</text>'
        f'<text x="{LEFT - 44}" y="{TOP - 19}">{escape(metric)}</text></svg>'
    )
    return Markup("".join(out))  # noqa: S704 (every user string above is escaped)


def short(value: float) -> str:
    """1,500 as 1.5k, 2,000,000 as 2M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _log_ticks(points: Sequence[CostPoint]) -> list[float]:
    """1, 2 and 5 times the powers of ten (over four decades: the powers alone) that enclose the points."""
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    few = log10(high / low) > 4 / 3
    steps = (1,) if few else (1, 2, 5)
    every = [m * 10.0**e for e in range(floor(log10(low)) - 1, ceil(log10(high)) + 2) for m in steps]
    first = max(t for t in every if t <= low * (1 + 1e-9))
    last = min(t for t in every if t >= high * (1 - 1e-9) and t > first)
    return [t for t in every if first <= t <= last]


def _plain_ticks(points: Sequence[CostPoint]) -> list[float]:
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    step = tick_step(high - low or high or 1.0)
    first = floor(low / step + 1e-9)
    last = max(first + 1, ceil(high / step - 1e-9))
    return [i * step for i in range(first, last + 1)]


def _labels(places: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """(x, y, anchor) for each label: right of its dot, or left of it near the edge, moved up or down until it covers
    no other label and no other dot."""
    taken: list[tuple[float, float, float, float]] = [(px - 6, py - 6, px + 6, py + 6) for px, py, _ in places]
    found = []
    for px, py, name in places:
        width = LETTER * len(name)
        options = [
            (side, shift)
            for shift in (0, -LINE, LINE, -2 * LINE, 2 * LINE, -3 * LINE, 3 * LINE, -4 * LINE, 4 * LINE)
            for side in ("start", "end")
        ]
        best: tuple[float, float, str] | None = None
        for side, shift in options:
            left = px + 9 if side == "start" else px - 9 - width
            box = (left, py + shift - LINE / 2, left + width, py + shift + LINE / 2)
            if left < LEFT or box[2] > WIDTH - 2 or box[1] < 2 or box[3] > BOTTOM:
                continue
            if best is None or not any(_overlap(box, other) for other in taken):
                best = (px + 9 if side == "start" else px - 9, py + shift + 4, side)
                if not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    break
        found.append(best or (px + 9, py + 4, "start"))
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
