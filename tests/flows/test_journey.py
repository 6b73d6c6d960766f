"""The journey as a whole, on a tiny real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    folder = make_project(tmp_path_factory.mktemp("journey") / "news", tiny_llama)
    project = Project.open(folder)
    project.result = project.run()  # type: ignore[attr-defined]
    return project


def test_a_run_goes_from_the_raw_file_to_a_verdict_and_a_page(project: Project) -> None:
    result = project.result  # type: ignore[attr-defined]
    assert [s.name for s in result.steps] == [
        "check", "clean", "prepare", "answer majority", "answer tfidf", "answer zero_shot", "answer few_shot",
        "train", "answer tuned", "evaluate", "gate", "bundle",
    ]  # fmt: skip
    assert result.verdict.status in ("pass", "fail", "unproven")
    page = Path(result.report).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "torch 2." in page and "seed 0" in page


def test_a_second_run_repeats_nothing(project: Project) -> None:
    again = Project.open(project.root).run()
    assert all(s.reused for s in again.steps)
    assert again.bundle == project.result.bundle  # type: ignore[attr-defined]


def test_moving_a_threshold_never_retrains(project: Project) -> None:
    moved = Project.open(project.root, ["goals=[macro_f1 >= 0.2]"]).run()
    assert {s.name for s in moved.steps if not s.reused} <= {"gate", "bundle"}


def test_changing_the_rate_repeats_training_and_what_follows(project: Project) -> None:
    changed = Project.open(project.root, ["train.lr=5e-3"])
    cached = {s.name for s in changed.plan().steps if s.cached}
    assert cached == {
        "check", "clean", "prepare", "answer majority", "answer tfidf", "answer zero_shot", "answer few_shot",
    }  # fmt: skip
    result = changed.run()
    assert {s.name for s in result.steps if not s.reused} == {"train", "answer tuned", "evaluate", "gate", "bundle"}


def test_only_a_pass_moves_prod(project: Project) -> None:
    before = project.ledger.reference("prod")
    failed = Project.open(project.root, ["goals=[macro_f1 >= 0.999]"]).run()
    assert failed.verdict.status != "pass"
    assert failed.exit_code in (1, 3)
    assert Project.open(project.root).ledger.reference("prod") == before
    assert f"tunesmith serve --model {failed.bundle[:12]}" in str(failed)


def test_a_proof_of_concept_goes_to_the_gate_and_forecasts_the_whole(project: Project) -> None:
    before = project.ledger.reference("prod")
    result = Project.open(project.root).run(limit=60)
    assert sum(1 for s in result.steps if s.name == "bundle") == 1
    assert "forecast" in result.forecast
    assert Project.open(project.root).ledger.reference("prod") == before


def test_every_look_at_the_test_set_is_counted(project: Project) -> None:
    looks = project.report().facts["looks"]
    assert looks["by_arm"]["tuned"] == looks["tuned"] >= 1
    assert looks["total"] == sum(looks["by_arm"].values()) >= 5
    assert set(looks["by_arm"]) == {"majority", "tfidf", "zero_shot", "few_shot", "tuned"}


def test_the_served_answer_is_the_evaluated_answer(project: Project) -> None:
    import json

    bundle = project.result.bundle  # type: ignore[attr-defined]
    run = next(r for r in project.ledger.runs(stage="evaluate") if r.status == "finished")
    items = project.ledger.path(run.outputs["report"]) / "items.jsonl"
    item = json.loads(items.read_text(encoding="utf-8").splitlines()[0])
    tuned = next(r for r in project.ledger.runs(stage="answer") if r.spec["arm"] == "tuned")
    assert tuned
    answer = project.ask(item["input"], model=bundle)
    assert answer.text in ("sports", "business", "weather")
    assert (
        answer.text == item["answers"]["tuned"]["text"]
        or abs(answer.confidence - item["answers"]["tuned"]["confidence"]) < 1e-4
    )


def test_lineage_leads_back_to_the_raw_file(project: Project) -> None:
    text = str(project.lineage(project.result.bundle))  # type: ignore[attr-defined]
    assert "source" in text and "dataset" in text


def test_doctor_finds_nothing_wrong(project: Project) -> None:
    assert not project.doctor().findings
