"""The stage dedup: stars round kept rows, stated policies, contradictions reviewed, templates left out."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.near.making import Deduped, families, jaccard, row, run_dedup, write_examples
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.data.near import templates as templates_module

LONG = "the customer reports that the printer on the third floor prints every page twice since the update"


def varied(i: int) -> str:
    return LONG.replace("third", f"floor{i}")


def deduped(root: Path, rows: list[Row], **changes: Any) -> Deduped:
    return run_dedup(root / "work", write_examples(root / "in", rows), **changes)


def policies() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "near": st.sampled_from([0.0, 0.5, 0.7, 0.9]),
            "keep": st.sampled_from(["first", "longest", "most_complete"]),
            "across": st.booleans(),
            "contradictions": st.sampled_from(["review", "leave_out"]),
            "kind": st.sampled_from(["classify", "instruct"]),
        }
    )


def rows_of(texts: list[str], rng: random.Random) -> list[Row]:
    files = ["b.jsonl", "a.jsonl"]
    return [
        row(text or "empty", rng.choice("ab"), line=i, file=rng.choice(files), fields={"x": rng.choice(["", "y"])})
        for i, text in enumerate(texts, start=1)
    ]


@settings(max_examples=12, deadline=None)
@given(families(20), policies(), st.randoms(use_true_random=False))
def test_rows_are_conserved_stars_hold_order_does_not_matter_and_twice_is_once(
    texts: list[str], policy: dict[str, Any], rng: random.Random
) -> None:
    rows = rows_of(texts, rng)
    by_place = {f"{r.file}:{r.line}": r for r in rows}
    compared = (lambda r: r.messages[0].content) if policy["kind"] == "classify" else (lambda r: f"{r.messages[0].content}\n{r.target}")  # fmt: skip
    with TemporaryDirectory() as name:
        root = Path(name)
        got = deduped(root / "1", rows, **policy)
        places = [f"{r.file}:{r.line}" for r in got.rows]
        assert sorted([*places, *got.reasons()]) == sorted(by_place)
        for cluster in got.clusters:
            kept = by_place[cluster["kept"]]
            if policy["contradictions"] == "review":
                assert cluster["kept"] in places
            for member, alike in zip(cluster["members"], cluster["similarity"], strict=True):
                other = by_place[member]
                assert member in got.reasons() and (policy["kind"] != "classify" or other.target == kept.target)
                assert alike == pytest.approx(jaccard(compared(kept), compared(other)), abs=1e-4)
                assert alike >= (policy["near"] or 1)
                assert policy["across"] or other.file == kept.file
        if policy["near"]:
            for i, one in enumerate(got.rows):
                for other in got.rows[i + 1 :]:
                    if (one.target == other.target or policy["kind"] != "classify") and (policy["across"] or one.file == other.file):  # fmt: skip
                        assert jaccard(compared(one), compared(other)) < policy["near"]
        again = run_dedup(root / "2", got.folder, **policy)
        assert again.rows == got.rows and not again.clusters
        shuffled = rng.sample(rows, len(rows))
        moved = deduped(root / "3", shuffled, **policy)
        assert sorted(f"{r.file}:{r.line}" for r in moved.rows) == sorted(places)
        assert moved.clusters == got.clusters and moved.review == got.review


def test_a_chain_does_not_run_away(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(60)]
    chain = [" ".join([*(f"v{k}" for k in range(i)), *words[i:]]) for i in range(40)]  # each like the next, ends unlike
    got = deduped(tmp_path, [row(text, line=i) for i, text in enumerate(chain, start=1)], near=0.8)
    assert len(got.rows) > 4
    for cluster in got.clusters:
        assert all(s >= 0.8 for s in cluster["similarity"])
    assert got.facts["left_out"] == {"near_duplicate": 40 - len(got.rows)}
    reason, detail = got.reasons()["r.jsonl:2"]
    assert reason == "near_duplicate" and detail.endswith("like r.jsonl:1, which is kept")


@pytest.mark.parametrize(
    "policy, kept",
    [
        ({"keep": "first"}, 1),
        ({"keep": "longest"}, 3),
        ({"keep": "newest", "newest_by": "at"}, 2),
        ({"keep": "most_complete"}, 4),
    ],
)
def test_which_row_of_a_cluster_is_kept_is_a_policy(tmp_path: Path, policy: dict[str, Any], kept: int) -> None:
    rows = [
        row(varied(1), line=1, fields={"at": "2024-01-01"}),
        row(varied(2), line=2, fields={"at": "2025-06-01T10:00:00Z"}),
        row(varied(3) + " again", line=3, fields={}),
        row(varied(4), line=4, fields={"at": "2023", "by": "x"}),
    ]
    assert deduped(tmp_path, rows, **policy).kept == [kept]


def test_contradictions_are_reviewed_and_both_stay(tmp_path: Path) -> None:
    rows = [row(varied(1), "hardware", line=1), row(varied(2), "software", line=2), row(varied(3), "software", line=3)]
    got = deduped(tmp_path, rows)
    assert got.kept == [1, 2]  # the third says what the second says
    (item,) = got.review
    assert item["queue"] == "contradiction" and item["kept"]["answer"] == "hardware"
    assert [(c["line"], c["answer"]) for c in item["contrary"]] == [(2, "software"), (3, "software")]
    assert item["contrary"][0]["similarity"] == pytest.approx(jaccard(varied(1), varied(2)), abs=1e-4)
    assert got.facts["contradictions"] == 2


def test_contradictions_can_be_refused_or_left_out(tmp_path: Path) -> None:
    rows = [row(varied(1), "hardware", line=1), row(varied(2), "software", line=2), row("quite another thing", line=3)]
    with pytest.raises(DataError, match=r"r\.jsonl:2: has another answer than r\.jsonl:1, which is 0\.\d\d like it"):
        deduped(tmp_path / "1", rows, contradictions="refuse")
    got = deduped(tmp_path / "2", rows, contradictions="leave_out")
    assert got.kept == [3] and got.facts["left_out"] == {"contradiction": 2} and not got.review


def test_without_near_equal_texts_are_found_after_cleaning(tmp_path: Path) -> None:
    rows = [row("Hello  World", line=1), row("hello world", line=2), row("hello world", "b", line=3), row("hello worlds", line=4)]  # fmt: skip
    got = deduped(tmp_path, rows, near=0.0)
    assert got.kept == [1, 3, 4] and got.reasons() == {"r.jsonl:2": ("duplicate", "says the same as r.jsonl:1, which is kept")}  # fmt: skip
    assert [c["line"] for c in got.review[0]["contrary"]] == [3]


def test_a_copy_of_a_row_that_is_near_another_belongs_to_that_one(tmp_path: Path) -> None:
    rows = [row(varied(1), line=1), row(varied(2), line=2), row(varied(2).upper(), line=3)]
    got = deduped(tmp_path, rows)
    assert got.kept == [1] and got.clusters == [
        {"kept": "r.jsonl:1", "members": ["r.jsonl:2", "r.jsonl:3"], "similarity": got.clusters[0]["similarity"]}
    ]
    assert got.reasons()["r.jsonl:3"][0] == "duplicate" and "r.jsonl:1, which is kept" in got.reasons()["r.jsonl:3"][1]


def test_where_several_answers_are_right_the_answer_is_compared_too(tmp_path: Path) -> None:
    rows = [
        row("write a poem", "roses are red and violets are blue and so are you", line=1),
        row("write a poem", "shall I compare thee to a summer day thou art more lovely", line=2),
    ]
    assert deduped(tmp_path, rows, kind="instruct").kept == [1, 2]


def letters(n: int, own: int, seed: int = 0) -> list[str]:
    """Form letters: the same 40 words round `own` words that differ."""
    rng = random.Random(seed)
    frame = [f"frame{i}" for i in range(40)]
    return [" ".join([*frame[:20], *(f"x{rng.randrange(10**6)}" for _ in range(own)), *frame[20:]]) for _ in range(n)]


def test_a_template_that_many_rows_share_does_not_make_them_copies(tmp_path: Path) -> None:
    rows = [row(text, line=i) for i, text in enumerate(letters(60, 6), start=1)]
    got = deduped(tmp_path / "1", rows, near=0.7)
    assert len(got.rows) == 60 and {t["rows"] for t in got.facts["templates"]} == {60}
    assert any(t["text"].startswith("frame0 frame1 frame2") for t in got.facts["templates"])
    counted = deduped(tmp_path / "2", rows, near=0.7, templates=False)
    assert len(counted.rows) == 1 and counted.facts["largest"][0]["rows"] == 60


def test_copies_that_differ_in_a_number_are_no_template(tmp_path: Path) -> None:
    rows = [row(text, line=i) for i, text in enumerate(letters(60, 1), start=1)]
    got = deduped(tmp_path, rows, near=0.7)
    assert len(got.rows) == 1 and got.facts["templates"] == []


def test_two_letters_with_one_content_are_copies_under_any_template(tmp_path: Path) -> None:
    texts = letters(60, 8)
    rows = [row(text, line=i) for i, text in enumerate([*texts, texts[5] + " regards"], start=1)]
    got = deduped(tmp_path, rows, near=0.7)
    assert list(got.reasons()) == ["r.jsonl:61"]


@pytest.mark.parametrize("near", [0.5, 0.7])
def test_templates_are_settled_so_that_a_second_run_finds_nothing(tmp_path: Path, near: float) -> None:
    rng = random.Random(2)
    texts = [t for seed in range(4) for t in letters(25, rng.randint(1, 9), seed)]
    texts += [t + f" tail{rng.randrange(3)}" for t in texts[:50]]
    rows = [row(text, line=i) for i, text in enumerate(texts, start=1)]
    got = deduped(tmp_path, rows, near=near)
    again = run_dedup(tmp_path / "again", got.folder, near=near)
    assert 0 < len(got.rows) < len(rows) and again.rows == got.rows


def test_templates_are_the_same_whatever_is_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [t for seed in range(3) for t in letters(30, 6, seed)]
    texts += [f"{t} tail{i % 3}" for i, t in enumerate(texts[:40])]
    rows = [row(text, line=i) for i, text in enumerate(texts, start=1)]
    whole = deduped(tmp_path / "whole", rows, near=0.7)
    monkeypatch.setattr(templates_module, "TAKEN", 7)
    monkeypatch.setattr(templates_module, "TALLIED", 100)
    parts = deduped(tmp_path / "parts", rows, near=0.7)
    assert whole.facts["template_shingles"] > 30 and parts.facts == whole.facts and parts.rows == whole.rows


def test_a_restored_row_stays(tmp_path: Path) -> None:
    rows = [row(varied(1), line=1), row(varied(2), line=2)]
    first = deduped(tmp_path / "1", rows)
    got = deduped(tmp_path / "2", rows, restored=(first.left_out[0].key,))
    assert got.kept == [1, 2] and got.facts["restored"] == [first.left_out[0].key]


def test_minhash_is_an_option(tmp_path: Path) -> None:
    rows = [row(varied(i), line=i) for i in range(1, 6)]
    assert deduped(tmp_path, rows, candidates="minhash", near=0.5).kept == [1]
