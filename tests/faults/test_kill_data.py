"""A kill at any moment of any data step costs that step and nothing else: the data set is the same to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project

LOOP = Path(__file__).parent / "kill_data_loop.py"
EVERY_STEP = {
    "data: {files: [rows.csv]": (
        "data: {files: [rows.csv], dedup: {enabled: true, near: 0.6}, audit: {enabled: true}, labels: {errors: 5}, "
        "augment: {noise: [case], ablation: 0}"
    ),
}


def outcome(folder: Path) -> dict[str, str]:
    """What the steps made, by content."""
    project = Project.open(folder)
    project.data.augment()
    made = {}
    for run in project.ledger.runs():
        if run.status == "finished":
            made |= {f"{run.stage} {name}": artifact for name, artifact in run.outputs.items()}
    assert project.doctor().is_clean
    return made


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_killed_data_steps_end_where_unbroken_ones_do(tmp_path: Path, tiny_llama: Path, kills: int) -> None:
    wanted = outcome(make_project(tmp_path / "unbroken" / "news", tiny_llama, **EVERY_STEP))
    assert {"check examples", "clean examples", "dedup examples", "audit examples", "label examples", "prepare dataset", "augment dataset"} <= set(wanted)  # fmt: skip
    folder = make_project(tmp_path / "killed" / "news", tiny_llama, **EVERY_STEP)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, str(LOOP), str(folder), str(kills), "7", "1.5"], capture_output=True, text=True, env=env
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert int(out.stdout.split()[0]) >= 1
    assert outcome(folder) == wanted
