"""The tokens that are counted beforehand are those that a training reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tests.train import data
from tests.train.domain_data import asked_rows, make_texts, text_rows
from tunesmith.api import Project
from tunesmith.core.errors import DataError
from tunesmith.train.cost.reading import reading

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "template": {"template": "Which label does this have? {text}"},
    "wordings": {"templates": (("a", "{text}, please"),), "systems": (("b", "Say it in one word."),), "epochs": 2.5},
    "new tokens": {"new_tokens": ("prozent", "minuten")},
    "mixture": {"mixture": (("rows.csv", 0.5), ("general", 0.5))},
}


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_texts(tmp_path_factory.mktemp("general"), [*text_rows(6, seed=3), *asked_rows(4)], text_rows(2, seed=4))


@pytest.mark.parametrize("name", CASES)
def test_a_training_reads_what_was_counted(
    tmp_path: Path, dataset: Path, tiny_llama: Path, general: Path, name: str
) -> None:
    few = {"validate_times": 1, "metric": "", **CASES[name]}
    spec = replace(data.SPEC, **few)
    told = reading(spec, dataset, tiny_llama, general)
    work = data.train(tmp_path / "work", dataset, tiny_llama, general=general, **few)
    assert work.summary["tokens"] == told["trained"]
    assert 0 < told["answer_mean"] <= told["answer_longest"] < told["longest"] and told["mean"] <= told["longest"]


def test_it_is_another_number_than_the_plain_wording_has(dataset: Path, tiny_llama: Path) -> None:
    told = {n: reading(replace(data.SPEC, **c), dataset, tiny_llama, None) for n, c in CASES.items() if n != "mixture"}
    assert told["template"]["trained"] > told["plain"]["trained"] > told["new tokens"]["trained"]
    assert told["template"]["longest"] > told["plain"]["longest"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return Project.open(make_project(tmp_path_factory.mktemp("reading") / "news", tiny_llama, n=90))


WORDED = ["task.template='Of what kind is this: {text}'", "train.templates={a: 'Say it. {text}'}"]


def test_the_plan_is_of_the_wordings_and_the_run_reads_what_it_said(
    project: Project,
) -> None:
    plain = project.plan(probe=False)
    worded = Project.open(project.root, WORDED)
    planned = worded.plan(probe=False).training
    assert planned.tokens > 1.1 * plain.training.tokens
    made = worded.train()
    assert made.metrics["tokens"] == planned.tokens
    assert made.inputs["dataset"] == project.prepare().outputs["dataset"]  # a template makes no data set anew
    counted = [n["value"]["trained"] for n in project.ledger.notes("resolved") if n["what"] == "reading"]
    worded.plan(probe=False)
    again = [n for n in project.ledger.notes("resolved") if n["what"] == "reading"]
    assert counted == [planned.tokens] and len(again) == 1


def test_a_row_that_a_wording_makes_too_long_is_refused_by_the_plan(project: Project) -> None:
    long = Project.open(project.root, [f"task.template='{'word ' * 200}{{text}}'", "train.max_tokens=128"])
    with pytest.raises(DataError, match="128"):
        long.plan(probe=False)
