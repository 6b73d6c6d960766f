"""Checkpoints kept beside the best are real ones: listed, evaluated, merged, trained on, and made in a process alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.cli.show import words
from tunesmith.core.nouns import Run

KEEP = ["train.keep=2", "train.keep_last=1", "train.validate_times=6", "evaluate.arms=[]"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return Project.open(make_project(tmp_path_factory.mktemp("kept") / "news", tiny_llama, n=90), KEEP)


@pytest.fixture(scope="module")
def run(project: Project) -> Run:
    return project.train()


def beside(run: Run) -> dict[str, str]:
    return {name: made for name, made in run.outputs.items() if name.startswith("kept-")}


def test_they_are_artifacts_of_the_run_and_listed_by_rank(project: Project, run: Run) -> None:
    kept = beside(run)
    assert set(kept) == {k["output"] for k in run.metrics["kept"]} and 1 <= len(kept) <= 2
    shown = words(project.show(run.id))
    table = words(project.ledger.run(run.id))
    assert [table.index(k["output"]) for k in run.metrics["kept"]] == sorted(table.index(name) for name in kept)
    for name, made in kept.items():
        artifact = project.ledger.find_artifact(made)
        assert artifact is not None and artifact.kind == "checkpoint"
        assert f"{name}: {made}" in shown and made[:12] in table
    again = project.train()
    assert again.reused and again.outputs == run.outputs


def test_one_is_evaluated_and_its_report_names_it(project: Project, run: Run) -> None:
    name, made = next(iter(beside(run).items()))
    evaluated = project.evaluate(made[:12])
    answers = project.ledger.run(project.ledger.made_by(evaluated.inputs["answers"]["tuned"]).id)
    assert answers.inputs["checkpoint"] == made
    gate = project.gate(made)
    page = project.report(next(r.id for r in project.ledger.runs(stage="gate")))
    text = page.path.read_text(encoding="utf-8")
    assert gate.goals and f"at step {name.removeprefix('kept-')} of" in text and "Kept beside the best" in text


def test_it_is_merged_with_the_best_and_trained_on_top_of(project: Project, run: Run) -> None:
    made = next(iter(beside(run).values()))
    merged = project.merge(run.outputs["checkpoint"], made, how="average")
    assert merged.inputs["checkpoints"] and merged.outputs["checkpoint"] not in run.outputs.values()
    on_top = Project.open(project.root, [*KEEP, f"train.start={made[:12]}", "train.epochs=0.5", "train.keep=1"]).train()
    assert on_top.inputs["start"] == made


@pytest.mark.slow  # 20 s, most of them imports
def test_a_process_of_its_own_makes_the_same(project: Project, run: Run, tmp_path: Path, tiny_llama: Path) -> None:
    other = Project.open(make_project(tmp_path / "news", tiny_llama, n=90), [*KEEP, "exec.isolate=true"]).train()
    assert {n: a for n, a in other.outputs.items() if n != "metrics"} == {
        n: a for n, a in run.outputs.items() if n != "metrics"
    }
