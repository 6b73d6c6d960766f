"""The plan says beforehand what a run will do, and what is there already."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.flows.plan import answer_tokens, validated_tokens


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return Project.open(make_project(tmp_path_factory.mktemp("plan") / "news", tiny_llama))


def test_a_plan_prints_every_stage_with_minutes_memory_and_disk(project: Project) -> None:
    plan = project.plan(probe=False)
    text = str(plan)
    assert plan.steps[0].name == "check" and plan.steps[0].cached
    assert not plan.steps[-1].cached
    for word in ("train", "answer tuned", "MiB of memory", "MiB of disk", "optimizer steps", "tokens/s"):
        assert word in text
    assert plan.seconds > 0


def test_before_training_it_says_whether_the_test_set_can_prove_a_goal(project: Project) -> None:
    impossible = Project.open(project.root, ["goals=[macro_f1 >= 0.999]"]).plan(probe=False)
    assert len(impossible.provable) == 1
    assert "0.999" in impossible.provable[0]
    assert impossible.provable != project.plan(probe=False).provable


def test_a_plan_trains_nothing(project: Project) -> None:
    project.plan(probe=False)
    assert not project.runs(stage="sft") and not project.runs(stage="answer")


def journey(kind: str, *, prompt: float, answer: float) -> Any:
    dataset = {"tokens": {"prompt": {"mean": prompt}, "answer": {"mean": answer}}, "labels": ["a", "b"]}
    return SimpleNamespace(dataset=dataset, context=SimpleNamespace(task=SimpleNamespace(kind=kind)))


def test_an_answer_costs_what_is_read_and_written_for_it() -> None:
    text = journey("domain", prompt=0.0, answer=300.0)
    assert answer_tokens(text, "tuned") == answer_tokens(text, "zero_shot") < 300.0, "reading is cheaper than training"
    asked = journey("instruct", prompt=60.0, answer=30.0)
    assert answer_tokens(text, "tuned") < answer_tokens(journey("instruct", prompt=0.0, answer=300.0), "tuned")
    assert answer_tokens(asked, "tuned") < answer_tokens(asked, "zero_shot"), "the base does not know where to stop"
    assert answer_tokens(asked, "tuned") == validated_tokens(asked), "validation writes the same answers"
    label = journey("classify", prompt=60.0, answer=5.0)
    assert validated_tokens(label) < answer_tokens(label, "tuned") < answer_tokens(label, "zero_shot")


def test_a_sweep_suggests_a_rate_and_is_kept(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make_project(tmp_path / "news", tiny_llama))
    found = project.lr(low=1e-4, high=1.0, steps=12)
    assert len(found.facts["rates"]) <= 12 and "1.00e-04" in str(found)
    assert project.lr(low=1e-4, high=1.0, steps=12).facts == found.facts
    assert [r.stage for r in project.runs(stage="lr_range")] == ["lr_range"]
