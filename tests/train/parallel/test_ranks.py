"""Two ranks train what one process trains, whatever shares the work; any of them goes on from another's state."""

from __future__ import annotations

import importlib.util
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.launch.test_worker import assert_none_outlives_the_parent
from tests.train.data import FULL, LORA, SPEC, log, losses, max_difference, train
from tunesmith.core.errors import InputError, Stopped, TunesmithError
from tunesmith.core.stage import EngineName, Exec, Workspace
from tunesmith.launch.faults import VARIABLE
from tunesmith.launch.perform import perform
from tunesmith.model.flat_layout import Document
from tunesmith.train.parallel.ranks import shares
from tunesmith.train.stages import SFT, SftInputs

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
two_cores = pytest.mark.skipif(CORES < 2, reason="two ranks need two cores")
deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason='needs pip install "tunesmith[deepspeed]"'
)
TWO = Exec(processes=2, engine="ddp", threads=1)
FULL_DECAYED: dict[str, Any] = {"method": FULL, "lr": 1e-3, "weight_decay": 0.1}  # two groups: vectors do not decay
SLOW = pytest.mark.slow
ENGINES = [
    "ddp",
    pytest.param("fsdp2", marks=SLOW),
    pytest.param("zero2", marks=[SLOW, deepspeed]),
    pytest.param("zero3", marks=[SLOW, deepspeed]),
]


def workspace(root: Path, **exec: Any) -> Workspace:
    return Workspace(root=root, exec=replace(TWO, **exec))


def run(work: Workspace, dataset: Path, base: Path, **changes: Any) -> Workspace:
    perform(SFT, replace(SPEC, **changes), SftInputs(dataset=dataset, base=base), work)
    return work


def assert_same(got: Workspace, want: Workspace, *, within: float = 1e-5) -> None:
    """Losses, norms and final weights, and which step was the best."""
    assert losses(got) == pytest.approx(losses(want), abs=within)
    for a, b in zip(log(got), log(want), strict=True):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for name in {"grad_norm", "validation_loss"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    assert max_difference(got, want) < 10 * within


def documents(*lengths: int) -> list[Document]:
    return [Document(ids=(1,) * n, trained=(False,) + (True,) * (n - 1), key=str(i)) for i, n in enumerate(lengths)]


def test_a_batch_is_shared_by_whole_documents_and_about_equally() -> None:
    batch = documents(9, 3, 3, 3, 5, 7)
    first, second = shares(batch, 2)
    assert sorted((*first, *second), key=lambda d: d.key) == batch
    assert abs(sum(len(d.ids) for d in first) - sum(len(d.ids) for d in second)) <= 3
    assert shares(documents(4), 3) == [documents(4), [], []]


@pytest.mark.slow
@two_cores
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_rows_of_new_tokens_are_shared_among_ranks_too(
    tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName
) -> None:
    changes = {"new_tokens": (" aktie", "prozent"), "epochs": 1.0, "metric": ""}
    got = run(workspace(tmp_path / "two", engine=engine, micro_batch_tokens=64), dataset, tiny_llama, **changes)
    want = train(tmp_path / "one", dataset, tiny_llama, **changes)
    assert_same(got, want)
    a, b = (load_file(w.scratch / "checkpoint" / "new_tokens.safetensors")["embedding"] for w in (got, want))
    assert (a - b).abs().max() < 1e-4


@two_cores
@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_are_one_process(
    tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName, request: Any
) -> None:
    """An odd batch and small micro-batches, so that ranks have not the same to do; the last batch is one row."""
    changes = {"global_batch": 23, "method": replace(LORA, dropout=0.1), "epochs": 3.0}
    got = run(workspace(tmp_path / "two", engine=engine, micro_batch_tokens=64), dataset, tiny_llama, **changes)
    want = train(tmp_path / "one", dataset, tiny_llama, **changes)
    assert_same(got, want)
    assert (got.summary["engine"], got.summary["ranks"]) == (engine, 2)
    assert got.summary["trained_weights"] == want.summary["trained_weights"]


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_full_fine_tuning_on_two_ranks(tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName) -> None:
    got = run(workspace(tmp_path / "two", engine=engine), dataset, tiny_llama, **FULL_DECAYED)
    assert_same(got, train(tmp_path / "one", dataset, tiny_llama, **FULL_DECAYED))


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("changes", [{}, FULL_DECAYED], ids=["lora", "full"])
def test_stopped_on_two_ranks_and_finished_on_one(
    tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName, changes: dict[str, Any]
) -> None:
    """And begun on one, finished on two."""
    want = train(tmp_path / "want", dataset, tiny_llama, **changes)
    there = workspace(tmp_path / "there", engine=engine, save_every_s=0.0)
    stopped_after(3, there, dataset, tiny_llama, **changes)
    assert any(there.state.glob("parts-*")) == (engine == "fsdp2")
    there.exec = Exec(threads=1)
    assert_same(run(there, dataset, tiny_llama, **changes), want)
    back = workspace(tmp_path / "back", engine="single", processes=1)
    stopped_after(3, back, dataset, tiny_llama, **changes)
    back.exec = replace(TWO, engine=engine)
    assert_same(run(back, dataset, tiny_llama, **changes), want)


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_killed_on_two_ranks_and_finished_on_one(
    tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "rank=1 step=4 above=0")
    work = workspace(tmp_path / "a", engine=engine, save_every_s=0.0, micro_batch_tokens=64)
    with pytest.raises(TunesmithError, match="rank 1"):
        run(work, dataset, tiny_llama)
    assert (work.state / "training.safetensors").exists()
    work.exec = Exec(threads=1)
    assert_same(run(work, dataset, tiny_llama), train(tmp_path / "want", dataset, tiny_llama))


def stopped_after(step: int, work: Workspace, dataset: Path, base: Path, **changes: Any) -> None:
    def stop(done: float, total: float, label: str, **facts: Any) -> None:
        if label == "train" and done >= step:
            work.stop.set()

    work.progress = stop
    try:
        run(work, dataset, base, **changes)
    except Stopped:
        pass
    else:
        raise AssertionError("it ended before it could be stopped")
    work.stop.clear()
    work.progress = lambda *_, **__: None


@two_cores
@pytest.mark.slow
def test_a_rank_that_is_killed_costs_half_the_micro_batch(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "rank=1 step=3 above=256")
    work = workspace(tmp_path / "a", micro_batch_tokens=512, save_every_s=0.0)
    assert_same(run(work, dataset, tiny_llama), train(tmp_path / "want", dataset, tiny_llama))
    assert any("micro-batches of 256 tokens" in n for n in work.summary["notes"])


@two_cores
@pytest.mark.slow
def test_the_error_of_a_rank_reaches_the_user(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    with pytest.raises(InputError, match="nothing_like_it"):
        run(workspace(tmp_path / "a"), dataset, tiny_llama, lr_ratios=(("nothing_like_it", 2.0),))


@two_cores
@pytest.mark.slow
def test_no_rank_outlives_the_parent(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    assert_none_outlives_the_parent(tmp_path / "a", dataset, tiny_llama, processes=2)


@two_cores
@pytest.mark.slow
def test_two_machines_on_loopback(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """Two launchers of one rank each; both machines have the checkpoint in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        workspace(tmp_path / str(n), processes=1, nodes=2, node_rank=n, rendezvous=f"127.0.0.1:{port}")
        for n in range(2)
    ]
    said: list[list[str]] = [[], []]
    for n, work in enumerate(machines):
        work.progress = lambda done, total, label, n=n, **facts: said[n].append(label)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda work: run(work, dataset, tiny_llama), machines))
    for n in range(2):
        assert said[n][0] == f"waiting for 2 machines at 127.0.0.1:{port} (this is {n})" and "train" in said[n]
    want = train(tmp_path / "want", dataset, tiny_llama)
    for work in done:
        assert_same(work, want)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_an_engine_without_ranks_is_refused(
    tmp_path: Path, dataset: Path, tiny_llama: Path, engine: EngineName
) -> None:
    """A recipe never falls back to one process by itself."""
    from tunesmith.train.parallel.engines import join

    with pytest.raises(RuntimeError, match="started by torchrun"):
        join(Exec(processes=2, engine=engine))
