"""Small data sets, answers and reports in the folders that the stages read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, file_id, plain, read_json, write_atomic, write_lines
from tunesmith.core.nouns import Answer, Example, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.report import evaluate
from tunesmith.evaluate.stages import EvaluateInputs, EvaluateSpec

LABELS = ("business", "politics", "sports")
WORDS = {
    "business": ["share", "profit", "market", "bank", "trade"],
    "politics": ["vote", "law", "minister", "party", "state"],
    "sports": ["ball", "game", "goal", "team", "race"],
}


def make_row(text: str, target: str, *, group: str | None = None, line: int = 1) -> Row:
    example = Example(messages=(Message(role="user", content=text),), target=target)
    return Row(
        id=example.id, messages=example.messages, target=target, file="rows.csv", line=line, group=group or example.id
    )


def class_rows(count: int, seed: int, labels: Sequence[str] = LABELS, group_size: int = 2) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        label = labels[(i // group_size) % len(labels)]
        text = " ".join(rng.choices(WORDS[label], k=3)) + f" number {seed}-{i}"
        rows.append(make_row(text, label, group=f"g{seed}-{i // group_size}", line=i + 2))
    return rows


def make_dataset(
    folder: Path,
    train: Sequence[Row],
    validation: Sequence[Row],
    test: Sequence[Row],
    *,
    kind: str = "classify",
    labels: Sequence[str] = LABELS,
    not_judged: Mapping[str, str] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    splits = {"train": train, "validation": validation, "test": test}
    for name, rows in splits.items():
        write_lines(folder / f"{name}.jsonl", rows)
    facts = {
        "kind": kind,
        "labels": list(labels),
        "counts": {name: len(rows) for name, rows in splits.items()},
        "not_judged": dict(not_judged or {}),
        "seal": file_id(folder / "test.jsonl"),
    }
    write_atomic(folder / "dataset.json", canonical_json(facts))
    return folder


def make_answers(folder: Path, arm: str, dataset: Path, rows: Sequence[Row], answers: Sequence[Any]) -> Path:
    """`answers` are texts or Answers."""
    folder.mkdir(parents=True)
    nouns = [a if isinstance(a, Answer) else Answer(text=a, confidence=0.5) for a in answers]
    write_lines(folder / "answers.jsonl", [{"id": r.id, **plain(a)} for r, a in zip(rows, nouns, strict=True)])
    seal = read_json(dataset / "dataset.json", dict[str, Any])["seal"]
    head = {"arm": arm, "split": "test", "labels": list(LABELS), "seal": seal, "seconds": 1.5, "prompt_tokens": 10}
    head |= {"answer_tokens": 5, "choice": {}, "renderer": None}
    write_atomic(folder / "answers.json", canonical_json(head))
    return folder


def say(rows: Sequence[Row], right: Callable[[int], bool], labels: Sequence[str] = LABELS) -> list[str]:
    """The target where `right(i)`, else the next label."""
    return [r.target if right(i) else labels[(labels.index(r.target) + 1) % len(labels)] for i, r in enumerate(rows)]


def make_report(folder: Path, rows: Sequence[Row], arms: Mapping[str, Sequence[Any]], **changes: Any) -> Path:
    """Runs the stage on a data set whose test rows are `rows`; `changes` go to the spec or to make_dataset."""
    of_spec = {
        k: changes.pop(k) for k in list(changes) if k in ("metrics", "confidence", "resamples", "mistakes", "seed")
    }
    dataset = make_dataset(folder / "dataset", [], [], rows, **changes)
    answers = {arm: make_answers(folder / f"answers-{arm}", arm, dataset, rows, texts) for arm, texts in arms.items()}
    values = {"metrics": ("macro_f1", "accuracy"), "confidence": 0.95, "resamples": 400, "mistakes": 5, "seed": 0}
    spec = EvaluateSpec(**{**values, **of_spec})
    return evaluate(spec, EvaluateInputs(dataset=dataset, answers=answers), Workspace(root=folder / "work")).report


def measured(rows: Sequence[Row], arms: Mapping[str, Sequence[str]], **changes: Any) -> Measured:
    values: dict[str, Any] = {
        "kind": "classify",
        "targets": tuple(r.target for r in rows),
        "groups": tuple(r.group for r in rows),
        "answers": {arm: tuple(texts) for arm, texts in arms.items()},
        "labels": LABELS,
        "not_judged": {},
        "resamples": 400,
        "seed": 0,
    }
    return Measured(**{**values, **changes})
