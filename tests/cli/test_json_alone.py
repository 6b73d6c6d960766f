"""With --json, stdout is one JSON document, whatever libraries print while a verb works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import tunesmith.api

class Project:
    @classmethod
    def open(cls, path, overrides, *, progress, stop):
        return cls()

    def train(self, **kwargs):
        {work}
        return {{"steps": 3}}

tunesmith.api.Project = Project
from tunesmith.cli.app import run
sys.exit(run(["train", {flag}]))
"""


def trained(tmp_path: Path, work: str, *, as_json: bool = True) -> tuple[str, str]:
    program = PROGRAM.format(work=work, flag='"--json"' if as_json else "")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_what_a_library_prints_goes_to_stderr(tmp_path: Path) -> None:
    out, err = trained(tmp_path, "print('a library says hello')")
    assert json.loads(out) == {"steps": 3} and "a library says hello" in err


def test_without_json_stdout_is_as_ever(tmp_path: Path) -> None:
    out, _ = trained(tmp_path, "print('a library says hello')", as_json=False)
    assert "a library says hello" in out and "steps" in out


def test_deepspeed_without_a_gpu_warns_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason='needs pip install "tunesmith[deepspeed]"')
    out, err = trained(tmp_path, "from deepspeed.accelerator import get_accelerator; get_accelerator()")
    assert json.loads(out) == {"steps": 3}
    assert "real_accelerator" in err or "DS_ACCELERATOR" in err or "cuda" in err.lower()
