"""Groups of people: mentions, association with labels, and the swapped rows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.audit.making import row, rows_of, run_audit

from tunesmith.core.canonical import read_lines
from tunesmith.core.nouns import Message
from tunesmith.data.audit.bias import Mentions, benjamini_hochberg, counterfactuals, fisher, swap, terms_in, wilson
from tunesmith.data.audit.group_terms import GROUP_OF, SWAPS, TERMS


@settings(max_examples=100, deadline=None)
@given(*[st.integers(0, 60)] * 4)
def test_fisher_is_scipy_s(a: int, b: int, c: int, d: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert fisher(a, b, c, d) == pytest.approx(stats.fisher_exact([[a, b], [c, d]]).pvalue, abs=1e-9)


def test_a_large_table_is_tested_by_chi_square() -> None:
    stats = pytest.importorskip("scipy.stats")
    table = (30_200, 29_800, 41_000, 40_400)
    exact = stats.fisher_exact([table[:2], table[2:]]).pvalue
    assert fisher(*table) == pytest.approx(exact, rel=0.02)
    assert fisher(40_000, 10_000, 41_000, 40_400) < 1e-300
    assert fisher(900, 100, 41_000, 40_400) == pytest.approx(
        stats.fisher_exact([[900, 100], [41_000, 40_400]]).pvalue, rel=1e-6
    )


def test_benjamini_hochberg_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(0)
    p = [rng.random() ** 3 for _ in range(50)] + [0.0, 1.0, 0.01, 0.01]
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))
    assert benjamini_hochberg([]) == []


def test_wilson_is_the_published_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_associations_and_their_rows(tmp_path: Path) -> None:
    rng = random.Random(4)
    rows = []
    for i in range(300):
        who = "She" if i % 2 else "He"
        label = "nurse" if rng.random() < (0.9 if who == "She" else 0.2) else "engineer"
        rows.append((f"{who} worked here for {i} weeks", label))
    found = run_audit(tmp_path, rows_of(rows))
    facts = found.facts["bias"]
    assert facts["representation"]["gender"] == {"female": 150, "male": 150, "nonbinary": 0}
    assert facts["tested"] == 4 and len(facts["associations"]) == 4
    female = next(a for a in facts["associations"] if (a["group"], a["label"]) == ("female", "nurse"))
    assert female["low"] < female["rate"] < female["high"] and female["base_rate"] < female["low"]
    assert female["with_group"] == 150 and female["q"] < 1e-20
    lines = {f.line for f in found.of("bias") if f.what == "gender:female"}
    assert lines == {i for i, (text, _) in enumerate(rows, start=2) if text.startswith("She")}


def test_no_association_where_there_is_none(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = [(f"{'She' if rng.random() < 0.5 else 'He'} came {i}", rng.choice(["x", "y"])) for i in range(300)]
    assert not run_audit(tmp_path, rows_of(rows)).of("bias")


def test_too_few_mentions_are_not_tested() -> None:
    mentions = Mentions()
    for i in range(100):
        mentions.note([("religion", "sikh")] if i < 4 else [], "ab"[i % 2])
    assert mentions.associations() == []


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("She said her dad saw her.", "He said his mum saw him."),
        ("HE lost his keys; the keys are his.", "SHE lost her keys; the keys are hers."),
        ("The wife and Mr Smith", "The husband and Mrs Smith"),
        ("Young Muslims met Him", "Old Christians met Her"),
        ("I told her that it is late", "I told him that it is late"),
        ("herself, but not sheep, hero or other", "himself, but not sheep, hero or other"),
        ("nothing to swap", "nothing to swap"),
    ],
)
def test_swaps_keep_case_and_grammar(text: str, swapped: str) -> None:
    assert swap(text)[0] == swapped


def test_counterfactuals_are_pairs(tmp_path: Path) -> None:
    rows = rows_of([("He fixed his car", "a"), ("nobody here", "b"), ("he and she", "a")])
    (pair,) = counterfactuals(rows)
    assert pair["original"] == rows[0] and pair["swapped"].example.input == "She fixed her car"
    assert pair["swapped"].target == "a" and pair["swapped"].origin == "audit.counterfactual"
    assert pair["swapped"].id == pair["swapped"].example.id != rows[0].id and pair["dimensions"] == ["gender"]
    found = run_audit(tmp_path, rows)
    (written,) = read_lines(found.folder / "counterfactuals.jsonl")
    assert written["pair"] == pair["pair"] and found.facts["bias"]["counterfactuals"] == {"pairs": 1, "more": False}
    none = run_audit(tmp_path / "b", rows, max_counterfactuals=0)
    assert (none.folder / "counterfactuals.jsonl").read_text() == ""
    assert none.facts["bias"]["counterfactuals"] == {"pairs": 0, "more": True}


def test_only_user_turns_are_swapped() -> None:
    messages = (Message(role="system", content="She helps."), Message(role="user", content="Is he in?"))
    (pair,) = counterfactuals([row("", "He is.", messages=messages)])
    assert [m.content for m in pair["swapped"].messages] == ["She helps.", "Is she in?"]
    assert pair["swapped"].target == "He is."


def test_the_lists_are_of_one_piece() -> None:
    assert {w for groups in TERMS.values() for words in groups.values() for w in words} == set(GROUP_OF)
    assert set(SWAPS) <= set(GROUP_OF) and set(SWAPS.values()) <= set(GROUP_OF)
    for word, other in SWAPS.items():
        assert word != other and GROUP_OF[word][0][0] == GROUP_OF[other][0][0]
    assert [s.start for s in terms_in("his and HIS", ("gender", "male"))] == [0, 8]
