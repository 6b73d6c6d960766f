"""Charts as SVG, drawn on the server: title, unit, interval, n and baseline in words and in lines.

Colours are CSS variables of the page, so that dark and light come for free. Every chart has a table
with the same numbers beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from markupsafe import Markup

WIDTH = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPoint:
    name: str
    value: float
    low: float
    high: float
    is_tuned: bool


def tick_step(span: float, wanted: int = 5) -> float:
    """The 1-2-5 step that gives about `wanted` ticks over `span`."""
    if span <= 0:
        return 1.0
    raw = span / wanted
    magnitude = 10 ** floor(log10(raw))
    return next(m * magnitude for m in (1, 2, 5, 10) if raw <= m * magnitude * 1.0001)


def number(value: float, step: float) -> str:
    digits = max(0, -floor(log10(step))) if step > 0 else 0
    return f"{value:.{digits}f}"


def arms_chart(points: Sequence[ArmPoint], *, metric: str, n: int, clusters: int, goal: float | None) -> Markup:
    """One row an arm: a dot with its interval, the goal as a dashed line."""
    left, right, top, row = 150, 560, 24, 30
    bottom = top + row * len(points)
    high = max([p.high for p in points] + [goal or 0.0, 1e-9])
    top_value = 1.0 if high <= 1 else ceil(high / tick_step(high)) * tick_step(high)
    step = tick_step(top_value)

    def x(v: float) -> float:
        return left + (right - left) * max(0.0, v) / top_value

    out = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + 40}" role="img" '
        f'aria-label="{escape(metric)} of each arm with its 95 % interval; the table below has the numbers">'
    ]
    for i in range(round(top_value / step) + 1):
        v = i * step
        out.append(f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 6}" y2="{bottom}"/>')
        out.append(f'<text x="{x(v):.1f}" y="{bottom + 15}" text-anchor="middle">{number(v, step)}</text>')
    if goal is not None:
        out.append(f'<line class="goal" x1="{x(goal):.1f}" x2="{x(goal):.1f}" y1="{top - 10}" y2="{bottom}"/>')
        out.append(f'<text class="goaltext" x="{x(goal):.1f}" y="{top - 13}" text-anchor="middle">goal {goal:g}</text>')
    for i, p in enumerate(points):
        y = top + row * i + row / 2
        kind = "tuned" if p.is_tuned else "base"
        out.append(f'<text class="name" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(p.name)}</text>')
        out.append(f'<line class="ci {kind}" x1="{x(p.low):.1f}" x2="{x(p.high):.1f}" y1="{y}" y2="{y}"/>')
        out.append(f'<circle class="dot {kind}" cx="{x(p.value):.1f}" cy="{y}" r="5"/>')
        out.append(f'<text class="val" x="{WIDTH - 8}" y="{y + 4}" text-anchor="end">{p.value:.3f}</text>')
    out.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 33}" text-anchor="middle">'
        f"{escape(metric)}, 95 % interval, n = {n} items in {clusters} independent groups</text></svg>"
    )
    return Markup("".join(out))  # noqa: S704 (every user string above is escaped)


def smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average, corrected for its start."""
    out, average, norm = [], 0.0, 0.0
    for v in values:
        average = weight * average + (1 - weight) * v
        norm = weight * norm + (1 - weight)
        out.append(average / norm)
    return out


def thin(points: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """At most `most` points, by the mean of equal runs."""
    if len(points) <= most:
        return list(points)
    size = len(points) / most
    out = []
    for i in range(most):
        run = points[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))]
        out.append((sum(p[0] for p in run) / len(run), sum(p[1] for p in run) / len(run)))
    return out


def curve_chart(
    *,
    raw: Sequence[tuple[float, float]],
    validation: Sequence[tuple[float, float]],
    y_label: str,
    best_step: int | None,
    title: str,
) -> Markup:
    """Training points (raw, and smoothed over them) and validation points by optimizer step."""
    left, right, top, bottom = 52, 612, 16, 186
    points = list(raw) + list(validation)
    if not points:
        return Markup("")
    last = max(p[0] for p in points) or 1.0
    lowest, highest = min(0.0, *(p[1] for p in points)), max(p[1] for p in points)
    step = tick_step(highest - lowest or 1.0)
    ceiling = ceil(highest / step - 1e-9) * step or step
    x_step = max(1.0, tick_step(last))

    def x(v: float) -> float:
        return left + (right - left) * v / last

    def y(v: float) -> float:
        return bottom - (bottom - top) * (v - lowest) / (ceiling - lowest)

    def line(kind: str, series: Sequence[tuple[float, float]]) -> str:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in series)
        return f'<polyline class="{kind}" points="{path}"/>'

    out = [
        f'<svg viewBox="0 0 {WIDTH} 226" role="img" aria-label="{escape(title)}; the numbers are in the table below">'
    ]
    for i in range(round((ceiling - lowest) / step) + 1):
        v = lowest + i * step
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        out.append(f'<text x="{left - 7}" y="{y(v) + 4:.1f}" text-anchor="end">{number(v, step)}</text>')
    for i in range(int(last / x_step) + 1):
        out.append(
            f'<text x="{x(i * x_step):.1f}" y="{bottom + 17}" text-anchor="middle">{number(i * x_step, x_step)}</text>'
        )
    if raw:
        out.append(line("raw", thin(raw)))
        out.append(line("train", thin(list(zip([p[0] for p in raw], smoothed([p[1] for p in raw]), strict=True)))))
    if validation:
        out.append(line("valid", validation))
        out.extend(f'<circle class="vdot" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>' for a, b in validation)
    if best_step is not None:
        side, dx = ("end", -5) if x(best_step) > right - 80 else ("start", 5)
        out.append(f'<line class="best" x1="{x(best_step):.1f}" x2="{x(best_step):.1f}" y1="{top - 6}" y2="{bottom}"/>')
        out.append(
            f'<text class="goaltext" x="{x(best_step) + dx:.1f}" y="{top + 2}" text-anchor="{side}">best, kept</text>'
        )
    out.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">{escape(y_label)} by optimizer step</text></svg>'
    )
    return Markup("".join(out))  # noqa: S704 (every user string above is escaped)
