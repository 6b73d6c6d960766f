"""Intervals and tests agree with exact answers where those exist."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import beta, binom

from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Answer
from tunesmith.metrics import catalog, statistics
from tunesmith.metrics.catalog import METRICS
from tunesmith.metrics.statistics import Resampler, difference, holm, holm_confidence, items_needed, sign_flip, spread
from tunesmith.metrics.sums import Items, Sums, mean_of

LABELS = [f"class {i:02}" for i in range(22)]


def alone(items: int, *, resamples: int = 20_000, seed: int = 0) -> Resampler:
    return Resampler.of([str(i) for i in range(items)], resamples=resamples, seed=seed)


def demo_sized(seed: int = 0, right: float = 0.8) -> tuple[Items, list[str]]:
    """362 items in pairs over 22 classes."""
    rng = np.random.default_rng(seed)
    truth = [LABELS[i] for i in rng.integers(0, 22, 181) for _ in range(2)]
    answers = [t if rng.random() < right else LABELS[rng.integers(22)] for t in truth]
    return Items.of(truth, answers, labels=LABELS), [str(i // 2) for i in range(362)]


@pytest.mark.parametrize("right, items", [(20, 20), (17, 20), (1, 12), (0, 12), (290, 362)])
def test_the_bounds_of_a_proportion_are_clopper_and_pearsons(right: int, items: int) -> None:
    found = spread(mean_of([1.0] * right + [0.0] * (items - right)), alone(items))
    lower = beta.ppf(0.05, right, items - right + 1) if right else 0.0
    upper = beta.ppf(0.95, right + 1, items - right) if right < items else 1.0
    width = max(upper - lower, 1e-3)
    assert abs(found.lower(0.95) - lower) < 0.05 * width
    assert abs(found.upper(0.95) - upper) < 0.05 * width


def test_five_right_of_five_do_not_prove_much() -> None:
    found = spread(mean_of([1.0] * 5), alone(5))
    assert found.lower(0.95) == pytest.approx(0.05 ** (1 / 5), abs=0.02)  # 0.55
    assert found.interval(0.95).high == 1.0


@pytest.mark.parametrize("only_a, only_b", [(5, 0), (3, 0), (12, 3), (6, 5), (0, 7)])
def test_the_paired_test_is_mcnemars_exact_one(only_a: int, only_b: int) -> None:
    same = 10
    a = mean_of([1.0] * only_a + [0.0] * only_b + [1.0] * same)
    b = mean_of([0.0] * only_a + [1.0] * only_b + [1.0] * same)
    found = difference(a, b, alone(only_a + only_b + same))
    want = binom.sf(only_a - 1, only_a + only_b, 0.5)
    assert found.p_above(0.0) == pytest.approx(want, abs=0.02)


def test_a_bound_and_its_p_value_never_disagree() -> None:
    items, groups = demo_sized()
    for seed in range(20):
        worse, _ = demo_sized(seed=seed, right=0.75)
        a, b = catalog.measure("macro_f1", items), catalog.measure("accuracy", worse)
        b = catalog.measure("macro_f1", Items.of(items.targets, worse.answers, labels=LABELS))
        found = difference(a, b, Resampler.of(groups, resamples=1000, seed=seed))
        for confidence in (0.9, 0.95, 0.99):
            assert (found.lower(confidence) > 0) == (found.p_above(0.0) <= 1 - confidence + 1e-12)
            assert (found.upper(confidence) < 0) == (found.p_below(0.0) <= 1 - confidence + 1e-12)


def test_alike_items_in_groups_widen_the_interval() -> None:
    scores = [float(i % 5 > 0) for i in range(100) for _ in range(4)]  # four copies of each
    honest = spread(mean_of(scores), Resampler.of([str(i // 4) for i in range(400)], resamples=4000, seed=0))
    naive = spread(mean_of(scores), alone(400, resamples=4000))

    def width(s):
        return s.interval(0.95).high - s.interval(0.95).low

    assert 1.7 < width(honest) / width(naive) < 2.4  # half as many independent facts squared: twice as wide


def test_equal_arms_have_no_significant_difference_and_any_score_contains_itself() -> None:
    items, groups = demo_sized()
    sums = catalog.measure("macro_f1", items)
    resampler = Resampler.of(groups, resamples=500, seed=0)
    same = difference(sums, sums, resampler)
    assert same.value == 0.0 and same.p() > 0.5
    assert sign_flip(sums, sums, resampler) == 1.0
    found = spread(sums, resampler).interval(0.95)
    assert found.low <= found.value <= found.high


def test_the_seed_decides_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    items, groups = demo_sized()
    sums = catalog.measure("macro_f1", items)

    def run(seed: int) -> tuple[float, float]:
        found = spread(sums, Resampler.of(groups, resamples=500, seed=seed)).interval(0.95)
        return found.low, found.high

    first = run(7)
    assert run(7) == first and run(8) != first
    monkeypatch.setattr(statistics, "BLOCK", 1000)  # weights in many small blocks
    assert run(7) == pytest.approx(first, abs=1e-12)


def test_permutation_and_bootstrap_agree_on_a_clear_and_an_unclear_difference() -> None:
    items, groups = demo_sized(right=0.85)
    resampler = Resampler.of(groups, resamples=2000, seed=1)
    for other, clear in ((0.6, True), (0.84, False)):
        worse, _ = demo_sized(seed=0, right=other)
        a = catalog.measure("macro_f1", items)
        b = catalog.measure("macro_f1", Items.of(items.targets, worse.answers, labels=LABELS))
        assert (difference(a, b, resampler).p() < 0.01) == clear
        assert (sign_flip(a, b, resampler) < 0.01) == clear


def test_holm_against_a_worked_example() -> None:
    # 4 tests: 0.01·4, 0.015·3 → 0.045, 0.03·2 = 0.06, 0.04·1 → raised to 0.06
    assert holm([0.03, 0.01, 0.04, 0.015]) == pytest.approx([0.06, 0.04, 0.06, 0.045])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm_confidence([0.03, 0.01], 0.95) == pytest.approx([0.95, 0.975])


def test_a_whole_macro_f1_interval_takes_well_under_a_second() -> None:
    items, groups = demo_sized()
    start = time.perf_counter()
    found = spread(catalog.measure("macro_f1", items), Resampler.of(groups, resamples=2000, seed=0))
    assert time.perf_counter() - start < 0.5
    assert len(found.low) == 2000


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_resamples_to_finite_scores_in_its_range(name: str) -> None:
    texts = ["the quick brown fox", "jumps over the lazy dog", "again and again and again", "no"]
    targets = texts * 5
    said = ["the quick red fox", "jumps over a dog", "", "yes", "again"] * 4
    answers = [Answer(text=s, logprob=-5.0 - i % 3, answer_tokens=4) for i, s in enumerate(said)]
    sums: Sums = catalog.measure(name, Items.of(targets, answers))
    found = spread(sums, Resampler.of([str(i % 10) for i in range(20)], resamples=300, seed=0))
    for values in (found.low, found.high):
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= METRICS[name].highest
    interval = found.interval(0.9)
    assert interval.low <= interval.value <= interval.high
    assert interval.high > interval.low


def test_more_items_are_asked_for_with_the_square_of_the_distance() -> None:
    assert items_needed(0.76, 0.70, 0.73, 100) == 400  # half the distance: four times the items
    assert items_needed(0.76, 0.70, 0.80, 100) is None  # the wrong side: no number of items shows that
    assert items_needed(0.76, 0.70, 0.76, 100) is None


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(DataError, match="no items"):
        Resampler.of([], resamples=1000, seed=0)
    with pytest.raises(InputError, match="at least 100"):
        Resampler.of(["a"], resamples=10, seed=0)
    with pytest.raises(InputError, match="within reach of 100 resamples"):
        spread(mean_of([1.0, 0.0]), alone(2, resamples=100)).lower(0.999)
    assert math.isclose(statistics.resamples_for(0.999, 2, 100), 40_000)


def same_items(a: Sequence[float], b: Sequence[float]) -> tuple[Sums, Sums]:
    return mean_of(a), mean_of(b)


def test_a_paired_comparison_of_other_items_is_refused() -> None:
    a, b = same_items([1.0, 0.0], [1.0])
    with pytest.raises(DataError, match="same items"):
        difference(a, b, alone(2, resamples=100))
