"""A training in a process of its own ends as it would have here, and is dealt with when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny
from tests.train.data import SPEC, files, log, train
from tunesmith.core.errors import DataError, Stopped, TunesmithError
from tunesmith.core.stage import Exec, Workspace
from tunesmith.launch.faults import VARIABLE
from tunesmith.launch.perform import perform
from tunesmith.train.stages import SFT, SftInputs

ROOM = 250  # MiB: less than a step of 1,024 tokens takes of the wide model below, more than one of 256
ALONE = Exec(isolate=True, threads=1, save_every_s=0.0)


def launched(
    root: Path, dataset: Path, base: Path, exec: Exec = ALONE, *, progress: Any = None, **changes: Any
) -> Workspace:
    work = Workspace(root=root, exec=exec)
    if progress is not None:
        work.progress = progress
    perform(SFT, replace(SPEC, **changes), SftInputs(dataset=dataset, base=base), work)
    return work


def test_a_worker_gives_the_same_bytes(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    said: list[tuple[float, float, str]] = []
    got = launched(tmp_path / "a", dataset, tiny_llama, progress=lambda d, t, label, **f: said.append((d, t, label)))
    want = train(tmp_path / "b", dataset, tiny_llama)
    assert files(got) == files(want)
    assert got.summary["steps"] == 6 and got.summary["peak_mib"] > 0
    assert {label for _, _, label in said} >= {"load", "train", "validate"}


@pytest.mark.slow
def test_an_error_comes_back_as_it_was_raised(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    with pytest.raises(DataError) as found:
        launched(tmp_path / "a", dataset, tiny_llama, max_tokens=16)
    assert len(found.value.problems) == 24 and found.value.problems[0].where == "rows.csv:2"


def test_a_killed_worker_goes_on_with_half_the_micro_batch(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "rank=0 step=3 above=256")
    said: list[str] = []
    exec = replace(ALONE, micro_batch_tokens=512)
    got = launched(tmp_path / "a", dataset, tiny_llama, exec, progress=lambda d, t, label, **f: said.append(label))
    assert any("killed" in s and "smaller micro-batches" in s for s in said)
    assert any("micro-batches of 256 tokens" in n for n in got.summary["notes"])
    assert [line["step"] for line in log(got) if "loss" in line] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits an address space by /proc")
def test_a_real_limit_of_memory_is_met_by_smaller_micro_batches(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allocations really fail once the first step is done: nothing here throws the error by itself."""
    wide = make_tiny(tmp_path / "wide", intermediate_size=16384)
    exec = replace(ALONE, micro_batch_tokens=1024)
    changes: dict[str, Any] = {"global_batch": 24, "epochs": 3.0}
    want = launched(tmp_path / "want", dataset, wide, exec, **changes)
    monkeypatch.setenv(VARIABLE, f"rank=0 step=1 above=0 room={ROOM}")
    said: list[str] = []
    got = launched(tmp_path / "a", dataset, wide, exec, progress=lambda d, t, label, **f: said.append(label), **changes)
    assert any("out of memory" in s and "smaller micro-batches" in s for s in said)
    assert any(n.startswith("Memory ran out") for n in got.summary["notes"])
    assert [line["loss"] for line in log(got) if "loss" in line] == pytest.approx(
        [line["loss"] for line in log(want) if "loss" in line], abs=1e-5
    )


@pytest.mark.slow
def test_a_micro_batch_that_cannot_be_halved_is_explained(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "rank=0 step=1 above=1")
    with pytest.raises(TunesmithError, match=r"cannot be halved.*weights \d+ MiB.*optimizer"):
        launched(tmp_path / "a", dataset, tiny_llama, replace(ALONE, micro_batch_tokens=64))


@pytest.mark.slow
def test_a_wish_to_stop_saves_the_state(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    work = Workspace(root=tmp_path / "a", exec=replace(ALONE, save_every_s=1e6), stop=threading.Event())
    work.progress = lambda done, total, label, **facts: work.stop.set() if label == "train" and done >= 2 else None
    with pytest.raises(Stopped):
        perform(SFT, replace(SPEC, epochs=200.0), SftInputs(dataset=dataset, base=tiny_llama), work)
    assert (work.state / "training.safetensors").exists()


PARENT = """
import sys
from pathlib import Path
from dataclasses import replace
from tests.launch.test_worker import SPEC, SFT, SftInputs, Workspace, Exec, perform
root, dataset, base, processes = sys.argv[1:]
exec = Exec(isolate=True, threads=1, processes=int(processes), engine="single" if processes == "1" else "ddp")
def say(done, total, label, **facts):
    if label == "train" and done > 3: print("training", flush=True)
work = Workspace(root=Path(root), exec=exec, progress=say)
perform(SFT, replace(SPEC, epochs=2000.0), SftInputs(dataset=Path(dataset), base=Path(base)), work)
"""


def assert_none_outlives_the_parent(root: Path, dataset: Path, base: Path, processes: int) -> None:
    """Kill the parent, and see that no process is left whose command names its workspace."""
    command = [sys.executable, "-c", PARENT, str(root), str(dataset), str(base), str(processes)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"training\n"
    assert len(_named(root)) == processes + (processes > 1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while _named(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _named(root)


def _named(root: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(root / "launch" / "job.json").encode() in words:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_no_worker_outlives_its_parent(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    assert_none_outlives_the_parent(tmp_path / "a", dataset, tiny_llama, processes=1)


def test_a_job_that_would_be_read_otherwise_is_refused(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    from tunesmith.launch.job import read_job, write_job

    path = tmp_path / "job.json"
    write_job(path, SFT, SPEC, SftInputs(dataset=dataset, base=tiny_llama), ALONE, tmp_path)
    stage, spec, folders, exec, root = read_job(path)
    assert (stage, spec, folders, exec, root) == (
        SFT,
        SPEC,
        SftInputs(dataset=dataset, base=tiny_llama),
        ALONE,
        tmp_path,
    )
    said = json.loads(path.read_text())
    said["spec"]["unheard_of"] = 1
    path.write_text(json.dumps(said))
    with pytest.raises(ValueError, match="does not survive"):
        read_job(path)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_machine_says_for_whom_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    """Until all machines are there no rank runs that could say anything; the parent says it before it starts them."""

    def not_started(*command: object, **more: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(subprocess, "Popen", not_started)
    said: list[str] = []
    exec = Exec(processes=2, engine="ddp", nodes=nodes, node_rank=nodes - 1, rendezvous="gpu0.example:29500")
    with pytest.raises(InterruptedError):
        launched(tmp_path / "a", tmp_path, tmp_path, exec, progress=lambda d, t, label, **f: said.append(label))
    assert said == ["waiting for 3 machines at gpu0.example:29500 (this is 2)"] * (nodes == 3)


def test_a_stop_while_waiting_for_other_machines_ends_at_once(tmp_path: Path) -> None:
    """Nothing has been computed that could be saved, and no rank runs that could hear the wish."""
    exec = Exec(processes=1, engine="ddp", nodes=2, node_rank=0, rendezvous="127.0.0.1:29571")
    work = Workspace(root=tmp_path / "a", exec=exec)

    def progress(done: float, total: float, label: str, **facts: object) -> None:
        assert label.startswith("waiting for 2 machines")
        work.stop.set()

    work.progress = progress
    with pytest.raises(Stopped):
        perform(SFT, SPEC, SftInputs(dataset=tmp_path, base=tmp_path), work)
