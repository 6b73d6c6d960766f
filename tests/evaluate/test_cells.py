"""Cells compared on validation: the arithmetic of the report, and noise called noise."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.canonical import canonical_json, write_atomic, write_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Answer
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.cells import compare_cells, compared, not_judged
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.stages import CellsInputs, CellsSpec
from tunesmith.metrics.statistics import holm

LABELS = ("a", "b", "c")
SPEC = CellsSpec(metric="macro_f1", confidence=0.95, resamples=2000, seed=0)


def measured(**rights: float) -> Measured:
    """Cells that are right on so great a share of 120 items in 60 groups."""
    targets = [LABELS[i % 3] for i in range(120)]
    answers = {}
    for name, share in rights.items():
        rng = random.Random(name)
        right = set(rng.sample(range(120), round(share * 120)))
        answers[name] = tuple(t if i in right else LABELS[(i + 1) % 3] for i, t in enumerate(targets))
    return Measured(
        kind="classify",
        targets=tuple(targets),
        groups=tuple(f"g{i // 2}" for i in range(120)),
        answers=answers,
        labels=LABELS,
        not_judged={},
        resamples=2000,
        seed=0,
    )


def test_scores_and_intervals_are_those_of_the_report() -> None:
    m = measured(good=0.9, bad=0.5)
    cells = compared(m, SPEC)
    for name, cell in cells.items():
        interval = m.spread(name, "macro_f1").interval(0.95)
        assert cell["score"] == pytest.approx({"value": interval.value, "low": interval.low, "high": interval.high})
    gap = m.difference("bad", "good", "macro_f1").interval(0.95)
    assert cells["bad"]["difference"] == pytest.approx({"value": gap.value, "low": gap.low, "high": gap.high})


def test_a_wide_gap_is_more_than_noise_and_a_narrow_one_is_not() -> None:
    cells = compared(measured(best=0.92, near=0.9, far=0.5), SPEC)
    assert cells["best"]["difference"] is None and cells["best"]["is_noise"]
    assert cells["near"]["is_noise"] and not cells["far"]["is_noise"]
    assert cells["far"]["difference"]["high"] < 0
    names = ["far", "near"]
    assert [cells[n]["p_holm"] for n in names] == pytest.approx(holm([cells[n]["p"] for n in names]))
    assert cells["near"]["p_holm"] >= cells["near"]["p"]


def test_many_cells_make_the_same_gap_harder_to_believe() -> None:
    few = compared(measured(best=0.92, other=0.82), SPEC)["other"]
    many = compared(measured(best=0.92, other=0.82, **{f"same{i}": 0.84 for i in range(8)}), SPEC)["other"]
    assert few["p"] == pytest.approx(many["p"], rel=0.2) and many["p_holm"] > few["p_holm"]


def test_equal_answers_have_no_difference_and_the_first_by_name_is_the_best() -> None:
    m = measured(b=0.8)
    twice = compared(
        Measured(**{**{f: getattr(m, f) for f in m.__dataclass_fields__}, "answers": {"b": m.answers["b"], "a": m.answers["b"]}}),
        SPEC,
    )  # fmt: skip
    assert twice["a"]["difference"] is None
    assert twice["b"]["difference"]["value"] == 0 and twice["b"]["is_noise"]


def write_answers(folder: Path, ids: list[str], *, split: str = "validation", seal: str = "s") -> Path:
    folder.mkdir(parents=True)
    write_lines(folder / "answers.jsonl", [{"id": i, **_plain(Answer(text="a", finish="stop"))} for i in ids])
    write_atomic(folder / "answers.json", canonical_json({"split": split, "seal": seal, "seconds": 1.0}))
    return folder


def _plain(answer: Answer) -> dict[str, Any]:
    from tunesmith.core.canonical import plain

    found: dict[str, Any] = plain(answer)
    return found


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"seal": "other"}, {"ids": ["0", "2"]}])
def test_answers_to_other_rows_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    rows = [
        {"id": str(i), "messages": [{"role": "user", "content": "x"}], "target": "a", "group": str(i),
         "file": "f", "line": i, "weight": 1.0}
        for i in range(3)
    ]  # fmt: skip
    write_lines(dataset / "validation.jsonl", rows)
    facts = {"kind": "classify", "labels": ["a", "b"], "not_judged": {}, "seal": "s"}
    write_atomic(dataset / "dataset.json", canonical_json(facts))
    ids = wrong.pop("ids", ["0", "1", "2"])
    good = write_answers(tmp_path / "good", ["0", "1", "2"])
    bad = write_answers(tmp_path / "bad", ids, **wrong)
    inputs = CellsInputs(dataset=dataset, answers={"good": good, "bad": bad})
    with pytest.raises(DataError, match="answers of bad") as refused:
        compare_cells(SPEC, inputs, Workspace(root=tmp_path / "work"))
    assert len(refused.value.problems) == 1


def test_classes_that_the_test_set_cannot_judge_are_not_judged_here() -> None:
    class R:
        target = "a"

    found = not_judged({"labels": ["a", "b", "c"], "not_judged": {"a": "2 rows"}}, [R()])  # type: ignore[list-item]
    assert found == {"a": "2 rows", "b": "no validation item", "c": "no validation item"}
