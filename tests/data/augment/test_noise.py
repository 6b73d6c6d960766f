"""Noise that people make: words stay readable, numbers and answers stay as they are, chance comes from outside."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.augment.test_augment import SPORTS
from tunesmith.data.augment.balance import class_weights, factors, repeats, times
from tunesmith.data.augment.nearness import Forbidden, shingles
from tunesmith.data.augment.noise import NEIGHBOURS, NOISES, case, layout, typos
from tunesmith.data.augment.paraphrase import unusable
from tunesmith.data.labels.variants import edits


def test_neighbours_are_those_of_the_keyboard() -> None:
    assert set(NEIGHBOURS["s"]) == set("aweqdzx") - {"q"}
    assert set(NEIGHBOURS["q"]) == set("wa")
    assert all(a in NEIGHBOURS[b] for a, near in NEIGHBOURS.items() for b in near)


@given(st.text(max_size=60), st.sampled_from(sorted(NOISES)), st.floats(0.01, 1), st.integers())
def test_the_same_chance_gives_the_same_noise(text: str, kind: str, rate: float, seed: int) -> None:
    assert NOISES[kind](text, rate, Random(seed)) == NOISES[kind](text, rate, Random(seed))


@given(st.lists(st.sampled_from(SPORTS), min_size=1, max_size=12), st.floats(0.01, 1), st.integers())
def test_a_typo_is_one_slip_in_each_touched_word_and_as_many_as_asked_for(
    words: list[str], rate: float, seed: int
) -> None:
    got = typos(" ".join(words), rate, Random(seed)).split(" ")
    far = [edits(a, b, limit=1) for a, b in zip(words, got, strict=True)]
    assert None not in far
    assert sum(map(bool, far)) <= max(1, round(rate * len(words)))
    assert all(a[0] == b[0] for a, b in zip(words, got, strict=True))


def test_numbers_addresses_and_the_words_of_an_answer_stay() -> None:
    text = "Please send order AB1234 of 12 May to someone@example.org before Friday-evening, says Contoso."
    for seed in range(50):
        got = typos(text, 1.0, Random(seed), kept={"contoso", "friday"})
        assert {"AB1234", "12", "someone@example.org", "Contoso.", "Friday-evening,"} <= set(got.split())
        assert got != text
    assert typos("東京タワー 12 a of", 1.0, Random(0)) == "東京タワー 12 a of"


def test_case_and_layout_touch_nothing_else() -> None:
    text = "The goal, in the last minute: “what a match”. End"
    for seed in range(30):
        assert case(text, 1.0, Random(seed)).casefold() == text.casefold()
        letters = [c for c in layout(text, 0.5, Random(seed)) if c.isalpha()]
        assert letters == [c for c in text if c.isalpha()]


def test_nearness_is_exact_jaccard_of_word_triples() -> None:
    one, other = "the cat sat on the mat today", "the cat sat on the mat yesterday"
    forbidden = Forbidden.of([("test:a:1", one), ("test:a:2", "something else entirely")])
    a, b = shingles(one), shingles(other)
    similarity, name = forbidden.nearest(other)
    assert (similarity, name) == (len(a & b) / len(a | b), "test:a:1")
    assert forbidden.nearest("THE cat,  sat on the mat today!") == (1.0, "test:a:1")
    assert forbidden.nearest("nothing shared here") == (0.0, "")
    assert forbidden.nearest("?!") == (0.0, "")
    assert len(shingles("東京タワーは高い")) == 6
    assert len(shingles("hi there")) == 1


def test_factors_bring_classes_up_to_the_commonest_within_the_limit() -> None:
    rows = {"a": 100, "b": 50, "c": 1}
    assert factors(rows, most=10) == {"a": 1.0, "b": 2.0, "c": 10}
    weights = class_weights(rows, most=10)
    assert sum(weights[c] * n for c, n in rows.items()) == pytest.approx(151)
    assert repeats(rows, most=10) == {"a": 0, "b": 50, "c": 9}


@given(st.integers(1, 50), st.integers(0, 300))
def test_repeats_are_shared_out_evenly_and_none_is_lost(rows: int, added: int) -> None:
    got = [times(place, rows, added) for place in range(rows)]
    assert sum(got) == added and max(got) - min(got) <= 1


@pytest.mark.parametrize(
    "copy, reason",
    [
        ("", "empty"),
        ("the invoice of 12 may is late.", "unchanged"),
        ("late", "length"),
        ("on 13 May the invoice was late", "numbers"),
        ("the bill of 12 May is overdue", "answer_lost"),
        ("late is what the invoice of 12 May is", None),
    ],
)
def test_a_paraphrase_that_cannot_stand_for_its_original(copy: str, reason: str | None) -> None:
    found = unusable("The invoice of 12 May is late", copy, answer="the invoice")
    assert (found and found[0]) == reason
