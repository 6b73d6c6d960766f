"""The page of a matrix: what was chosen and why, then every cell with its interval and its cost.

`matrix_page(facts)` is a pure function; flows/matrix/facts.py says what the facts are.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tunesmith.web.charts import ArmPoint, arms_chart
from tunesmith.web.report import HERE, PAGES, STATUS_WORDS, TONE
from tunesmith.web.scatter import CostPoint, cost_chart

ON = {"subset": "the subset", "all": "all rows"}
COSTS = {
    "trained_weights": ("trained weights", True),
    "peak_mib": ("peak memory while training, MiB", False),
    "tokens_per_s": ("tokens a second while training", True),
}


def matrix_page(facts: dict[str, Any]) -> str:
    """One self-contained HTML document; nothing in it is fetched or executed."""
    groups = [_group(facts, on) for on in ("all", "subset")]
    return PAGES.get_template("matrix.html.jinja").render(
        f=facts,
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        headline=headline(facts),
        lead=lead(facts),
        groups=[g for g in groups if g],
        failed=[c for c in facts["cells"] if c["failure"]],
        status_words=STATUS_WORDS,
        tone=TONE,
        on=ON,
    )


def headline(facts: dict[str, Any]) -> str:
    chosen = facts["chosen"]
    return f"{chosen['name']} is chosen." if chosen else "Nothing is chosen."


def lead(facts: dict[str, Any]) -> str:
    chosen = facts["chosen"]
    if not chosen:
        return f"{facts['why_none']}."
    cell = next(c for c in facts["cells"] if c["name"] == chosen["name"] and c["on"] == chosen["on"])
    score = cell["score"]
    return (
        f"{chosen['rule'][0].upper()}{chosen['rule'][1:]}. On {facts['n']} validation items it reaches {facts['metric']} "
        f"{score['value']:.3f} ({score['low']:.3f} – {score['high']:.3f}) with {cell['trained_weights']:,} trained weights."
    )


def _group(facts: dict[str, Any], on: str) -> dict[str, Any] | None:
    cells = [c for c in facts["cells"] if c["on"] == on and not c["failure"]]
    if not cells:
        return None
    sign = -1 if facts["higher_is_better"] else 1
    cells = sorted(cells, key=lambda c: (sign * c["score"]["value"], c["name"]))
    chosen = facts["chosen"]
    is_chosen = {c["name"]: bool(chosen) and chosen["name"] == c["name"] and chosen["on"] == on for c in cells}
    points = [ArmPoint(name=c["name"], is_tuned=is_chosen[c["name"]], **c["score"]) for c in cells]
    return {
        "on": on,
        "rows": cells[0]["rows"],
        "cells": cells,
        "chosen": is_chosen,
        "plain": [c for c in cells if ":" in c["path"]],
        "scores": arms_chart(points, metric=facts["metric"], n=facts["n"], clusters=facts["clusters"], goal=None),
        "costs": [
            cost_chart(
                [
                    CostPoint(name=c["name"], cost=float(c[cost]), is_chosen=is_chosen[c["name"]], **c["score"])
                    for c in cells
                    if c[cost]
                ],
                metric=facts["metric"],
                cost=words,
                is_log=is_log,
            )
            for cost, (words, is_log) in COSTS.items()
        ],
    }
