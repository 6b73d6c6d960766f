"""The stage approve: only what people approved, in their own words where they corrected it, and a reason for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.documents.making import Paired, run_documents, run_pairs, source
from tests.data.making import check_spec
from tunesmith.core.canonical import canonical_json, read_json, read_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.check import check
from tunesmith.data.documents.approve import Opinion, Said, approve, decide, queue_items
from tunesmith.data.documents.stages import ApproveInputs, ApproveSpec
from tunesmith.data.stages import CheckInputs

WORDS = "".join(f"term{i}\tthe definition of term{i}\n" for i in range(6))


@pytest.fixture
def made(tmp_path: Path) -> Paired:
    return run_pairs(tmp_path / "p", run_documents(tmp_path / "d", {"words.tsv": WORDS}).folder)


class Judge:
    """Writes judgments as the ledger keeps them."""

    def __init__(self, made: Paired) -> None:
        self.items = [p.id for p in made.pairs]
        self.said: list[dict[str, Any]] = []

    def says(self, i: int, verb: str, value: Any = None, *, by: str = "ann", reason: str = "") -> Judge:
        item = self.items[i] if i >= 0 else "another item"
        record = {"queue": "pairs", "item": item, "annotator": by, "verb": verb, "value": value, "reason": reason}
        self.said.append({**record, "id": f"j{len(self.said)}", "seconds": 1.5, "at": "2026-01-01T00:00:00Z"})
        return self


def run_approve(root: Path, made: Paired, judge: Judge | None, **changes: Any) -> Path:
    spec = ApproveSpec(**{"approval": "required", "group": "passage", **changes})
    judgments = None
    if judge is not None:
        lines = b"".join(canonical_json(j) + b"\n" for j in judge.said)
        judgments = source(root / "judgments", {"judgments.jsonl": lines})
    return approve(spec, ApproveInputs(pairs=made.folder, judgments=judgments), Workspace(root=root / "work")).made


def kept(folder: Path) -> list[tuple[str, str, str]]:
    return [(r["prompt"], r["completion"], r["approval"]) for r in read_lines(folder / "pairs.jsonl")]


def gone(folder: Path) -> list[tuple[str, str, str]]:
    return [(r["prompt"], r["reason"], r.get("detail", "")) for r in read_lines(folder / "left_out.jsonl")]


def test_only_what_was_approved_or_corrected_is_kept(tmp_path: Path, made: Paired) -> None:
    correction = {"prompt": "What does term1 mean?", "completion": "Better."}
    judge = Judge(made).says(0, "approve").says(1, "correct", correction).says(2, "reject", reason="wrong")
    judge.says(3, "skip", reason="unsure").says(4, "approve").says(4, "undo").says(-1, "approve")
    folder = run_approve(tmp_path / "a", made, judge)
    assert kept(folder) == [
        ("What is term0?", "the definition of term0", "approved"),
        ("What does term1 mean?", "Better.", "corrected"),
    ]
    assert gone(folder) == [
        ("What is term2?", "rejected", "wrong"),
        ("What is term3?", "waiting", "skipped by 1"),
        ("What is term4?", "waiting", "nobody has judged it"),
        ("What is term5?", "waiting", "nobody has judged it"),
    ]
    assert read_json(folder / "approve.json") == {
        "pairs": 6,
        "kept": {"approve": 1, "correct": 1},
        "left_out": {"rejected": 1, "waiting": 3},
        "judgments_of_other_items": 1,
    }


def test_the_last_verdict_counts_and_undo_brings_back_the_one_before(tmp_path: Path, made: Paired) -> None:
    judge = Judge(made).says(0, "reject").says(0, "approve").says(1, "approve").says(1, "reject").says(1, "undo")
    judge.says(2, "undo").says(2, "approve")
    assert [k[0] for k in kept(run_approve(tmp_path / "a", made, judge))] == [f"What is term{i}?" for i in range(3)]


def test_undo_takes_back_what_it_names(tmp_path: Path, made: Paired) -> None:
    judge = Judge(made).says(0, "reject").says(0, "skip").says(0, "undo", "j0").says(0, "approve")
    judge.says(1, "approve").says(1, "undo", "j4", by="bob").says(2, "approve").says(2, "undo", "j6")
    assert [k[0] for k in kept(run_approve(tmp_path / "a", made, judge))] == ["What is term0?", "What is term1?"]


def test_judgments_made_on_the_review_room_s_items_are_understood(tmp_path: Path, made: Paired) -> None:
    from tunesmith.review.items import pair_items

    judge = Judge(made)
    judge.items = [item.id for item in pair_items(made.folder, None)]
    assert [k[0] for k in kept(run_approve(tmp_path / "a", made, judge.says(2, "approve")))] == ["What is term2?"]


def test_who_disagrees_is_adjudicated(tmp_path: Path, made: Paired) -> None:
    judge = Judge(made)
    for i in range(5):
        judge.says(i, "approve").says(i, "reject", by="bob")
    judge.says(1, "adjudicate", {"verb": "approve"}, by="eve").says(2, "adjudicate", {"verb": "reject"}, by="eve")
    judge.says(3, "adjudicate", {"verb": "correct", "prompt": "P?", "completion": "C"}, by="eve")
    judge.says(0, "adjudicate", {"verb": "approve"}, by="eve").says(0, "undo", judge.said[-1]["id"], by="eve")
    judge.says(4, "skip", by="bob")
    folder = run_approve(tmp_path / "a", made, judge)
    assert kept(folder) == [
        ("What is term1?", "the definition of term1", "approved"),
        ("P?", "C", "corrected"),
        ("What is term4?", "the definition of term4", "approved"),
    ]
    assert gone(folder)[:2] == [
        ("What is term0?", "disagreement", "1 approve, 1 reject"),
        ("What is term2?", "rejected", ""),
    ]


def test_deterministic_pairs_may_pass_where_the_user_says_so(tmp_path: Path, made: Paired) -> None:
    folder = run_approve(tmp_path / "a", made, Judge(made).says(0, "reject"), approval="deterministic_free")
    assert len(kept(folder)) == 5
    assert {k[2] for k in kept(folder)} == {"not required"}
    assert len(kept(run_approve(tmp_path / "b", made, None, approval="deterministic_free"))) == 6
    with pytest.raises(DataError, match="6 wait"):
        run_approve(tmp_path / "c", made, None)


def test_every_unreadable_judgment_is_named_at_once(tmp_path: Path, made: Paired) -> None:
    judge = Judge(made).says(0, "label", "x").says(1, "correct", "text").says(2, "correct", {"prompt": "", "x": 1})
    judge.says(3, "adjudicate", {"verb": "maybe"}).says(4, "adjudicate", {"verb": "correct", "prompt": "only"})
    with pytest.raises(DataError) as e:
        run_approve(tmp_path / "a", made, judge)
    assert [p.where for p in e.value.problems] == [f"judgments.jsonl:{i}" for i in range(1, 6)]


VERBS = st.sampled_from(["approve", "reject", "skip"])


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(VERBS, min_size=1, max_size=3), max_size=4), st.booleans())
def test_who_speaks_first_does_not_matter(said: dict[str, list[str]], free: bool) -> None:
    def opinions(order: list[str]) -> dict[str, Opinion]:
        return {who: Opinion([Said(verb) for verb in said[who]]) for who in order}

    outcome = decide(opinions(sorted(said)), free=free)
    assert outcome == decide(opinions(sorted(said, reverse=True)), free=free)
    last = {verbs[-1] for verbs in said.values()} - {"skip"}
    if last == {"approve"}:
        assert outcome.verdict == "approve"
    elif "reject" in last:
        assert outcome.verdict != "approve"
    else:
        assert outcome.verdict == ("free" if free else "wait")


def test_the_queue_has_every_pair_with_its_source(made: Paired) -> None:
    items = list(queue_items(made.folder))
    assert [i["id"] for i in items] == [p.id for p in made.pairs]
    assert items[0]["kind"] == "pair"
    assert items[0]["prompt"] == "What is term0?"
    assert items[0]["source"] == {
        "passage": made.pairs[0].source.passage,
        "file": "words.tsv",
        "page": None,
        "heading": ["term0"],
    }
    assert canonical_json(items)


@pytest.mark.parametrize(("group", "groups"), [("passage", 6), ("heading", 6), ("document", 1)])
def test_check_reads_what_was_approved(tmp_path: Path, made: Paired, group: str, groups: int) -> None:
    folder = run_approve(tmp_path / "a", made, None, approval="deterministic_free", group=group)
    only = source(tmp_path / "only", {"pairs.jsonl": (folder / "pairs.jsonl").read_bytes()})
    spec = check_spec(kind="instruct", group="group")
    rows = check(spec, CheckInputs(source=only), Workspace(root=tmp_path / "k")).examples / "rows.jsonl"
    read = list(read_lines(rows, Row))
    assert [(r.example.input, r.target) for r in read] == [(p.prompt, p.completion) for p in made.pairs]
    assert len({r.group for r in read}) == groups
