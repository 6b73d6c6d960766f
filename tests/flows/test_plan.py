"""The plan says beforehand what a run will do, and what is there already."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project


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


def test_a_sweep_suggests_a_rate_and_is_kept(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make_project(tmp_path / "news", tiny_llama))
    found = project.lr(low=1e-4, high=1.0, steps=12)
    assert len(found.facts["rates"]) <= 12 and "1.00e-04" in str(found)
    assert project.lr(low=1e-4, high=1.0, steps=12).facts == found.facts
    assert [r.stage for r in project.runs(stage="lr_range")] == ["lr_range"]
