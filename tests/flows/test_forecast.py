"""Before: figures with their range, checked by real steps. Afterwards: the same figures beside what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.cli.app import run as cli
from tunesmith.core.errors import InputError
from tunesmith.flows import forecast
from tunesmith.flows.planned import compared
from tunesmith.train.cost import machine


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return Project.open(make_project(tmp_path_factory.mktemp("forecast") / "news", tiny_llama))


@pytest.fixture(scope="module")
def planned(project: Project) -> Any:
    return project.plan()


def test_three_real_steps_stand_beside_the_count_and_are_remembered(
    project: Project, planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planned.training
    assert found.measured_peak_mib and found.tokens_per_second and found.fits
    assert 0.8 < sum(found.memory_mib.values()) / found.measured_peak_mib < 1.25
    assert found.memory_low_mib < sum(found.memory_mib.values()) < found.memory_high_mib
    assert "measured: three steps" in found.cost.basis
    text = str(planned)
    for word in ("memory counted", "memory measured", "training elsewhere (computed, not measured)", "H100", "kWh"):
        assert word in text
    monkeypatch.setattr(forecast, "measure", lambda *a, **k: pytest.fail("measured twice"))
    again = Project.open(project.root, ["train.lr=0.5", "train.epochs=3"]).plan().training  # neither changes a step
    assert again.measured_peak_mib == found.measured_peak_mib
    assert again.cost.seconds.middle == pytest.approx(found.cost.seconds.middle * 1.5, rel=0.01)


def test_without_steps_it_counts(project: Project) -> None:
    found = Project.open(project.root, ["train.method.rank=8"]).plan(probe=False).training
    assert found.measured_peak_mib is None and found.tokens_per_second


def test_settings_and_options_of_a_plan(project: Project, planned: Any, tmp_path: Path) -> None:
    def plan(*said: str) -> Any:
        return Project.open(project.root, said).plan(probe=False)

    assert [g.gpu.name for g in plan("plan.gpus=[T4]").gpus] == ["T4"]
    assert [g.gpu.name for g in project.plan(["l4"], probe=False).gpus] == ["L4"]
    (project.root / "prices.yaml").write_text('date: "2026-11-30"\ngpus: {L4: {price: 99}}\n')
    assert plan("plan.gpus=[L4]", "plan.prices=prices.yaml").gpus[0].gpu.price == 99
    cost = plan("plan.watts=100", "plan.energy_price=2").training.cost
    assert cost.money.high == pytest.approx(2 * cost.kwh.high)
    assert cost.kwh.high == pytest.approx(cost.seconds.high * 100 / 3.6e6)


def test_an_unknown_gpu_is_refused_with_the_nearest_names(project: Project) -> None:
    with pytest.raises(InputError, match="did you mean H100"):
        project.plan(["H10"])
    assert cli(["plan", "--project", str(project.root), "--gpu", "H10"]) == 2


def test_methods_are_ranked_and_what_does_not_fit_says_why(
    project: Project, planned: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["plan", "--methods", "--gpu", "L4", "--project", str(project.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    devices = [o["device"] for o in found["options"]]
    assert set(devices) == {"here", "L4"} and len(devices) > 15
    assert found["options"][0]["method"].startswith("full") and found["options"][0]["fits"]
    monkeypatch.setattr(machine, "free_bytes", lambda: 200 << 20)
    text = str(project.plan_methods(probe=False))
    assert "does not fit" not in text.split("L4")[0].split("here")[0]
    assert "✕ full, adamw" in text and "program" in text


def test_a_plan_that_does_not_fit_says_so_and_is_still_a_plan(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: 100 << 20)
    said = ["plan", "--project", str(project.root), "--set", "train.method.rank=7", "--set", "exec.isolate=false"]
    assert cli(said) == 0
    out = capsys.readouterr().out
    assert "! it does not fit: 100 MiB are free" in out and "gradient_checkpointing" in out
    assert "not tried" in out


def test_planned_and_happened_stand_side_by_side(project: Project, planned: Any) -> None:
    run = project.train()
    pairs = {c.what: c for c in compared(project.ledger, run)}
    assert pairs["steps"].planned == pairs["steps"].happened == planned.optimizer_steps
    assert 0.8 < pairs["peak MiB"].ratio < 1.25
    assert pairs["seconds of training"].planned > 0
    assert "happened" in str(project.plan())
    assert "peak MiB" in project.show(run.id)["planned, happened, ratio"]


def test_training_notes_its_forecast_and_warns_where_it_cannot_fit(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = make_project(tmp_path / "news", tiny_llama)
    project = Project.open(folder, ["exec.isolate=false"], progress=lambda d, t, label, **f: said.append(label))
    monkeypatch.setattr(machine, "free_bytes", lambda: 100 << 20)
    run = project.train()
    assert any("warning" in s and "100 are free" in s for s in said)
    assert {c.what for c in compared(project.ledger, run)} == {"steps", "peak MiB"}  # no speed was known
