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
from tunesmith.core.stage import Exec
from tunesmith.flows.cost import forecast
from tunesmith.flows.cost.planned import compared
from tunesmith.flows.run import walk
from tunesmith.train.cost import machine
from tunesmith.train.cost.measure import Measured


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
    # a tiny model is nearly all program, whose size depends on what is installed (395 to 520 MiB); real models are
    # held to 10 % by benchmarks/planner.py
    assert 0.7 < sum(found.memory_mib.values()) / found.measured_peak_mib < 1.5
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
    # apart: the process of the tests holds what other tests left in it
    run = Project.open(project.root, ["exec.isolate=true"]).train()
    pairs = {c.what: c for c in compared(project.ledger, run)}
    assert pairs["steps"].planned == pairs["steps"].happened == planned.optimizer_steps
    assert 0.7 < pairs["peak MiB"].ratio < 1.5
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


def test_several_processes_are_not_measured_and_it_is_said(project: Project, planned: Any) -> None:
    found = Project.open(project.root, ["exec.processes=2", "train.epochs=2"]).plan().training
    assert found.measured_peak_mib is None and found.ranks == 2
    assert "the three steps are of one process, and exec makes 2" in str(found)
    assert "not taken into account" in str(found)


def test_what_changes_a_step_is_measured_anew(project: Project) -> None:
    journey = walk(project.context, "prepare")
    step = forecast.train_step_of(journey)
    spec, inputs = step.build(journey)

    def asked(**exec: Any) -> Any:
        return forecast.probe_question(journey, spec, inputs, Exec(**exec))["asked"]

    assert asked(log_every=9, save_every_s=1.0, isolate=True) == asked()
    changed = [
        {"device": "cpu"}, {"attention": "eager"}, {"compile": True}, {"kernels": "none"}, {"activation_offload": True},
        {"offload_optimizer": True}, {"threads": 1}, {"micro_batch_tokens": 1}, {"gradient_checkpointing": True},
    ]  # fmt: skip
    assert len({asked(**c) for c in changed} | {asked()}) == len(changed) + 1


def test_on_a_gpu_its_own_memory_counts(project: Project, planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*a: Any, **k: Any) -> Measured:
        return Measured(
            peak_mib=900, tokens_per_s=5000.0, longest_tokens=64, longest_tokens_per_s=5000.0, trained_weights=1,
            path="flat", watts=None, device="cuda:0", free_mib=800,
        )  # fmt: skip

    monkeypatch.setattr(forecast, "measure", measured)
    monkeypatch.setattr(machine, "on_gpu", lambda device: True)
    said = Project.open(project.root, ["exec.threads=1"])  # asked anew
    unknown, found = said.plan(probe=False).training, said.plan().training
    assert unknown.device == found.device == "cuda" and "file" not in found.memory_mib
    assert unknown.free_mib is None and unknown.fits is None and "unknown MiB are free" in str(unknown)
    assert found.free_mib == 800 and found.fits is False
