"""The learning-rate range finder: the same curve each time, a rate that trains, and nothing left behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train import data
from tunesmith.core.errors import InputError, TunesmithError
from tunesmith.core.stage import Exec, Workspace
from tunesmith.train.lr_stages import LR_RANGE, LrRangeSpec
from tunesmith.train.recipes.lr_range import judge, smooth
from tunesmith.train.stages import SftInputs


def found(root: Path, dataset: Path, base: Path, *, exec: Exec | None = None, **changes: Any) -> Workspace:
    work = Workspace(root=root, exec=exec or Exec(threads=1))
    values: dict[str, Any] = {"training": data.SPEC, "low": 1e-5, "high": 10.0, "steps": 60} | changes
    LR_RANGE.resolve()(LrRangeSpec(**values), SftInputs(dataset=dataset, base=base), work)
    return work


def curve(work: Workspace) -> dict[str, Any]:
    return json.loads((work.scratch / "curve" / "curve.json").read_text())


def test_the_suggested_rate_learns_more_than_a_twentieth_of_it(
    tmp_path: Path, dataset: Path, sharp_llama: Path
) -> None:
    work = found(tmp_path / "range", dataset, sharp_llama)
    c = curve(work)
    suggestion = c["suggestion"]
    assert c["rates"][0] == 1e-5 and c["rates"] == sorted(c["rates"])
    assert 1e-5 < suggestion < c["lowest"] <= 10.0
    assert work.summary["suggestion"] == suggestion
    last = {}
    for factor in (0.05, 1.0):  # a toy that clips its gradients learns at thirty times of it too, on some machines
        run = data.train(
            tmp_path / str(factor), dataset, sharp_llama, lr=suggestion * factor, metric="", validate_times=1
        )
        last[factor] = run.summary["validation_loss"]
    assert last[1.0] < last[0.05] - 1.0


def test_the_same_curve_each_time_to_the_byte(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    one, two = (found(tmp_path / n, dataset, tiny_llama, steps=10) for n in "ab")
    assert (one.scratch / "curve" / "curve.json").read_bytes() == (two.scratch / "curve" / "curve.json").read_bytes()
    assert one.metrics_file.read_bytes() == two.metrics_file.read_bytes()
    small = found(tmp_path / "c", dataset, tiny_llama, steps=10, exec=Exec(threads=1, micro_batch_tokens=100))
    assert curve(small)["losses"] == pytest.approx(curve(one)["losses"], abs=1e-4)


def test_it_stops_where_the_loss_leaves_all_bounds(tmp_path: Path, dataset: Path, sharp_llama: Path) -> None:
    training = replace(data.SPEC, method=data.FULL)
    work = found(tmp_path / "range", dataset, sharp_llama, training=training, low=1e-4, high=1e8, steps=40)
    c = curve(work)
    assert len(c["rates"]) == len(c["losses"]) < 40
    assert c["burst"] == c["rates"][-1] and c["suggestion"] < c["burst"]
    assert len(data.log(work)) == len(c["rates"])


def test_the_steepest_fall_before_the_lowest_is_suggested() -> None:
    """A loss that is flat, falls by a sigmoid centred at rate 1e-3, and bursts after 1e-1."""
    rates = [10 ** (-5 + 0.05 * n) for n in range(100)]
    losses = [3 - 2 / (1 + math.exp(-4 * math.log10(r / 1e-3))) + max(0, math.log10(r / 3e-2)) ** 2 * 9 for r in rates]
    c = judge(rates, losses, burst=True)
    assert 1e-3 < c.suggestion < 4e-3  # smoothing looks back some five points
    assert c.suggestion < c.lowest < 2e-1 and c.burst == rates[-1]
    rising = judge(rates, [1 + 0.1 * n for n in range(100)], burst=False)
    assert rising.suggestion is None and "never fell" in rising.why and rising.burst is None


def test_smoothing_of_a_constant_is_the_constant() -> None:
    assert smooth([2.0] * 9) == pytest.approx([2.0] * 9)


def test_too_few_points_and_senseless_ranges_are_refused() -> None:
    with pytest.raises(TunesmithError, match="after 3 steps"):
        judge([1.0, 2.0, 3.0], [1.0, 2.0, 9.0], burst=True)
    for changes in ({"low": 0.0}, {"low": 20.0}, {"steps": 3}):
        with pytest.raises(InputError):
            LrRangeSpec(**({"training": data.SPEC, "low": 1e-5, "high": 10.0, "steps": 60} | changes))
