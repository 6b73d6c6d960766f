"""A killed training goes on as if nothing had happened: every byte of its outputs is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.train import data
from tunesmith.core.errors import Stopped, StorageError
from tunesmith.core.stage import Exec
from tunesmith.train import optim, state

CHANGES = {"validate_times": 3, "method": data.LORA}
OFTEN = Exec(micro_batch_tokens=300, threads=1, save_every_s=0.0)
CHILD = """
import sys
from pathlib import Path
from tests.train import data, test_resume
data.train(*(Path(a) for a in sys.argv[1:4]), exec=test_resume.OFTEN, **test_resume.CHANGES)
"""


def stopping_at(moments: set[tuple[float, str]], stop: threading.Event):
    def progress(done: float, total: float, label: str, **facts: object) -> None:
        if (done, label) in moments:
            stop.set()

    return progress


@pytest.mark.parametrize("method", [data.LORA, data.FULL], ids=["lora", "full"])
def test_stopped_at_each_step_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path, dataset: Path, tiny_llama: Path, method: object
) -> None:
    exec = Exec(micro_batch_tokens=300, threads=1)
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=exec, method=method, validate_times=3)
    for step in range(1, 7):
        stop = threading.Event()
        with pytest.raises(Stopped):
            data.train(
                tmp_path / "parts",
                dataset,
                tiny_llama,
                exec=exec,
                stop=stop,
                progress=stopping_at({(step, "train")}, stop),
                method=method,
                validate_times=3,
            )
    parts = data.train(tmp_path / "parts", dataset, tiny_llama, exec=exec, method=method, validate_times=3)
    assert data.files(parts) == data.files(whole)


def test_killed_at_any_moment_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    assert_killed_is_whole(tmp_path, dataset, tiny_llama, kills=3)


def assert_killed_is_whole(tmp_path: Path, dataset: Path, base: Path, *, kills: int) -> None:
    whole = data.train(tmp_path / "whole", dataset, base, exec=OFTEN, **CHANGES)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "parts"), str(dataset), str(base)]
    log = tmp_path / "parts" / "metrics.jsonl"
    state_file = tmp_path / "parts" / "state" / state.FILE
    for kill in range(kills):
        before = state_file.stat().st_mtime_ns if state_file.exists() else 0
        child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while child.poll() is None:
            if (state_file.exists() and state_file.stat().st_mtime_ns > before) or (kill % 2 and log.exists()):
                time.sleep(0.013 * (kill % 5))
                break
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if child.returncode == 0:
            break
    subprocess.run(["rm", "-rf", str(tmp_path / "parts" / "out")], check=True)  # as the ledger does before each start
    resumed = data.train(tmp_path / "parts", dataset, base, exec=OFTEN, **CHANGES)
    assert data.files(resumed) == data.files(whole)


def test_state_holds_the_moments_the_random_state_and_the_position(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parameters = {"a": torch.nn.Parameter(torch.randn(3, 2)), "b": torch.nn.Parameter(torch.randn(2))}
    optimizer = optim.adamw(parameters, weight_decay=0.1)

    def step(parameters: dict, optimizer: torch.optim.Optimizer) -> None:
        for p in parameters.values():
            (p * torch.randn(p.shape)).sum().backward()
        optim.apply(optimizer, lr=0.1)

    step(parameters, optimizer)
    position = state.Position(spec_id="x", step=1, tokens=5, waited=2)
    state.save(tmp_path, position, parameters, optimizer)
    step(parameters, optimizer)
    fresh = {n: torch.nn.Parameter(torch.zeros_like(p)) for n, p in parameters.items()}
    other = optim.adamw(fresh, weight_decay=0.1)
    assert state.resume(tmp_path, "x", fresh, other) == position
    step(fresh, other)
    for name in fresh:
        assert torch.equal(fresh[name], parameters[name])


def test_state_of_another_spec_is_refused(tmp_path: Path) -> None:
    parameters = {"a": torch.nn.Parameter(torch.zeros(2))}
    optimizer = optim.adamw(parameters, weight_decay=0.0)
    state.save(tmp_path, state.Position(spec_id="x"), parameters, optimizer)
    with pytest.raises(StorageError, match="another training"):
        state.resume(tmp_path, "y", parameters, optimizer)


def test_damaged_state_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / state.FILE).write_bytes(b"\xff" * 64)
    parameters = {"a": torch.nn.Parameter(torch.zeros(2))}
    with pytest.raises(StorageError) as e:
        state.resume(tmp_path, "x", parameters, optim.adamw(parameters, weight_decay=0.0))
    assert "to start anew" in str(e.value)


def test_a_failed_save_leaves_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"a": torch.nn.Parameter(torch.zeros(2))}
    optimizer = optim.adamw(parameters, weight_decay=0.0)
    state.save(tmp_path, state.Position(spec_id="x", step=1), parameters, optimizer)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        state.save(tmp_path, state.Position(spec_id="x", step=2), parameters, optimizer)
    assert state.resume(tmp_path, "x", parameters, optimizer).step == 1
    assert [p.name for p in tmp_path.iterdir()] == [state.FILE]
