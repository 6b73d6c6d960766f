"""What people said in a room is what the stages read from a snapshot of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.review.rooms import LABELS, Memory, asked, room, rules, say
from tunesmith.core.canonical import read_lines, write_lines
from tunesmith.core.errors import InputError
from tunesmith.core.stage import Workspace
from tunesmith.review.items import pair_items
from tunesmith.review.queues import Queue
from tunesmith.review.room import Room


@pytest.mark.parametrize("seed", range(5))
def test_the_label_stage_reads_the_votes_that_stand_in_the_room(tmp_path: Path, seed: int) -> None:
    from tunesmith.data.labels.judged import read_judgments

    rng, journal = random.Random(seed), Memory()
    room_ = room(30, journal=journal, overlap=0.6)
    for _ in range(150):
        who = rng.choice(["ann", "ben", "cy"])
        items, recent = asked(room_, who), room_.recent(who, "labels", 1)
        disputes = room_.ask_disputes("olga", "labels")["items"]
        try:
            if rng.random() < 0.2 and recent:
                say(room_, who, "undo", recent[0]["item"], recent[0]["id"])
            elif rng.random() < 0.2 and disputes:
                say(room_, "olga", "adjudicate", disputes[0]["id"], rng.choice(LABELS))
            elif rng.random() < 0.1 and (mine := room_.recent("olga", "labels", 1)):
                say(room_, "olga", "undo", mine[0]["item"], mine[0]["id"])
            elif rng.random() < 0.1 and items:
                say(room_, who, "skip", items[0], reason="unclear")
            elif items:
                say(room_, who, "label", items[0], rng.choice(LABELS))
        except InputError as e:
            assert "adjudicated this item since" in str(e)
    write_lines(tmp_path / "judgments.jsonl", journal.kept)
    standing = read_judgments(tmp_path, ("labels",))
    queue = room_._queues["labels"]
    votes = {(queue.items[p].id, who, j.value) for p, said in queue._verdicts.items() for who, j in said.items()}
    assert set(standing.votes) == votes and len(votes) > 20
    assert standing.adjudicated == {queue.items[p].id: j.value for p, j in queue._rulings.items()}
    assert standing.undone == sum(j["verb"] == "undo" for j in journal.kept) and standing.replaced == 0
    assert sum(standing.skipped.values()) == sum(len(s) for s in queue._skips.values())


def test_the_approve_stage_keeps_what_was_approved_corrected_and_ruled(tmp_path: Path) -> None:
    from tunesmith.data.documents.approve import approve
    from tunesmith.data.documents.records import Pair, Source, pair_id
    from tunesmith.data.documents.stages import ApproveInputs, ApproveSpec

    source = Source(passage="p", file="m.pdf", page=1, heading=())
    texts = [(f"What is {n}?", f"{n} is a number") for n in range(6)]
    made = [
        Pair(id=pair_id(*t), prompt=t[0], completion=t[1], source=source, how="faq", support={"copied": True})
        for t in texts
    ]
    write_lines(tmp_path / "pairs.jsonl", made)
    write_lines(tmp_path / "passages.jsonl", [{"id": "p", "text": "numbers"}])
    journal = Memory()
    queue = Queue(
        rules(name="pairs", kind="pair", labels=(), order="listed", overlap=1.0), pair_items(tmp_path, tmp_path)
    )
    room_ = Room("r", [queue], journal)
    fixed = {"prompt": "What is it?", "completion": "A number."}

    def both(n: int, *said: tuple[str, Any]) -> None:
        for who, (verb, value) in zip(("ann", "ben"), said, strict=True):
            say(room_, who, verb, made[n].id, value, queue="pairs")

    both(0, ("approve", None), ("approve", None))
    both(1, ("reject", None), ("reject", None))
    both(2, ("correct", fixed), ("correct", fixed))
    both(3, ("approve", None), ("reject", None))
    both(4, ("approve", None), ("reject", None))
    say(room_, "olga", "adjudicate", made[3].id, {"verb": "approve"}, queue="pairs")
    ruling = say(room_, "olga", "adjudicate", made[4].id, {"verb": "correct", **fixed}, queue="pairs")
    say(room_, "olga", "undo", made[4].id, ruling["id"], queue="pairs")
    judgments = tmp_path / "judgments"
    judgments.mkdir()
    write_lines(judgments / "judgments.jsonl", journal.kept)
    spec = ApproveSpec(approval="required", group="passage")
    out = approve(spec, ApproveInputs(pairs=tmp_path, judgments=judgments), Workspace(root=tmp_path / "work"))
    kept = {r["pair"]: (r["prompt"], r["completion"]) for r in read_lines(out.made / "pairs.jsonl")}
    assert kept == {
        made[0].id: texts[0],
        made[2].id: ("What is it?", "A number."),
        made[3].id: texts[3],
    }
    reasons = {r["prompt"]: r["reason"] for r in read_lines(out.made / "left_out.jsonl")}
    assert reasons == {texts[1][0]: "rejected", texts[4][0]: "disagreement", texts[5][0]: "waiting"}
