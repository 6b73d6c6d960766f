"""Variants of a label are suggested with their evidence, and real classes with near names are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.labels.variants import edits, suggest_variants


def pairs(rows: dict[str, int], declared: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    return {f["label"]: (f["suggested"], f["why"]) for f in suggest_variants(rows, declared)}


def test_case_spaces_and_slips_are_suggested() -> None:
    rows = {"sports": 400, "Sports": 30, " sports": 2, "real estate": 50, "real-estate": 3, "Sprots": 4, "sprts": 1}
    assert pairs(rows) == {
        "Sports": ("sports", "case"),
        " sports": ("sports", "spaces"),
        "real-estate": ("real estate", "spaces"),
        "Sprots": ("sports", "typo"),
        "sprts": ("sports", "typo"),
    }


@pytest.mark.parametrize(
    "one, other",
    [
        ("type 1", "type 2"),
        ("c", "c++"),
        ("c", "c#"),
        ("-1", "1"),
        ("1-2", "12"),
        ("1.5", "15"),
        ("hyperthermia", "hypothermia"),
        ("typical", "atypical"),
        ("cat", "car"),
        ("male", "female"),
        ("2019", "2018"),
        ("level 11", "level 1 1"),
    ],
)
def test_real_near_names_are_not_merged(one: str, other: str) -> None:
    assert pairs({one: 4000, other: 2}) == {} == pairs({other: 4000, one: 2})


def test_two_common_labels_and_two_declared_ones_are_never_variants() -> None:
    assert pairs({"sports": 300, "sport": 40}) == {}
    assert pairs({"sports": 300, "sport": 2}, ("sports", "sport")) == {}
    assert pairs({"Sports": 300, "sports": 2}, ("sports",)) == {"Sports": ("sports", "case")}


@pytest.mark.parametrize(
    "a, b, far",
    [("sprots", "sports", 1), ("sports", "sport", 1), ("kitten", "sitting", 3), ("", "ab", 2), ("ab", "ba", 1)],
)
def test_edits(a: str, b: str, far: int) -> None:
    assert edits(a, b, limit=5) == edits(b, a, limit=5) == far
    assert edits(a, b, limit=far - 1) is None


@given(st.dictionaries(st.text(max_size=8), st.integers(1, 1000), max_size=12))
def test_a_suggestion_is_about_another_label_that_is_there_and_order_has_no_say(rows: dict[str, int]) -> None:
    found = suggest_variants(rows)
    assert found == suggest_variants(dict(reversed(rows.items())))
    for f in found:
        assert f["label"] != f["suggested"] and f["suggested"] in rows
        assert rows[f["suggested"]] >= rows[f["label"]]
    assert len({f["label"] for f in found}) == len(found)
