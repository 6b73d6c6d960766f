"""The report: right numbers, the same items for every arm, and refusal of anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from tests.evaluate.built import LABELS, class_rows, make_answers, make_dataset, make_report, make_row, say
from tunesmith.core.canonical import read_json, read_lines, write_lines
from tunesmith.core.errors import DataError, InputError, StorageError
from tunesmith.core.nouns import Answer
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.report import evaluate
from tunesmith.evaluate.stages import EvaluateInputs, EvaluateSpec

ROWS = class_rows(60, seed=1)
SPEC = EvaluateSpec(metrics=("macro_f1",), confidence=0.95, resamples=300, mistakes=5, seed=0)


def read(folder: Path) -> dict[str, Any]:
    return read_json(folder / "report.json")


def test_every_number_is_scikit_learns_and_lies_in_its_interval(tmp_path: Path) -> None:
    said = say(ROWS, lambda i: i % 4 > 0)
    said[5] = "no label at all"
    report = read(make_report(tmp_path / "r", ROWS, {"tuned": said, "majority": ["sports"] * 60}))
    truth = [r.target for r in ROWS]
    tuned = report["arms"]["tuned"]
    want = f1_score(truth, said, labels=LABELS, average="macro", zero_division=0)
    assert tuned["metrics"]["macro_f1"]["value"] == pytest.approx(want, abs=1e-9)
    precision, recall, f1, n = precision_recall_fscore_support(truth, said, labels=LABELS, zero_division=0)
    for k, row in enumerate(tuned["per_class"]):
        assert (row["label"], row["n"]) == (LABELS[k], n[k])
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx([precision[k], recall[k], f1[k]], abs=1e-9)
        assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    assert [sum(row) for row in tuned["confusion"]] == [20, 20, 20]
    assert sum(row[-1] for row in tuned["confusion"]) == 1  # unparseable
    for arm in report["arms"].values():
        for m in arm["metrics"].values():
            assert 0 <= m["low"] <= m["value"] <= m["high"] <= 1
    assert (report["n"], report["clusters"], report["judged"]) == (60, 30, list(LABELS))
    assert tuned["seconds"] == 1.5 and tuned["prompt_tokens"] == 10


def test_the_tuned_arm_is_compared_with_each_other_by_metric(tmp_path: Path) -> None:
    arms = {
        "tuned": say(ROWS, lambda i: i % 5 > 0),
        "majority": ["sports"] * 60,
        "tfidf": say(ROWS, lambda i: i % 4 > 0),
    }
    report = read(make_report(tmp_path / "r", ROWS, arms))
    assert [(p["a"], p["b"], p["metric"]) for p in report["paired"]] == [
        ("tuned", b, m) for m in ("macro_f1", "accuracy") for b in ("majority", "tfidf")
    ]
    by = {(p["b"], p["metric"]): p for p in report["paired"]}
    value = {arm: report["arms"][arm]["metrics"]["accuracy"]["value"] for arm in arms}
    assert by["tfidf", "accuracy"]["difference"]["value"] == pytest.approx(value["tuned"] - value["tfidf"])
    assert by["majority", "accuracy"]["p_holm"] < 0.02 < 0.2 < by["tfidf", "accuracy"]["p_holm"]
    assert all(p["p"] <= p["p_holm"] for p in report["paired"])


def test_baselines_alone_make_a_report(tmp_path: Path) -> None:
    report = read(make_report(tmp_path / "r", ROWS, {"majority": ["sports"] * 60}))
    assert report["paired"] == [] and report["mistakes"] == []


def test_the_same_answers_make_the_same_bytes(tmp_path: Path) -> None:
    arms = {"tuned": say(ROWS, lambda i: i % 5 > 0), "majority": ["sports"] * 60}
    one, two, other = (make_report(tmp_path / n, ROWS, arms, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert (one / "report.json").read_bytes() == (two / "report.json").read_bytes()
    assert (one / "report.json").read_bytes() != (other / "report.json").read_bytes()
    assert (one / "items.jsonl").read_bytes() == (other / "items.jsonl").read_bytes()


def test_classes_without_support_are_not_judged_and_say_why(tmp_path: Path) -> None:
    rows = [r for r in ROWS if r.target != "sports"]
    report = read(
        make_report(tmp_path / "r", rows, {"tuned": [r.target for r in rows]}, not_judged={"politics": "3 rows in all"})
    )
    assert report["judged"] == ["business"]
    assert report["not_judged"] == {"politics": "3 rows in all", "sports": "no test item"}
    assert [c["label"] for c in report["arms"]["tuned"]["per_class"]] == ["business"]
    assert report["arms"]["tuned"]["metrics"]["macro_f1"]["value"] == 1.0


def test_the_most_confident_mistakes_come_first_with_file_and_line(tmp_path: Path) -> None:
    said = [Answer(text=r.target, confidence=0.99) for r in ROWS]
    said[7] = Answer(text="sports", confidence=0.6)  # the truth is business
    said[2] = Answer(text="", confidence=0.9)
    report = read(make_report(tmp_path / "r", ROWS, {"tuned": said}))
    assert [(m["line"], m["answer"], m["confidence"]) for m in report["mistakes"]] == [(4, "", 0.9), (9, "sports", 0.6)]
    assert report["mistakes"][0]["file"] == "rows.csv" and report["mistakes"][0]["target"] == "politics"


def test_texts_are_measured_with_signatures_and_a_caution(tmp_path: Path) -> None:
    rows = [make_row(f"text {i}", "Мяч круглый" if i == 0 else f"summary number {i}", line=i + 1) for i in range(20)]
    said = [r.target for r in rows[:19]] + [""]
    report = read(
        make_report(
            tmp_path / "r", rows, {"tuned": said}, kind="summarize", labels=(), metrics=("rougeL", "bleu", "chrf")
        )
    )
    assert set(report["signatures"]) == {"rougeL", "bleu", "chrf"} and "tok:13a" in report["signatures"]["bleu"]
    assert report["notes"] == [
        "rougeL: 1 of 20 targets have no Latin letter or digit, and its reference tokenizer scores such texts 0; "
        "use rougeL_unicode"
    ]
    assert report["arms"]["tuned"]["metrics"]["rougeL"]["value"] == pytest.approx(18 / 20)
    assert [m["line"] for m in report["mistakes"]] == [1, 20]  # the lowest scores first
    assert "confusion" not in report["arms"]["tuned"]


def test_a_score_of_one_class_is_not_made_up_for_the_whole_set(tmp_path: Path) -> None:
    report = read(make_report(tmp_path / "r", ROWS, {"tuned": [r.target for r in ROWS]}, metrics=("f1", "accuracy")))
    assert report["metric_names"] == ["accuracy"]
    assert report["notes"] == [
        "f1 is not reported for the whole test set: f1 is the score of one class: name it as a slice, label=NAME"
    ]


def test_items_hold_every_arms_answer(tmp_path: Path) -> None:
    said = say(ROWS, lambda i: i > 3)
    items = list(read_lines(make_report(tmp_path / "r", ROWS, {"tuned": said, "tfidf": said[::-1]}) / "items.jsonl"))
    assert [i["id"] for i in items] == [r.id for r in ROWS]
    assert items[0]["answers"] == {
        "tuned": {"text": said[0], "confidence": 0.5},
        "tfidf": {"text": said[-1], "confidence": 0.5},
    }
    assert items[0]["input"] == ROWS[0].example.input and items[0]["group"] == "g1-0"


def run(tmp_path: Path, dataset: Path, **answers: Path) -> None:
    evaluate(SPEC, EvaluateInputs(dataset=dataset, answers=answers), Workspace(root=tmp_path / "w"))


def test_a_broken_seal_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [], [], ROWS)
    answers = make_answers(tmp_path / "a", "tuned", dataset, ROWS, ["sports"] * 60)
    write_lines(dataset / "test.jsonl", ROWS[:-1])
    with pytest.raises(StorageError, match="not the one that was sealed"):
        run(tmp_path, dataset, tuned=answers)


def test_answers_to_other_items_or_in_another_order_are_refused_all_at_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [], [], ROWS)
    other = make_dataset(tmp_path / "other", [], [], ROWS[1:])
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    with pytest.raises(DataError) as e:
        run(
            tmp_path,
            dataset,
            tuned=make_answers(tmp_path / "a", "tuned", dataset, swapped, ["sports"] * 60),
            tfidf=make_answers(tmp_path / "b", "tfidf", dataset, ROWS[:40], ["sports"] * 40),
            majority=make_answers(tmp_path / "c", "majority", other, ROWS, ["sports"] * 60),
            zero_shot=make_answers(tmp_path / "e", "tuned", dataset, ROWS, ["sports"] * 60),
        )
    text = str(e.value)
    assert "answers of tuned: 60 answers for 60 rows; they part at item 1" in text
    assert "answers of tfidf: 40 answers for 60 rows; they part at item 41" in text
    assert "answers of majority: they answer another test set" in text
    assert "answers of zero_shot: answers.json says they are of the arm tuned" in text


def test_no_arms_no_rows_and_a_wrong_metric_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [], [], ROWS)
    with pytest.raises(DataError, match="no arm has answered"):
        run(tmp_path, dataset)
    empty = make_dataset(tmp_path / "empty", [], [], [])
    with pytest.raises(DataError, match="the test set is empty"):
        run(tmp_path, empty)
    with pytest.raises(InputError, match="bleu cannot judge a classify task"):
        make_report(tmp_path / "r", ROWS, {"tuned": ["sports"] * 60}, metrics=("bleu",))
