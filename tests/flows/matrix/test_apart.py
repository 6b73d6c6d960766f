"""A cell in a process of its own: the same runs, its own peak, its own end."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.flows.matrix.test_matrix import make
from tunesmith.api import Project
from tunesmith.core.errors import Stopped, StorageError
from tunesmith.flows.matrix import apart
from tunesmith.flows.matrix.apart import CellFailed, measured_apart
from tunesmith.flows.matrix.cell import known
from tunesmith.flows.matrix.plan import cells_with


def program(text: str) -> tuple[str, ...]:
    return (
        sys.executable,
        "-c",
        f"import sys, os, json, time, signal\norder = json.loads(sys.stdin.readline())\n{text}",
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return Project.open(make(tmp_path_factory.mktemp("apart") / "news", tiny_llama))


def end(project: Project, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(apart, "PROGRAM", program(text))
    measured_apart(project.context, None, lambda *a, **k: None)


def test_a_child_that_the_system_kills_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellFailed, match="out of memory"):
        end(project, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")


def test_a_child_that_breaks_says_what_it_last_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellFailed, match="code 3 without a word: the last words"):
        end(project, monkeypatch, "print('the last words', file=sys.stderr); sys.exit(3)")


def test_a_problem_is_the_cell_s_and_a_full_disk_is_everybody_s(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = "print(json.dumps({'failed': [{'where': 'a', 'what': 'too long', 'fix': 'cut'}], 'fatal': %s}))"
    with pytest.raises(CellFailed, match=r"too long \(cut\)"):
        end(project, monkeypatch, say % "False")
    with pytest.raises(StorageError, match="too long"):
        end(project, monkeypatch, say % "True")


def test_a_child_that_ends_before_it_has_read_is_reported_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(9)"))
    with pytest.raises(CellFailed, match="code 9"):
        measured_apart(project.context, None, lambda *a, **k: None)


def test_a_wish_to_stop_ends_the_child_s_input_and_then_this(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    context = Project.open(project.root, stop=stop).context
    text = "print(json.dumps({'progress': [1, 2, 'train', {}]}), flush=True)\nsys.stdin.read()\nprint(json.dumps({'stopped': True}))"
    monkeypatch.setattr(apart, "PROGRAM", program(text))
    with pytest.raises(Stopped):
        measured_apart(context, None, lambda *a, **k: stop.set())


def test_a_real_cell_apart_makes_the_runs_that_the_ledger_is_asked_for(project: Project) -> None:
    cells, _ = cells_with(project.context)
    cell = cells[0]
    said: list[str] = []
    held = bytearray(b"x") * (700 << 20)  # of this process: not of the cell's
    runs = measured_apart(cell.journey.context, cell.subset, lambda done, total, label, **facts: said.append(label))
    assert len(held) and runs.train.status == runs.answer.status == "finished"
    assert "train" in said and any("answer" in s for s in said)
    assert 100 < runs.train.metrics["peak_mib"] < 700 + 100
    found = known(cells_with(project.context)[0][0].journey)
    assert [r.id for r in found if r] == [runs.train.id, runs.answer.id]
