"""Loss spikes, broken numbers and running out of memory: what stops, what goes on, and what is on record."""

from __future__ import annotations

import json
import math
import random
import threading
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors import safe_open

from tests.train import data
from tests.train.test_resume import stopping_at
from tunesmith.core.errors import Stopped, TunesmithError
from tunesmith.core.stage import Exec
from tunesmith.train import forward, state
from tunesmith.train.guard import IN_A_ROW, is_spike, robust_z
from tunesmith.train.memory import within_memory
from tunesmith.train.optim import adamw
from tunesmith.train.state import Position

STEADY = tuple(2.0 + 0.1 * math.sin(n) for n in range(32))


def test_a_spike_is_measured_by_median_and_mad() -> None:
    rng = random.Random(0)
    recent = [rng.gauss(2.0, 0.5) for _ in range(400)]
    assert robust_z(2.0 + 0.5 * 8, recent) == pytest.approx(8, rel=0.15)  # MAD estimates a normal's deviation
    assert robust_z(1.0, recent) < 0
    assert robust_z(6.0, [*recent, *[1e9] * 40]) == pytest.approx(robust_z(6.0, recent), rel=0.25)
    assert robust_z(100.0, recent[:15]) == 0.0  # too few to say
    assert robust_z(2.1, [2.0] * 32) < 2  # losses that do not move are no alarm
    assert robust_z(math.nan, recent) == math.inf


def test_stop_explains_and_names_the_rows() -> None:
    at = Position(spec_id="x", step=40, recent=STEADY)
    rows = [f"a.csv:{n}" for n in range(20)]
    assert not is_spike(at, 2.2, 1.0, rows, on_spike="stop", spike_z=8.0)
    assert not is_spike(at, 9.0, 1.0, rows, on_spike="ignore", spike_z=8.0)
    with pytest.raises(TunesmithError) as e:
        is_spike(at, 9.0, 1.0, rows, on_spike="stop", spike_z=8.0)
    said = str(e.value)
    assert "a.csv:0, a.csv:1" in said and "+4 more" in said and "step 41" in said
    assert "the weights were not touched" in said and "train.on_spike=skip" in said


def test_several_in_a_row_stop_a_training_that_skips() -> None:
    at = Position(spec_id="x", recent=STEADY)
    for n in range(IN_A_ROW):
        assert is_spike(at, 50.0 if n else math.nan, 1.0, ["a.csv:2"], on_spike="skip", spike_z=8.0)
        at = at.skipped(50.0, [n], seconds=0.0)
    with pytest.raises(TunesmithError, match="it is the weights and not the rows"):
        is_spike(at, 50.0, 1.0, ["a.csv:2"], on_spike="skip", spike_z=8.0)
    after_one_good = at.trained(2.0, tokens=1, seconds=0.0, window=64)
    assert is_spike(after_one_good, 50.0, 1.0, ["a.csv:2"], on_spike="skip", spike_z=8.0)


@pytest.fixture
def one_bad_row(monkeypatch: pytest.MonkeyPatch) -> str:
    """The third row's loss is not a number, in whichever batch it is."""
    bad = data.make_rows(24, seed=1)[2]
    real = forward.FlatForward.nll_sum

    def nll_sum(self: object, documents: list, *, step: int | None) -> torch.Tensor:
        broken = math.nan if step is not None and bad.id in {d.key for d in documents} else 1.0
        return real(self, documents, step=step) * broken

    monkeypatch.setattr(forward.FlatForward, "nll_sum", nll_sum)
    return f"{bad.file}:{bad.line}"


def test_skip_leaves_the_batch_out_for_good_and_resumes_to_the_byte(
    tmp_path: Path, dataset: Path, tiny_llama: Path, one_bad_row: str
) -> None:
    changes = {"on_spike": "skip", "validate_times": 3}
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, **changes)
    facts = json.loads((whole.scratch / "checkpoint" / "checkpoint.json").read_text())
    (batch,) = facts["left_out"]  # once: its rows are gone from the second epoch
    assert one_bad_row in batch["rows"] and len(batch["rows"]) == 8 and batch["loss"] is None
    lines = data.log(whole)
    assert [line["left_out"] for line in lines if "left_out" in line] == [batch["rows"]]
    losses = [line for line in lines if "loss" in line]
    assert len(losses) == 5
    assert sum(line["tokens"] for line in losses) == whole.summary["tokens"]
    assert "8 rows in 1 batches were left out" in whole.summary["notes"][-1]
    for step in range(1, 7):
        stop = threading.Event()
        parts = {"stop": stop, "progress": stopping_at({(step, "train")}, stop)}
        with pytest.raises(Stopped):
            data.train(tmp_path / "parts", dataset, tiny_llama, **parts, **changes)
    assert data.files(data.train(tmp_path / "parts", dataset, tiny_llama, **changes)) == data.files(whole)


@pytest.fixture
def broken_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two rows whose own loss is not a number, whatever they stand beside."""
    rows = data.make_rows(24, seed=1)
    bad = {rows[2].id, rows[9].id}
    real = forward.FlatForward.nll_sum

    def nll_sum(self: object, documents: list, *, step: int | None) -> torch.Tensor:
        return real(self, documents, step=step) * (math.nan if bad & {d.key for d in documents} else 1.0)

    monkeypatch.setattr(forward.FlatForward, "nll_sum", nll_sum)
    return sorted(f"{r.file}:{r.line}" for r in rows if r.id in bad)


def test_skip_leaves_only_the_broken_rows_out_and_resumes_to_the_byte(
    tmp_path: Path, dataset: Path, tiny_llama: Path, broken_rows: list[str]
) -> None:
    changes = {"on_spike": "skip", "validate_times": 3}
    tight = Exec(micro_batch_tokens=300, threads=1)  # several micro-batches a step
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=tight, **changes)
    facts = json.loads((whole.scratch / "checkpoint" / "checkpoint.json").read_text())
    assert sorted(r for batch in facts["left_out"] for r in batch["rows"]) == broken_rows
    losses = [line for line in data.log(whole) if "loss" in line]
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]  # no step is lost
    assert f"{len(broken_rows)} rows in" in whole.summary["notes"][-1]
    for step in range(1, 7):
        stop = threading.Event()
        parts = {"stop": stop, "progress": stopping_at({(step, "train")}, stop)}
        with pytest.raises(Stopped):
            data.train(tmp_path / "parts", dataset, tiny_llama, exec=tight, **parts, **changes)
    assert data.files(data.train(tmp_path / "parts", dataset, tiny_llama, exec=tight, **changes)) == data.files(whole)


def test_without_skip_the_same_row_stops_the_training(
    tmp_path: Path, dataset: Path, tiny_llama: Path, one_bad_row: str
) -> None:
    with pytest.raises(TunesmithError) as e:
        data.train(tmp_path / "work", dataset, tiny_llama)
    assert one_bad_row in str(e.value)


def test_a_batch_all_of_whose_rows_are_gone_takes_no_step(tmp_path: Path, tiny_llama: Path, one_bad_row: str) -> None:
    small = data.make_dataset(tmp_path / "small", train=24)
    work = data.train(tmp_path / "work", small, tiny_llama, on_spike="skip", global_batch=24, epochs=3.0)
    assert [(line["step"], line["tokens"]) for line in data.log(work) if "loss" in line] == [(2, 0), (3, 0)]
    assert work.summary["tokens"] == 0


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=Exec(micro_batch_tokens=1200, threads=1))
    real, sizes = forward.FlatForward.nll_sum, []

    def tight(self: object, documents: list, *, step: int | None) -> torch.Tensor:
        sizes.append(sum(len(d.ids) for d in documents))
        loss = real(self, documents, step=step)
        if step is not None and sizes[-1] > 150:
            loss.backward()  # some gradients are there already
            raise torch.OutOfMemoryError("made up")
        return loss

    monkeypatch.setattr(forward.FlatForward, "nll_sum", tight)
    said = []
    work = data.train(
        tmp_path / "tight",
        dataset,
        tiny_llama,
        exec=Exec(micro_batch_tokens=1200, threads=1),
        progress=lambda done, total, label, **facts: said.append((label, facts)),
    )
    assert data.losses(work) == pytest.approx(data.losses(whole), abs=1e-5)
    assert data.max_difference(work, whole) < 1e-5
    assert any("memory" in label for label, _ in said)
    assert "Memory ran out" in work.summary["notes"][0]
    assert sum(size > 150 for size in sizes) < 5  # it does not run into the wall at each step
    assert state.resume_more(work.state) == {}
    at = msgspec.json.decode(saved_position(work.state), type=Position)
    assert 0 < at.micro_batch_tokens < 1200  # and a resumed run begins with what fits


def saved_position(folder: Path) -> str:
    with safe_open(folder / state.FILE, "pt") as f:
        return f.metadata()["position"]


def test_one_example_that_does_not_fit_is_explained_by_part() -> None:
    weights = {"a": torch.nn.Parameter(torch.zeros(1024, 1024))}
    tried = []

    def run(tokens: int) -> None:
        tried.append(tokens)
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.\nmore")

    with pytest.raises(TunesmithError) as e:
        within_memory(
            run, micro_batch_tokens=1000, longest=300, parameters=weights, optimizer=adamw(weights, weight_decay=0.0)
        )
    assert tried == [1000, 500, 250]
    said = str(e.value)
    assert "300 tokens" in said and "trained weights 4 MiB" in said and "Tried to allocate 2.00 GiB." in said
    assert "exec.gradient_checkpointing=true" in said
