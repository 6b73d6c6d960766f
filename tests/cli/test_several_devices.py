"""Several ranks by the command line: the same verb, the same endings, and one rank goes on from two."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.cli.app import run

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
two_cores = pytest.mark.skipif(CORES < 2, reason="two ranks need two cores")
deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason='needs pip install "tunesmith[deepspeed]"'
)
SLOW = pytest.mark.slow
EPOCHS, STEPS = 20, 160


@pytest.fixture
def project(tmp_path: Path, tiny_llama: Path) -> Path:
    return make_project(tmp_path / "news", tiny_llama)


def said(project: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run([*arguments, "--project", str(project), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def ranks(engine: str) -> list[str]:
    return ["--set", "exec.processes=2", "--set", f"exec.engine={engine}", "--set", "exec.threads=1"]


@two_cores
@pytest.mark.parametrize(
    "engine",
    [
        "ddp",
        pytest.param("fsdp2", marks=SLOW),
        pytest.param("zero2", marks=[SLOW, deepspeed]),
        pytest.param("zero3", marks=[SLOW, deepspeed]),
    ],
)
def test_two_ranks_by_the_command_line(project: Path, capsys: pytest.CaptureFixture[str], engine: str) -> None:
    made = said(project, capsys, "train", *ranks(engine))
    assert (made["metrics"]["engine"], made["metrics"]["ranks"], made["metrics"]["steps"]) == (engine, 2, 16)
    assert run(["show", made["id"][:12], "--project", str(project)]) == 0
    shown = capsys.readouterr().out
    assert f"engine: {engine}" in shown and "ranks: 2" in shown
    again = said(project, capsys, "train")
    assert again["id"] == made["id"] and again["reused"], "how many ranks is no part of what is trained"


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2", pytest.param("zero3", marks=deepspeed)])
@pytest.mark.parametrize("to_group", [True, False])
def test_ctrl_c_on_two_ranks_and_the_rest_on_one(
    project: Path, capsys: pytest.CaptureFixture[str], engine: str, to_group: bool
) -> None:
    longer = ["--set", f"train.epochs={EPOCHS}"]
    command = ["train", "--project", str(project), *longer, *ranks(engine)]
    code, err = interrupted(command, to_group=to_group)
    assert code == 130
    assert "stopping once the state is saved; again to end at once" in err
    assert "stopped; what was done is saved\n  fix:   run the same command again to go on" in err
    assert "Traceback" not in err
    made = said(project, capsys, "train", *longer)
    assert made["metrics"]["steps"] == STEPS and made["environment"]["resumed"]
    assert (made["metrics"]["engine"], made["metrics"]["ranks"]) == ("single", 1)
    stopped = said(project, capsys, "runs", "--stage", "sft")
    assert [r["status"] for r in stopped] == ["finished", "stopped"]


def interrupted(command: list[str], *, to_group: bool) -> tuple[int, str]:
    """(exit code, stderr) of a training that gets SIGINT after its first steps, as a terminal would send it (to the
    whole group) or as `kill -INT` does."""
    program = "import sys; from tunesmith.cli.app import run; sys.exit(run(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    seen = ""
    while "train · " not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=250)
    return process.returncode, seen + rest


def test_what_cannot_be_had_ends_with_2_and_records_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "deepspeed" else found(name, *a))
    many = ["--set", f"exec.processes={CORES + 1}", "--set", "exec.engine=zero3"]
    errors = said(project, capsys, "train", *many, code=2)["error"]
    assert {e["where"] for e in errors} == {"exec.processes", "exec.engine"} and all(e["fix"] for e in errors)
    monkeypatch.undo()
    assert said(project, capsys, "runs") == []
