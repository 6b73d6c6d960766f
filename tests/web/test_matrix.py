"""The page of a matrix: whole, harmless, and with every cell on it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.facts import HOSTILE, interval
from tunesmith.web.matrix import matrix_page
from tunesmith.web.scatter import CostPoint, cost_chart


def cell(name: str, value: float | None, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "on": "all", "rows": 2903, "method": "lora r16", "lr": 1e-3, "epochs": 1.0, "servable": "merged",
        "score": value and interval(value), "difference": None, "p": None, "p_holm": None, "is_noise": True,
        "is_best": False, "trained_weights": 4_884_480, "bytes": 19_600_000, "peak_mib": 1234, "tokens_per_s": 1400.0,
        "seconds": 131.0, "answer_seconds": 18.0, "path": "flat", "precision": "bf16", "notes": [], "train_run": "a",
        "answer_run": "b", "reused": False, "failure": "", **more,
    }  # fmt: skip


def facts(**more: Any) -> dict[str, Any]:
    worse = {"difference": {"value": -0.1, "low": -0.2, "high": -0.01}, "p": 0.01, "p_holm": 0.02, "is_noise": False}
    cells = [
        cell("best", 0.75, is_best=True),
        cell(HOSTILE, 0.6, trained_weights=11_520, path=f"plain: {HOSTILE}", **worse),
        cell("small", 0.5, on="subset", rows=256, is_best=True),
        cell("huge", None, failure=f"killed from outside {HOSTILE}"),
    ]
    look = {
        "status": "unproven", "goals": [{"goal": "macro_f1 >= 0.70", "status": "unproven", "because": "0.65"}],
        "metric": "macro_f1", "arms": {"majority": interval(0.01), "tuned": interval(0.7), "lead": None}, "n": 362,
        "looks": 2, "is_new": True, "gate_run": "f" * 64,
    }  # fmt: skip
    return {
        "project": HOSTILE, "at": "2026-01-01 10:00 UTC", "kind": "classify", "model": "m", "metric": "macro_f1",
        "higher_is_better": True, "confidence": 0.95, "n": 338, "clusters": 176, "not_judged": {"x": "2 rows"},
        "counts": {"train": 2903, "validation": 338, "test": 362}, "subset": 256, "seal": "a" * 64, "machine": "2 cores",
        "version": "1", "versions": "torch 2", "cells": cells, "why_none": "", "notes": [HOSTILE], "seconds": 1.0,
        "chosen": {"name": "best", "on": "all", "rule": "the best itself", "set": ["train.lr=0.001"], "go_on": "tunesmith run --set train.lr=0.001"}, "look": look, **more,
    }  # fmt: skip


def test_every_cell_its_cost_and_the_verdict_are_on_the_page() -> None:
    page = matrix_page(facts())
    for said in ("best is chosen.", "not enough evidence", "all 2,903 rows", "256 rows (a subset)", "4,884,480", "1,234",
                 "yes, p 0.020", "killed from outside", "looked at this test set 2 times", "best of several looks is lucky",
                 "tunesmith run --set train.lr=0.001", "Not judged: x (2 rows)"):  # fmt: skip
        assert said in page, said
    assert page.count("<svg") == 2 + 2 * 3


def test_nothing_on_the_page_is_fetched_or_executed() -> None:
    page = matrix_page(facts())
    assert "<script" not in page and "http" not in page and "@import" not in page and "url(" not in page
    assert len(page.encode()) < 60_000


def test_a_matrix_without_a_choice_says_why() -> None:
    page = matrix_page(facts(chosen=None, look=None, why_none="no cell on all rows finished"))
    assert "Nothing is chosen." in page and "no cell on all rows finished." in page


@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("costs", [(5.0,), (5.0, 5.0), (11_520.0, 4.9e6, 1.34e8), (1000.0, 1001.0)])
def test_a_cost_chart_names_every_point_inside_its_frame(costs: tuple[float, ...], is_log: bool) -> None:
    points = [
        CostPoint(name=f"cell{i}", cost=c, value=0.5, low=0.4, high=0.6, is_chosen=i == 0) for i, c in enumerate(costs)
    ]
    chart = cost_chart(points, metric="f1", cost="weights", is_log=is_log)
    for i in range(len(costs)):
        assert f">cell{i}</text>" in chart
    import re

    places = [float(v) for v in re.findall(r'cx="([-\d.]+)"', chart)]
    assert len(places) == len(costs) and all(50 <= p <= 602 for p in places)
    labels = {m for m in re.findall(r'class="name" x="([-\d.]+)" y="([-\d.]+)"', chart)}
    assert len(labels) == len(costs), "no label covers another"


def test_no_points_no_chart() -> None:
    assert cost_chart([], metric="f1", cost="weights", is_log=True) == ""
