"""Do 95 % bounds hold 95 % of the time? Simulated worlds whose true score is known.

The plain percentile bootstrap is measured beside ours, to show what the corrections are for.
"""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import Resampler, difference, spread
from tunesmith.metrics.sums import Array, Items, Sums, mean_of

CONFIDENCE = 0.95


def grouped_accuracy(
    rng: np.random.Generator, right: float, groups: int, size: int, alike: float
) -> tuple[Sums, list[str]]:
    """In a share `alike` of the groups all items are right or wrong together."""
    hits = rng.random((groups, size)) < right
    together = rng.random(groups) < alike
    hits[together] = hits[together][:, :1]
    return mean_of(hits.reshape(-1).astype(float)), [str(g) for g in range(groups) for _ in range(size)]


def grouped_classes(rng: np.random.Generator, classes: int, groups: int, right: float) -> tuple[Sums, list[str], float]:
    """Pairs of one class, rarer classes and better ones mixed; -> macro-F1 sums, groups, the true macro-F1."""
    share = 1 / np.arange(1, classes + 1) ** 0.7
    share /= share.sum()
    hit_rate = np.clip(right + 0.1 * np.cos(np.arange(classes)), 0, 1)
    truth = np.repeat(rng.choice(classes, size=groups, p=share), 2)
    hits = rng.random((groups, 2)) < np.repeat(hit_rate[truth[::2]][:, None], 2, axis=1)
    together = rng.random(groups) < 0.4
    hits[together] = hits[together][:, :1]
    said = np.where(hits.reshape(-1), truth, rng.choice(classes, size=2 * groups, p=share))
    joint = np.diag(share * hit_rate) + (share * (1 - hit_rate))[:, None] * share[None, :]
    f1 = 2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))
    names = [f"c{i}" for i in range(classes)]
    items = Items.of([names[i] for i in truth], [names[i] for i in said], labels=names)
    true = float(np.mean([f1[names.index(j)] for j in items.judged]))
    return catalog.measure("macro_f1", items), [str(g) for g in range(groups) for _ in range(2)], true


def percentile_lower(sums: Sums, resampler: Resampler) -> float:
    """What resampling with replacement and taking the 5th percentile would say."""
    by_group = resampler.per_group(sums.per_item)
    rng = np.random.default_rng(resampler.seed)
    weights: Array = rng.multinomial(
        resampler.groups, [1 / resampler.groups] * resampler.groups, resampler.resamples
    ).astype(float)
    return float(np.quantile(sums.value(weights @ by_group), 1 - CONFIDENCE))


def least(simulations: int) -> float:
    """95 % less three standard errors of a simulated share."""
    return CONFIDENCE - 3 * (CONFIDENCE * (1 - CONFIDENCE) / simulations) ** 0.5


def cover_accuracy(simulations: int, right: float, groups: int, size: int, alike: float) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    lower = upper = plain = 0
    for seed in range(simulations):
        sums, names = grouped_accuracy(rng, right, groups, size, alike)
        resampler = Resampler.of(names, resamples=400, seed=seed)
        found = spread(sums, resampler)
        lower += found.lower(CONFIDENCE) <= right
        upper += found.upper(CONFIDENCE) >= right
        plain += percentile_lower(sums, resampler) <= right
    return lower / simulations, upper / simulations, plain / simulations


def cover_macro_f1(simulations: int, classes: int, groups: int, right: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    lower = upper = 0
    for seed in range(simulations):
        sums, names, true = grouped_classes(rng, classes, groups, right)
        found = spread(sums, Resampler.of(names, resamples=400, seed=seed))
        lower += found.lower(CONFIDENCE) <= true
        upper += found.upper(CONFIDENCE) >= true
    return lower / simulations, upper / simulations


def cover_difference(simulations: int, groups: int, right_a: float, right_b: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    lower = upper = 0
    for seed in range(simulations):
        a, names = grouped_accuracy(rng, right_a, groups, 2, 0.5)
        b, _ = grouped_accuracy(rng, right_b, groups, 2, 0.5)
        found = difference(a, b, Resampler.of(names, resamples=400, seed=seed))
        lower += found.lower(CONFIDENCE) <= right_a - right_b + 1e-12
        upper += found.upper(CONFIDENCE) >= right_a - right_b - 1e-12
    return lower / simulations, upper / simulations


def test_a_high_score_on_few_items_is_not_overrated() -> None:
    lower, upper, plain = cover_accuracy(300, 0.98, 30, 1, 0.0)
    assert lower >= least(300) and upper >= least(300)
    assert plain < 0.7  # the percentile bootstrap would pass a lucky small sample


@pytest.mark.parametrize("right, groups", [(0.8, 30), (0.5, 60)])
def test_accuracy_of_alike_items_is_covered(right: float, groups: int) -> None:
    lower, upper, _ = cover_accuracy(250, right, groups, 2, 0.5)
    assert lower >= least(250) and upper >= least(250)


@pytest.mark.parametrize("classes, groups, right", [(5, 40, 0.8), (22, 181, 0.8)])
def test_macro_f1_is_covered_on_both_sides(classes: int, groups: int, right: float) -> None:
    lower, upper = cover_macro_f1(200, classes, groups, right)
    assert lower >= least(200) and upper >= least(200)


@pytest.mark.parametrize("right_a, right_b", [(0.8, 0.8), (0.9, 0.75)])
def test_paired_differences_are_covered(right_a: float, right_b: float) -> None:
    lower, upper = cover_difference(250, 40, right_a, right_b)
    assert lower >= least(250) and upper >= least(250)


@pytest.mark.slow
@pytest.mark.parametrize(
    "right, groups, size, alike", [(0.95, 20, 1, 0.0), (0.9, 150, 2, 0.5), (0.6, 25, 4, 0.8), (0.99, 100, 1, 0.0)]
)
def test_accuracy_is_covered_in_many_worlds(right: float, groups: int, size: int, alike: float) -> None:
    lower, upper, _ = cover_accuracy(2000, right, groups, size, alike)
    assert lower >= least(2000) and upper >= least(2000)


@pytest.mark.slow
@pytest.mark.parametrize("classes, groups, right", [(2, 30, 0.7), (8, 75, 0.8), (22, 181, 0.9), (8, 300, 0.6)])
def test_macro_f1_is_covered_in_many_worlds(classes: int, groups: int, right: float) -> None:
    lower, upper = cover_macro_f1(2000, classes, groups, right)
    assert lower >= least(2000) and upper >= least(2000)
