"""Sampling is a pure function of scores and a generator, and draws from the distribution it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import InputError
from tunesmith.model.sampling import nucleus, sample, top_logprobs

SCORES = torch.tensor([1.0, 3.0, 2.0, -1.0, 3.0, float("-inf")])


def test_temperature_zero_is_the_first_of_the_largest() -> None:
    assert sample(SCORES, temperature=0.0, top_p=0.1, generator=None) == 1


def test_the_same_generator_state_gives_the_same_token() -> None:
    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [sample(SCORES, temperature=1.0, top_p=0.95, generator=generator) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8), (1.0, 0.5)])
def test_frequencies_are_the_probabilities(temperature: float, top_p: float) -> None:
    generator, n = torch.Generator().manual_seed(0), 20_000
    counts = torch.zeros(len(SCORES))
    for _ in range(n):
        counts[sample(SCORES, temperature=temperature, top_p=top_p, generator=generator)] += 1
    want = torch.zeros(len(SCORES))
    probabilities, ids = nucleus(SCORES, temperature=temperature, top_p=top_p)
    want[ids] = probabilities.float()
    assert float((counts / n - want).abs().max()) < 0.015
    assert counts[5] == 0, "a token of probability 0 was drawn"


@settings(max_examples=60)
@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30),
    st.floats(0.05, 5),
    st.floats(0.01, 1),
)
def test_the_nucleus_is_the_smallest_likely_set(scores: list[float], temperature: float, top_p: float) -> None:
    whole = torch.softmax(torch.tensor(scores, dtype=torch.float32).double() / temperature, -1)
    probabilities, ids = nucleus(torch.tensor(scores), temperature=temperature, top_p=top_p)
    assert float(probabilities.sum()) == pytest.approx(1)
    mass = float(whole[ids].sum())
    assert mass >= min(top_p, 1) - 1e-9
    if top_p < 1:
        assert mass - float(whole[ids].min()) < top_p + 1e-9, "one token fewer would have been enough"
        left = [i for i in range(len(scores)) if i not in set(ids.tolist())]
        assert all(whole[i] <= whole[ids].min() + 1e-12 for i in left)


def test_a_wide_nucleus_is_found_in_a_large_vocabulary() -> None:
    flat = torch.zeros(5000)
    probabilities, _ = nucleus(flat, temperature=1.0, top_p=0.9)
    assert len(probabilities) == pytest.approx(4500, abs=1)


def test_top_logprobs_are_in_falling_order() -> None:
    logprobs = torch.log_softmax(torch.tensor([0.5, 2.0, -1.0, 1.0]), -1)
    found = top_logprobs(logprobs, 3)
    assert [i for i, _ in found] == [1, 3, 0]
    assert [v for _, v in found] == pytest.approx([float(logprobs[i]) for i in (1, 3, 0)])
    assert len(top_logprobs(logprobs, 99)) == 4


@pytest.mark.parametrize(
    ("temperature", "top_p", "name"), [(-1.0, 1.0, "temperature"), (1.0, 0.0, "top_p"), (1.0, 1.5, "top_p")]
)
def test_impossible_values_are_refused(temperature: float, top_p: float, name: str) -> None:
    with pytest.raises(InputError, match=name):
        sample(SCORES, temperature=temperature, top_p=top_p, generator=torch.Generator())
