"""A kill costs minutes and never a fact: after any number of SIGKILLs the result is that of an unbroken run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project

LOOP = Path(__file__).parent / "kill_loop.py"


def kill_at_random(project: Path, *, kills: int, seed: int, longest_s: float) -> int:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, str(LOOP), str(project), str(kills), str(seed), str(longest_s)],
        capture_output=True, text=True, env=env,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-3000:]
    return int(out.stdout.split()[0])


def results(project: Project) -> dict[str, str]:
    """What a run made, by content: weights, metric log, answers, report, verdict, bundle."""
    result = project.run()
    found = {}
    for step in result.steps:
        run = project.ledger.run(step.run)
        if run.stage != "answer":
            found |= {f"{step.name} {name}": artifact for name, artifact in run.outputs.items()}
    weights = project.ledger.artifact(found["train checkpoint"]).files["adapter_model.safetensors"]
    metrics = project.ledger.artifact(found["train metrics"]).files["metrics.jsonl"]
    return {"weights": weights.sha256, "metrics": metrics.sha256, "checkpoint": found["train checkpoint"]}


@pytest.mark.parametrize(
    ("kills", "longest_s"),
    [(20, 2.5), pytest.param(500, 2.5, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_killed_runs_end_where_an_unbroken_one_does(
    tmp_path: Path, tiny_llama: Path, kills: int, longest_s: float
) -> None:
    saving = {"micro_batch_tokens: 2048": "micro_batch_tokens: 2048, save_every_s: 0"}
    unbroken = Project.open(make_project(tmp_path / "unbroken" / "news", tiny_llama, **saving))
    wanted = results(unbroken)

    folder = make_project(tmp_path / "killed" / "news", tiny_llama, **saving)
    killed = 0
    rounds = 0
    while killed < kills:  # children that end before their kill leave nothing to do: start the work anew
        rounds += 1
        killed += kill_at_random(folder, kills=min(20, kills - killed), seed=rounds, longest_s=longest_s)
        again = Project.open(folder)
        assert results(again) == wanted
        health = again.doctor()
        assert health.is_clean and not health.findings
        again.ledger.close()
        if killed < kills:
            shutil.rmtree(folder / ".tunesmith")
    assert killed >= kills
    leftovers = [p for p in (folder / ".tunesmith").rglob("*") if p.suffix == ".tmp"]
    assert not leftovers
