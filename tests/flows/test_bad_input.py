"""Every bad input ends with one clear message (what, where, why, what to do), exit code 2, no traceback,
and nothing half-written."""

from __future__ import annotations

import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.cli.app import run

Say = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return make_project(tmp_path / "news", tiny_llama)


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def refuse(*arguments: str) -> str:
        code = run([*arguments, "--project", str(folder)])
        said = capsys.readouterr()
        assert code == 2, said.err
        assert "Traceback" not in said.err and "bug in Tunesmith" not in said.err
        return said.err

    return refuse


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "tunesmith.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def rows(folder: Path, *lines: str | bytes) -> None:
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    (folder / "rows.csv").write_bytes(data + b"\n")


def test_unknown_key(folder: Path, refused: Say) -> None:
    edit(folder, "lr: 1e-2", "learning_rte: 1e-2")
    said = refused("check")
    assert "tunesmith.yaml:4:" in said and "train.learning_rte" in said and "train.lr" in said


def test_wrong_type_and_unknown_key_are_said_at_once(folder: Path, refused: Say) -> None:
    edit(folder, "epochs: 2", "epochs: many")
    edit(folder, "resamples: 200", "resample: 200")
    said = refused("run")
    assert "train.epochs" in said and "evaluate.resample" in said


def test_missing_file(folder: Path, refused: Say) -> None:
    (folder / "rows.csv").unlink()
    said = refused("check")
    assert "rows.csv" in said and "tunesmith.yaml:2:" in said


def test_missing_column(folder: Path, refused: Say) -> None:
    edit(folder, "label: label", "label: lable")
    said = refused("check")
    assert "lable" in said and "label" in said and "rows.csv" in said


def test_empty_file(folder: Path, refused: Say) -> None:
    (folder / "rows.csv").write_bytes(b"")
    said = refused("check")
    assert "rows.csv" in said and "empty" in said


def test_broken_utf8(folder: Path, refused: Say) -> None:
    rows(folder, "text,label,source", "fine,sports,a", b"caf\xe9,sports,b")
    said = refused("check")
    assert "rows.csv:3" in said and "UTF-8" in said


def test_rows_without_label_are_all_named(folder: Path, refused: Say) -> None:
    rows(folder, "text,label,source", "one,,a", "two,sports,b", "three,,c")
    said = refused("check")
    assert "rows.csv:2" in said and "rows.csv:4" in said and "label" in said
    assert "data.bad_rows=leave_out" in said


def test_one_class_only(folder: Path, refused: Say) -> None:
    rows(folder, "text,label,source", *(f"text {i},sports,s{i}" for i in range(60)))
    said = refused("check")
    assert "every one of the 60 rows" in said or "sports" in said
    assert "nothing to tell apart" in said and "task.label" in said


def test_a_class_too_small_to_split(folder: Path, refused: Say) -> None:
    with open(folder / "rows.csv", "a", encoding="utf-8") as f:
        f.write("chess opening,games,source z\n")
    said = refused("prepare")
    assert "games" in said and "1" in said and "data.small_classes=keep" in said
    edit(folder, "files: [rows.csv],", "files: [rows.csv], small_classes: keep,")
    assert run(["prepare", "--project", str(folder)]) == 0


def test_unknown_model_folder(folder: Path, refused: Say) -> None:
    said = refused("check", "--set", "model=/no/such/model")
    assert "/no/such/model" in said
    said = refused("check", "--set", "model=smollm2-135m-instrct")
    assert "smollm2-135m-instruct" in said


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_corrupted_weight_file(
    folder: Path, refused: Say, tiny_llama: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut: refused when first read. A flipped bit is a change of the copy that a project already rests on."""
    if damage == "cut":
        bad = tmp_path / "bad"
        shutil.copytree(tiny_llama, bad)
        weights = bad / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        said = refused("check", "--set", f"model={bad}")
        assert "model.safetensors" in said
        return
    assert run(["prepare", "--project", str(folder)]) == 0
    capsys.readouterr()
    weights = next((tmp_path / "cache").rglob("model.safetensors"))
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    said = refused("prepare", "--set", "data.seed=1")
    assert "model.safetensors" in said


def test_pickle_file(folder: Path, refused: Say, tiny_llama: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(tiny_llama, bad)
    (bad / "model.safetensors").unlink()
    (bad / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    said = refused("check", "--set", f"model={bad}")
    assert "pytorch_model.bin" in said and "pickle" in said and "safetensors" in said


def in_a_mount(folder: Path, mount: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where `mount` has been done; skips where the system does not let us."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    script = f"({mount}) 2>/dev/null || exit 77; exec {' '.join(command)}"
    out = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, cwd=folder
    )
    if out.returncode == 77 or "unshare" in out.stderr:
        pytest.skip("this system allows no mounts of our own")
    return out


def test_full_disk(folder: Path) -> None:
    """A real full disk, of 300 kB: the message says so, and with room again the same command goes on."""
    state = folder / ".tunesmith"
    state.mkdir()
    command = (sys.executable, "-m", "tunesmith", "prepare", "--project", str(folder))
    out = in_a_mount(folder, f"mount -t tmpfs -o size=300k tmpfs {state}", *command)
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr
    assert "full" in out.stderr.lower() and "free" in out.stderr.lower() and ".tunesmith" in out.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_read_only_folder(folder: Path) -> None:
    command = (sys.executable, "-m", "tunesmith", "check", "--project", str(folder))
    out = in_a_mount(folder, f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}", *command)
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr and "read-only" in out.stderr.lower() and "writable" in out.stderr


def test_port_in_use(folder: Path, refused: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.api import Project

    monkeypatch.setattr(Project, "_bundle_id", lambda self, name: "0" * 64)  # the port is taken before any loading
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("serve", "--port", str(port))
    assert str(port) in said and "in use" in said.lower() and "port" in said


def test_no_project_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["check", "--project", str(tmp_path / "empty")]) == 2
    assert "tunesmith init" in capsys.readouterr().err


def test_nothing_has_passed_yet(refused: Say) -> None:
    assert "tunesmith run" in refused("ask", "hello")


def test_a_refused_check_leaves_no_result_behind(folder: Path, refused: Say) -> None:
    rows(folder, "text,label,source", "one,,a")
    refused("check")
    from tunesmith.ledger.ledger import Ledger

    with Ledger.open(folder / ".tunesmith") as ledger:
        assert not [r for r in ledger.runs() if r.status == "finished"]
