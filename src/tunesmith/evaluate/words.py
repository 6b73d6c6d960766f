"""How a verdict's numbers are written."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.core.nouns import Goal
from tunesmith.metrics import catalog

Say = Callable[[float], str]


def number(metric: str) -> Say:
    """Three decimals for scores in 0–1 and bits per byte, one for those in 0–100 and beyond."""
    digits = 3 if catalog.find(metric).highest == 1.0 or metric == "bits_per_byte" else 1
    return lambda value: f"{value:.{digits}f}"


def signed(value: float, say: Say) -> str:
    return f"{'−' if value < 0 else '+'}{say(abs(value))}"


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def side(goal: Goal, bound: str) -> str:
    return f"{'at least' if goal.op == '>=' else 'at most'} {bound}"
