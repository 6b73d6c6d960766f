"""Which weights are validated and kept, when, and what the run says of overfitting."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train import data
from tests.train.test_resume import stopping_at
from tunesmith.core.errors import Stopped
from tunesmith.train import averages, state
from tunesmith.train.learner import rate_at
from tunesmith.train.optim import adamw
from tunesmith.train.state import Judgment
from tunesmith.train.validate import overfitting, validate_after

VARIANTS = {
    "ema": {"averaging": "ema", "validate_times": 3},
    "last": {"averaging": "last", "average_last": 4, "validate_times": 6},
    "schedule_free": {"optimizer": "schedule_free", "schedule": "constant", "validate_times": 3},
    "lion, two rates": {"optimizer": "lion", "lr_ratios": (("*lora_B*", 4.0),), "schedule": "wsd", "lr": 1e-3},
    "muon, noise, smoothing": {
        "optimizer": "muon",
        "method": data.FULL,
        "neftune_alpha": 5.0,
        "label_smoothing": 0.1,
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_stopped_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path, dataset: Path, sharp_llama: Path, name: str
) -> None:
    changes = {"epochs": 1.5, "global_batch": 6, "metric": "", **VARIANTS[name]}
    whole = data.train(tmp_path / "whole", dataset, sharp_llama, **changes)
    for step in (1, 2, 4, 5):
        stop = threading.Event()
        parts = {"stop": stop, "progress": stopping_at({(step, "train")}, stop)}
        with pytest.raises(Stopped):
            data.train(tmp_path / "parts", dataset, sharp_llama, **parts, **changes)
    parts = data.train(tmp_path / "parts", dataset, sharp_llama, **changes)
    assert data.files(parts) == data.files(whole)
    usual = data.train(tmp_path / "usual", dataset, sharp_llama, epochs=1.5, global_batch=6, metric="")
    assert data.files(usual) != data.files(whole)


def test_the_mean_is_validated_and_kept_and_training_goes_on_from_its_own_weights(tmp_path: Path) -> None:
    weights = {"a": torch.nn.Parameter(torch.tensor([1.0]))}
    average = averages.Average("last", weights, adamw(weights, weight_decay=0.0), tmp_path, 0.9, 2)
    for step, value in ((2, 1.0), (4, 3.0), (6, 8.0)):
        with torch.no_grad():
            weights["a"].fill_(value)
        with average.judged(tuple(range(2, step + 1, 2))):
            assert weights["a"].item() == {2: 1.0, 4: 2.0, 6: 5.5}[step]
        assert weights["a"].item() == value


def test_the_exponential_mean_follows_its_formula(tmp_path: Path) -> None:
    weights = {"a": torch.nn.Parameter(torch.tensor([1.0]))}
    average = averages.Average("ema", weights, adamw(weights, weight_decay=0.0), tmp_path, 0.5, 1)
    want = 1.0
    for step, value in ((1, 2.0), (2, 4.0), (30, 8.0)):
        with torch.no_grad():
            weights["a"].fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * value
    with average.judged((30,)):
        assert weights["a"].item() == pytest.approx(want)
    other = averages.Average("ema", weights, adamw(weights, weight_decay=0.0), tmp_path, 0.5, 1)
    other.restore(average.tensors())
    assert other.tensors()["a"].item() == pytest.approx(want)


def test_the_saved_checkpoint_is_the_mean_of_the_last_kept_ones(
    tmp_path: Path, dataset: Path, sharp_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    real = state.keep

    def keep(folder: Path, step: int, parameters: dict, *world: Any) -> None:
        real(folder, step, parameters)
        seen[step] = load_file(folder / f"kept-{step}.safetensors")

    monkeypatch.setattr(state, "keep", keep)
    work = data.train(
        tmp_path / "work", dataset, sharp_llama, averaging="last", validate_every_steps=1, metric="", lr=1e-3
    )
    assert work.summary["best_step"] == 6  # at this rate each mean is better than the one before
    kept = {p.name for p in work.state.glob("kept-*")}
    assert kept == {"kept-5.safetensors", "kept-6.safetensors"}
    saved = data.weights(work)
    for name, tensor in saved.items():
        key = name.replace(".weight", ".default.weight")
        torch.testing.assert_close(tensor, (seen[5][key] + seen[6][key]) / 2)


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"validate_every_steps": 4}, {4, 8, 10}),
        ({"validate_every_steps": 50}, {10}),
        ({"validate_every_epochs": 0.5, "epochs": 2.0}, {2, 5, 8, 10}),
        ({"validate_every_epochs": 0.001, "epochs": 2.0}, set(range(1, 11))),
        ({"validate_times": 2}, {5, 10}),
    ],
)
def test_validations_come_every_so_many_steps_or_parts_of_an_epoch(changes: dict, want: set[int]) -> None:
    assert validate_after(replace(data.SPEC, **changes), 10) == want


def judged(*found: tuple[float, float]) -> list[Judgment]:
    return [Judgment(step=10 * i, training_loss=t, validation_loss=v) for i, (t, v) in enumerate(found, 1)]


def test_overfitting_is_a_plain_sentence() -> None:
    said = overfitting(judged((2.0, 2.1), (1.0, 1.5), (0.4, 1.8)))
    assert "from step 20 to step 30 the training loss fell from 1 to 0.4" in said
    assert "validation loss rose from 1.5 to 1.8" in said
    assert overfitting(judged((2.0, 2.1), (1.0, 1.5), (0.9, 1.51))) == ""  # hardly rose
    assert overfitting(judged((1.0, 1.5), (3.0, 4.0))) == ""  # both rose: that is divergence
    assert overfitting(judged((1.0, 1.5))) == ""


def test_learning_a_few_rows_by_heart_is_noticed(tmp_path: Path, sharp_llama: Path) -> None:
    few = data.make_dataset(tmp_path / "few", train=4, validation=9)
    work = data.train(
        tmp_path / "work",
        few,
        sharp_llama,
        metric="",
        epochs=60.0,
        lr=2e-2,
        schedule="constant",
        validate_times=8,
    )
    assert work.summary["notes"] and work.summary["notes"][0].startswith("Overfitting: ")


def test_patience_is_in_the_resumable_state(tmp_path: Path, dataset: Path, sharp_llama: Path) -> None:
    """Stopped between two validations without gain, it still stops after the second."""
    changes = {"metric": "", "lr": 1.0, "method": data.FULL, "warmup": 0.0, "validate_every_steps": 1, "patience": 2}
    whole = data.train(tmp_path / "whole", dataset, sharp_llama, epochs=4.0, **changes)
    last = data.log(whole)[-1]["step"]
    assert last < 12
    stop = threading.Event()
    with pytest.raises(Stopped):
        progress = stopping_at({(last - 1, "train")}, stop)
        data.train(tmp_path / "parts", dataset, sharp_llama, epochs=4.0, stop=stop, progress=progress, **changes)
    parts = data.train(tmp_path / "parts", dataset, sharp_llama, epochs=4.0, **changes)
    assert data.files(parts) == data.files(whole)


def test_the_recipe_reads_the_rate_of_its_schedule() -> None:
    spec = replace(data.SPEC, schedule="wsd", decay=0.5, warmup=0.0, lr=1.0)
    assert [round(rate_at(spec, t, 4), 3) for t in range(4)] == [1.0, 1.0, 1.0, 0.293]
