"""kill -9 of a matrix at any moment: its child goes too, and what comes out is what an unbroken one gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.matrix.test_matrix import make
from tunesmith.api import Project

KILLS = 12
COMMAND = (sys.executable, "-c", "from tunesmith.cli.app import run; raise SystemExit(run())", "matrix", "--no-look")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_matrix_killed_at_random_ends_as_an_unbroken_one(tmp_path: Path, tiny_llama: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder = make(tmp_path / "killed" / "news", tiny_llama)
    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        child = subprocess.Popen(COMMAND, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(3, 25))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
    whole = make(tmp_path / "whole" / "news", tiny_llama)
    for project in (folder, whole):
        subprocess.run(COMMAND, cwd=project, env=env, check=True, capture_output=True)
    assert killed
    assert made(folder) == made(whole)
    assert Project.open(folder).doctor().is_clean


def made(folder: Path) -> set[tuple[str, str]]:
    """Of each cell: its weights and its metric log, by content."""
    ledger = Project.open(folder).ledger
    return {
        (
            str(sorted(run.spec["method"].items())) + str(run.spec["epochs"]) + run.outputs["metrics"],
            run.outputs["checkpoint"],
        )
        for run in ledger.runs(stage="sft")
        if run.status == "finished"
    }
