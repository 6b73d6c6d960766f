"""Each formula against a small direct computation, and PEFT's own where it has one."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from tunesmith.core.errors import InputError
from tunesmith.model.merging.arithmetic import (
    Recipe,
    combine,
    drop_and_rescale,
    elect_and_average,
    slerp,
    trim,
    trim_threshold,
)

A, B, C = (torch.randn(7, 5, generator=torch.Generator().manual_seed(i)) for i in range(3))


def test_linear_is_the_weighted_sum() -> None:
    got = combine([A, B, C], Recipe(method="linear", weights=(0.5, -1.0, 2.0), scale=3.0), "x", [])
    torch.testing.assert_close(got, 3.0 * (0.5 * A - B + 2.0 * C))


def test_ties_is_the_papers_algorithm_by_hand() -> None:
    deltas = [
        torch.tensor([3.0, -1.0, 2.0, 0.1]),
        torch.tensor([-2.0, -3.0, 0.2, 0.3]),
        torch.tensor([1.0, 4.0, 5.0, 0.0]),
    ]
    kept = [trim(d, trim_threshold(lambda d=d: [d], 0.5)) for d in deltas]
    assert [k.tolist() for k in kept] == [[3.0, 0.0, 2.0, 0.0], [-2.0, -3.0, 0.0, 0.0], [0.0, 4.0, 5.0, 0.0]]
    # signs of the sums: + (3-2), + (-3+4), + (2+5), none; the mean of those that agree
    assert elect_and_average(kept).tolist() == [3.0, 4.0, 3.5, 0.0]


def test_ties_on_one_tensor_is_pefts() -> None:
    want = merge_utils.ties([A, B, C], weights=torch.ones(3), density=0.4)
    recipe = Recipe(method="ties", weights=(1.0, 1.0, 1.0), keep=0.4)
    thresholds = [trim_threshold(lambda d=d: [d], 0.4) for d in (A, B, C)]
    torch.testing.assert_close(combine([A, B, C], recipe, "x", thresholds), want)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), min_size=1, max_size=4),
    st.floats(0.01, 1.0),
)
def test_the_threshold_is_the_exact_order_statistic_of_all_tensors(parts: list[list[float]], keep: float) -> None:
    tensors = [torch.tensor(p, dtype=torch.float32) for p in parts]
    magnitudes = np.sort(np.abs(np.concatenate([t.numpy() for t in tensors])))[::-1]
    want = 0.0 if keep == 1.0 else float(magnitudes[math.ceil(keep * len(magnitudes)) - 1])
    assert trim_threshold(lambda: tensors, keep) == want


def test_dare_drops_the_share_and_keeps_the_mean() -> None:
    ones = torch.ones(200, 200)
    got = drop_and_rescale(ones, 0.9, seed=0, index=0, name="x")
    values = Counter(got.flatten().tolist())
    assert set(values) == {0.0, torch.tensor(1 / 0.1).item()} or len(values) == 2
    assert abs(values[0.0] / ones.numel() - 0.9) < 0.01
    assert abs(float(got.mean()) - 1.0) < 0.05
    assert torch.equal(drop_and_rescale(A, 0.0, 0, 0, "x"), A)


def test_dares_noise_is_that_of_seed_place_and_name() -> None:
    def kept(**change: object) -> torch.Tensor:
        return drop_and_rescale(torch.ones(50, 50), 0.5, **({"seed": 0, "index": 0, "name": "x"} | change)) != 0  # type: ignore[arg-type]

    assert torch.equal(kept(), kept())
    for change in ({"seed": 1}, {"index": 1}, {"name": "y"}):
        assert not torch.equal(kept(), kept(**change))


def test_dare_ties_is_ties_of_what_dare_left() -> None:
    recipe = Recipe(method="dare_ties", weights=(1.0, 1.0), drop=0.5, seed=3, scale=0.7)
    want = 0.7 * elect_and_average([drop_and_rescale(d, 0.5, 3, i, "x") for i, d in enumerate((A, B))])
    torch.testing.assert_close(combine([A, B], recipe, "x", []), want)


def test_slerp_stays_on_the_arc() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for t in (0.0, 0.25, 0.5, 1.0):
        angle = t * math.pi / 2
        torch.testing.assert_close(slerp(a, b, t), torch.tensor([math.cos(angle), math.sin(angle)]))
    torch.testing.assert_close(slerp(A, B, 0.0), A)
    torch.testing.assert_close(slerp(A, B, 1.0), B)
    torch.testing.assert_close(slerp(2 * A, 4 * A, 0.25), 2.5 * A)  # parallel: a line
    assert torch.equal(slerp(torch.zeros(3), torch.zeros(3), 0.5), torch.zeros(3))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "mean"},
        {"weights": ()},
        {"weights": (math.nan, 1.0)},
        {"scale": 0.0},
        {"keep": 0.0, "method": "ties"},
        {"drop": 1.0, "method": "dare"},
        {"keep": 0.5},
        {"drop": 0.5},
        {"method": "slerp", "scale": 2.0},
        {"method": "slerp", "weights": (1.0, 1.0, 1.0)},
        {"method": "ties", "weights": (1.0, 2.0)},
    ],
    ids=str,
)
def test_impossible_recipes_cannot_be_said(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Recipe(**({"method": "linear", "weights": (1.0, 1.0)} | change))  # type: ignore[arg-type]
