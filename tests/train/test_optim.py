"""Rates, decay and clipping, against transformers' and torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from tunesmith.core.errors import TunesmithError
from tunesmith.train import optim
from tunesmith.train.state import Position


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_the_rate_is_that_of_transformers_with_warm_up_one_rung_up(schedule: str, warmup: float) -> None:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    rising = math.ceil(warmup * 10)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    peer = get_scheduler(name, optimizer, num_warmup_steps=rising, num_training_steps=10)
    for step in range(10):
        got = optim.rate(step, steps=10, peak=0.5, warmup=warmup, schedule=schedule)
        rung = 0.5 / rising if step < rising else 0.0
        assert got == pytest.approx(peer.get_last_lr()[0] + rung)
        optimizer.step()
        peer.step()


def test_vectors_do_not_decay() -> None:
    parameters = {"matrix": torch.nn.Parameter(torch.ones(2, 2)), "norm": torch.nn.Parameter(torch.ones(2))}
    optimizer = optim.adamw(parameters, weight_decay=0.5)
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    optim.apply(optimizer, lr=0.1)
    assert torch.allclose(parameters["matrix"], torch.full((2, 2), 0.95))
    assert torch.equal(parameters["norm"], torch.ones(2))
    assert all(p.grad is None for p in parameters.values())


def test_clipping_scales_all_gradients_to_the_largest_norm_and_returns_the_one_before() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert optim.clip(parameters, 1.0) == pytest.approx(5.0)
    assert torch.cat([p.grad for p in parameters]).norm() == pytest.approx(1.0, abs=1e-5)


def test_numbers_that_are_not_finite_are_refused_with_the_rows() -> None:
    optim.refuse_non_finite(3, 1.0, 2.0, ["a.csv:2"])
    with pytest.raises(TunesmithError) as e:
        optim.refuse_non_finite(3, float("nan"), 2.0, [f"a.csv:{n}" for n in range(20)])
    assert "a.csv:0, a.csv:1" in str(e.value) and "+4 more" in str(e.value) and "step 4" in str(e.value)


def test_the_best_is_by_the_metric_and_ties_by_the_loss() -> None:
    at = Position(spec_id="x", step=1).after(2.0, 0.5, True)
    assert (at.best_step, at.best, at.waited) == (1, 0.5, 0)
    worse = Position(spec_id="x", step=2, best_step=1, best=0.5, best_loss=2.0).after(1.0, 0.4, True)
    assert (worse.best_step, worse.waited) == (1, 1)
    tie = Position(spec_id="x", step=2, best_step=1, best=0.5, best_loss=2.0).after(1.0, 0.5, True)
    assert (tie.best_step, tie.best_loss) == (2, 1.0)
    lower_is_better = Position(spec_id="x", step=2, best_step=1, best=0.5, best_loss=2.0).after(3.0, 0.4, False)
    assert lower_is_better.best_step == 2
    by_loss = Position(spec_id="x", step=2, best_step=1, best=None, best_loss=2.0).after(2.5, None, True)
    assert by_loss.best_step == 1
