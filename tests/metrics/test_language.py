"""Perplexity and bits per byte: their formulas, and what their intervals do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Answer
from tunesmith.metrics.catalog import find, measure, score
from tunesmith.metrics.statistics import Resampler, difference, spread
from tunesmith.metrics.sums import Items

TEXTS = ["naïve", "a longer text of its own", "…"]
NATS, TOKENS = [7.0, 30.5, 2.25], [3, 6, 1]
ANSWERS = [Answer(text="", logprob=-n, answer_tokens=t) for n, t in zip(NATS, TOKENS, strict=True)]


def test_bits_per_byte_is_nats_over_ln_2_and_utf_8_bytes() -> None:
    bytes_ = 6 + 24 + 3
    assert score("bits_per_byte", TEXTS, ANSWERS) == pytest.approx(sum(NATS) / math.log(2) / bytes_)


def test_a_model_that_knows_nothing_of_bytes_needs_eight_bits_for_each() -> None:
    text = "any text at all"
    uniform = Answer(text="", logprob=-len(text) * math.log(256), answer_tokens=len(text))
    assert score("bits_per_byte", [text], [uniform]) == pytest.approx(8.0)
    assert score("perplexity", [text], [uniform]) == pytest.approx(256.0)


def test_perplexity_is_of_all_tokens_together() -> None:
    assert score("perplexity", TEXTS, ANSWERS) == pytest.approx(math.exp(sum(NATS) / sum(TOKENS)))


def test_answers_without_a_log_probability_are_refused() -> None:
    with pytest.raises(DataError, match="no log-probability"):
        score("bits_per_byte", TEXTS, ["", "", ""])
    with pytest.raises(DataError, match="no log-probability"):
        score("perplexity", TEXTS, [*ANSWERS[:2], Answer(text="")])
    with pytest.raises(DataError, match="every text is empty"):
        score("bits_per_byte", ["", "", ""], ANSWERS)


def test_both_are_better_when_lower_and_for_domain_tasks_only() -> None:
    for name in ("bits_per_byte", "perplexity"):
        assert not find(name, "domain").higher_is_better
        assert find(name).kinds == ("domain",)


def some(seed: int, groups: int, shift: float = 0.0) -> tuple[Items, list[str]]:
    """Documents in groups whose texts are alike; the true rate is 1.2 bits per byte + shift."""
    rng = np.random.default_rng(seed)
    texts, answers, names = [], [], []
    for g in range(groups):
        of_group = 1.2 + rng.normal(0, 0.15)
        for _ in range(int(rng.integers(1, 5))):
            size = int(rng.integers(50, 400))
            rate = of_group + shift + rng.normal(0, 0.05)
            texts.append("x" * size)
            answers.append(Answer(text="", logprob=-rate * math.log(2) * size, answer_tokens=size // 4))
            names.append(str(g))
    return Items.of(texts, answers), names


def test_the_bounds_cover_the_true_rate_as_often_as_they_say() -> None:
    """The lower and the upper 95 % bound each miss in about 5 % of 300 draws of 40 groups; the group is what varies."""
    too_high = too_low = 0
    for seed in range(300):
        items, names = some(seed, 40)
        found = spread(measure("bits_per_byte", items), Resampler.of(names, resamples=400, seed=0))
        too_high += found.lower(0.95) > 1.2
        too_low += found.upper(0.95) < 1.2
    assert too_high / 300 <= 0.09 and too_low / 300 <= 0.09
    assert too_high + too_low > 0  # bounds that never miss would say nothing


def test_a_paired_difference_shows_what_the_intervals_alone_hide() -> None:
    base, names = some(1, 40)
    tuned, _ = some(1, 40, shift=-0.03)
    resampler = Resampler.of(names, resamples=2000, seed=0)
    a, b = measure("bits_per_byte", tuned), measure("bits_per_byte", base)
    gap = difference(a, b, resampler)
    assert gap.value == pytest.approx(-0.03, abs=0.005)
    assert spread(a, resampler).upper(0.95) > spread(b, resampler).lower(0.95)
    assert gap.lower(0.95) < gap.value < gap.upper(0.95)
    assert gap.upper(0.95) < 0 and gap.p_below(0.0) < 0.01


def test_two_equal_models_are_rarely_told_apart() -> None:
    """Differences around 0 with the noise of items: the one-sided 5 % test rejects in about 5 % of 200 draws."""
    wrong = 0
    for seed in range(200):
        a, names = some(seed, 30)
        rng = np.random.default_rng(1000 + seed)
        moved = [
            Answer(text="", logprob=p + rng.normal(0, 0.02) * len(t), answer_tokens=n)
            for p, t, n in zip(a.logprobs, a.targets, a.tokens, strict=True)
        ]
        b = Items.of(a.targets, moved)
        gap = difference(
            measure("bits_per_byte", a), measure("bits_per_byte", b), Resampler.of(names, resamples=400, seed=0)
        )
        wrong += gap.p_below(0.0) <= 0.05
    assert 0 < wrong / 200 <= 0.1


def test_a_text_that_is_impossible_is_a_large_number_and_no_error() -> None:
    answers = [Answer(text="", logprob=-1e6, answer_tokens=1)]
    assert math.isfinite(score("perplexity", ["a"], answers))
