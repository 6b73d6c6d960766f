"""How a command ends when it does not end well: what is said, where, and the exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_verbs import Recorder
from tunesmith.cli.app import run
from tunesmith.core.errors import Busy, DataError, Problem, Stopped, StorageError


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("tunesmith.api.Project", recorder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tunesmith").mkdir()
    return recorder


TWO = DataError(
    [
        Problem(where="rows.csv:3: label", what="is empty", fix="fill it in"),
        Problem(where="rows.csv:9", what="\x1b[31mred"),
    ]
)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (TWO, 2, "rows.csv:3: label: is empty\n  fix:   fill it in\nrows.csv:9: \\x1b[31mred\n"),
        (
            StorageError("the disk is full", where="x", fix="free space"),
            2,
            "x: the disk is full\n  fix:   free space\n",
        ),
        (Busy("port 8471 is in use", fix="choose another"), 2, "port 8471 is in use\n  fix:   choose another\n"),
        (
            Stopped("stopped; what was done is saved", fix="run the same command again to go on"),
            130,
            "stopped; what was",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/p/x"),
            2,
            "/p/x: No space left on device\n  fix:   free space",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/p/x"),
            2,
            "/p/x: Read-only file system\n  fix:   choose a writable",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/p/x"),
            2,
            "/p/x: Permission denied\n  fix:   check the perm",
        ),
        (MemoryError(), 2, "there is not enough memory\n  fix:   set a smaller exec.micro_batch_tokens"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(
    error: BaseException, code: int, says: str, project: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    project.results["train"] = error
    assert run(["train"]) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert not printed.out
    assert "Traceback" not in printed.err


def test_an_error_is_json_on_stdout_when_asked_for(project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    project.results["train"] = TWO
    assert run(["train", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "error": [
            {"where": "rows.csv:3: label", "what": "is empty", "fix": "fill it in"},
            {"where": "rows.csv:9", "what": "\x1b[31mred", "fix": ""},
        ]
    }
    assert "rows.csv:3: label: is empty" in printed.err


def test_our_own_mistake_leaves_its_traceback_in_a_file(
    project: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    project.results["ask"] = RuntimeError("oh")
    assert run(["ask", "a secret question"]) == 70
    said = capsys.readouterr().err
    (written,) = (tmp_path / ".tunesmith").glob("crash-*.txt")
    assert said == f"this is a bug in Tunesmith: RuntimeError: oh\n  fix:   report it with {written}\n"
    text = written.read_text()
    assert "RuntimeError: oh" in text
    assert "Traceback" in text
    assert "a secret question" not in text


def test_a_bug_outside_a_project_is_written_to_the_temporary_folder(
    project: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".tunesmith").rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    project.results["train"] = RuntimeError("oh")
    assert run(["train"]) == 70
    (written,) = tmp_path.glob("crash-*.txt")
    assert str(written) in capsys.readouterr().err


def test_debug_shows_the_traceback(
    project: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.results["train"] = RuntimeError("oh")
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    assert run(["train"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_never_looks_like_a_verdict(project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (RuntimeError("x"), AssertionError(), KeyError("k"), OSError(errno.EBADF, "Bad file descriptor")):
        project.results["gate"] = error
        assert run(["gate"]) == 70
    assert capsys.readouterr().err.count("this is a bug in Tunesmith") == 4


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("t,l\n")
    (tmp_path / "tunesmith.yaml").write_text("task: {kind: classify, text: t, label: l}\ndata: {files: [d.csv]}\n")
    reading, writing = os.pipe()
    os.close(reading)
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-m", "tunesmith", "schema"], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141


def test_a_terminal_that_cannot_show_a_letter_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("t,l\n")
    text = "task: {kind: classify, text: t, label: l, audience: → Ärzte}\ndata: {files: [d.csv]}\n"
    (tmp_path / "tunesmith.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "config"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2192 \xc4rzte" in done.stdout
