"""Whole tasks held out: what the tuned model does with instructions it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.evaluate.built import make_answers, make_dataset, make_row, measured
from tunesmith.core.canonical import read_json
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.held_out import before_and_after, held_out_tasks
from tunesmith.evaluate.report import evaluate
from tunesmith.evaluate.stages import EvaluateInputs, EvaluateSpec


def rows_of(task: str, count: int, *, first: int = 0, column: bool = True) -> list[Row]:
    rows = []
    for i in range(first, first + count):
        row = make_row(f"{task}: item {i}", f"answer {i}", group=None if column else task, line=i + 1)
        rows.append(msgspec.structs.replace(row, fields={"task": f" {task}"}) if column else row)
    return rows


TRAIN = [*rows_of("translate", 5), *rows_of("sort", 5)]
TEST = [
    *rows_of("translate", 6, first=10),
    *rows_of("rhyme", 12),
    *rows_of("count", 12),
    *rows_of("joke", 1),
]


def said(better: dict[str, float]) -> list[str]:
    """Of each task the stated share of items is right, the first ones."""
    answers: list[str] = []
    for task in ("translate", "rhyme", "count", "joke"):
        of_task = [r for r in TEST if r.fields["task"].strip() == task]
        right = round(better[task] * len(of_task))
        answers += [r.target if i < right else "no" for i, r in enumerate(of_task)]
    return answers


BEFORE = said({"translate": 0.0, "rhyme": 0.0, "count": 1.0, "joke": 0.0})
AFTER = said({"translate": 1.0, "rhyme": 1.0, "count": 0.0, "joke": 1.0})


def facts(**changes: Any) -> dict[str, Any]:
    everything = measured(TEST, {"zero_shot": BEFORE, "tuned": AFTER}, kind="instruct", labels=(), **changes)
    return before_and_after(held_out_tasks(TRAIN, TEST), TEST, everything, "exact_match", confidence=0.95)


def test_tasks_without_a_training_row_are_held_out() -> None:
    assert {t: len(i) for t, i in held_out_tasks(TRAIN, TEST).items()} == {"count": 12, "joke": 1, "rhyme": 12}
    assert held_out_tasks(TRAIN, [make_row("a", "b")]) == {}


def test_groups_are_tasks_where_that_is_said() -> None:
    train, test = rows_of("translate", 3, column=False), rows_of("rhyme", 3, column=False)
    assert held_out_tasks(train, [*test, *train]) == {}
    assert held_out_tasks(train, [*test, *train], by_group=True) == {"rhyme": [0, 1, 2]}


def test_each_task_has_its_scores_before_and_after() -> None:
    found = facts()
    count, joke, rhyme = found["tasks"]
    assert (count["score_before"]["value"], count["score_after"]["value"]) == (1.0, 0.0)
    assert (rhyme["score_before"]["value"], rhyme["score_after"]["value"]) == (0.0, 1.0)
    assert rhyme["difference"]["low"] > 0.3 and count["difference"]["high"] < -0.3
    assert (found["improved"], found["worse"]) == (1, 1)
    assert joke["n"] == 1 and (joke["difference"]["low"], joke["difference"]["high"]) == (-1.0, 1.0)
    assert "p" not in joke


def test_all_tasks_together_are_resampled_by_task() -> None:
    found = facts()
    assert found["all"]["n"] == 25 and found["all"]["clusters"] == 3
    assert found["all"]["difference"]["value"] == pytest.approx((12 + 1 - 12) / 25)
    assert found["all"]["difference"]["low"] < -0.2 < 0.2 < found["all"]["difference"]["high"]
    assert found["trained"]["n"] == 6 and found["trained"]["difference"]["value"] == 1.0


def test_the_report_says_it_only_where_tasks_are_named(tmp_path: Path) -> None:
    spec = EvaluateSpec(metrics=("exact_match",), confidence=0.95, resamples=300, mistakes=3, seed=0)
    dataset = make_dataset(tmp_path / "d", TRAIN, [], TEST, kind="instruct", labels=())
    answers = {
        arm: make_answers(tmp_path / arm, arm, dataset, TEST, texts)
        for arm, texts in (("zero_shot", BEFORE), ("tuned", AFTER))
    }
    report = evaluate(spec, EvaluateInputs(dataset=dataset, answers=answers), Workspace(root=tmp_path / "w")).report
    found = read_json(report / "report.json", dict[str, Any])["held_out"]
    assert [t["task"] for t in found["tasks"]] == ["count", "joke", "rhyme"] and found["metric"] == "exact_match"

    plain = [make_row(f"q {i}", f"a {i}") for i in range(4)]
    other = make_dataset(tmp_path / "o", [], [], plain, kind="instruct", labels=())
    same = {arm: make_answers(tmp_path / f"o-{arm}", arm, other, plain, ["x"] * 4) for arm in ("zero_shot", "tuned")}
    report = evaluate(spec, EvaluateInputs(dataset=other, answers=same), Workspace(root=tmp_path / "w2")).report
    assert "held_out" not in read_json(report / "report.json", dict[str, Any])
