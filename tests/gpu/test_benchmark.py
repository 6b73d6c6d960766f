"""The benchmark for GPUs works: the same script, on a tiny model and the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--size", "tiny", "--device", "cpu", "--lengths", "32"]
    command += ["--batch", "2", "--steps", "3", "--methods", "lora,full", "--peak-tflops", "1", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ, timeout=280)
    found = json.loads(out.read_text())
    assert [(f["arm"], f["method"]) for f in found] == [("ours", "lora"), ("ours", "full")]
    for f in found:
        assert "failed" not in f, f
        assert f["tokens_per_s"] > 0 and f["mfu"] > 0 and f["planned_mib"] > 0
        assert f["losses"][0] == pytest.approx(6.2, abs=0.4)  # ln 512: random weights know nothing
