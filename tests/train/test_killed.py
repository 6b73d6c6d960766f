"""Twenty kills during each method, with each optimizer and each averaging: the finish is the same to the byte."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny
from tests.train import data
from tests.train.lives import Lives, saved_step, wait_for_a_step_after
from tests.train.test_methods_train import METHODS, RATES
from tunesmith.core.stage import Exec
from tunesmith.train.optimizers.names import OPTIMIZERS

KILLS = 20
STEPS = 80
SELDOM = Exec(micro_batch_tokens=150, threads=1)
OFTEN = replace(SELDOM, save_every_s=0.0)
SOME = {"epochs": STEPS * 3 / 24, "global_batch": 3, "validate_times": 4, "schedule": "constant"}
BOTTLENECK = replace(data.LORA, kind="bottleneck", placement="houlsby", activation="silu", dropout=0.1)
BF16 = {"method": data.FULL, "precision": "bf16", "weights": "bf16", "lr": 1e-3}

CASES: dict[str, dict[str, Any]] = {
    "lora": {"schedule": "cosine"},
    "full": {"method": data.FULL, "schedule": "wsd", "lr": 1e-3},
    "houlsby": {"method": BOTTLENECK},
    "pfeiffer": {"method": replace(BOTTLENECK, placement="pfeiffer")},
    "parallel": {"method": replace(BOTTLENECK, placement="parallel")},
    **{name: {"method": method, "lr": RATES.get(name, 1e-2)} for name, method in METHODS.items()},
    **{f"{o}-lora": {"optimizer": o} for o in OPTIMIZERS if o not in ("adamw", "muon")},
    **{f"{o}-full": {"optimizer": o, "method": data.FULL, "lr": 1e-3} for o in OPTIMIZERS if o != "adamw"},
    "ema-lora": {"averaging": "ema"},
    "ema-full": {"averaging": "ema", "method": data.FULL, "lr": 1e-3},
    "last-lora": {"averaging": "last", "average_last": 3, "validate_times": 12, "metric": ""},
    "last-full": {"averaging": "last", "average_last": 3, "validate_times": 12, "method": data.FULL, "lr": 1e-3},
    "kept-lora": {"keep": 3, "keep_last": 2, "validate_times": 16},
    "kept-average": {"keep": 2, "keep_last": 1, "averaging": "last", "validate_times": 12, "metric": ""},
    "bf16-masters": {**BF16, "master": "fp32"},
    "bf16-stochastic": {**BF16, "master": "stochastic"},
    "bf16-lora": {"precision": "bf16"},
    "neftune": {"neftune_alpha": 5.0, "label_smoothing": 0.1, "method": replace(data.LORA, dropout=0.3)},
}


def live(*, root: str, dataset: str, base: str, name: str, often: bool) -> None:
    """One life, in its process."""
    data.train(Path(root), Path(dataset), Path(base), exec=OFTEN if often else SELDOM, **{**SOME, **CASES[name]})


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "two-layers", num_hidden_layers=2)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    with Lives() as found:
        yield found


def test_every_method_and_optimizer_is_killed() -> None:
    assert {*METHODS, *(f"{o}-full" for o in OPTIMIZERS if o != "adamw")} <= CASES.keys()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_killed_twenty_times(name: str, tmp_path: Path, dataset: Path, two_layers: Path, lives: Lives) -> None:
    """Each kill meets a training at work, at least one step further than the kill before, in any phase of a step or of
    the writing of its state."""
    common = {"dataset": str(dataset), "base": str(two_layers), "name": name}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lives.begin(root=str(whole), often=False, **common)
    assert lives.finish() == 0
    rng, ends, steps = random.Random(name), [], []
    for _ in range(KILLS):
        before = saved_step(parts)
        lives.begin(root=str(parts), often=True, **common)
        wait_for_a_step_after(parts, before)
        time.sleep(rng.uniform(0, 0.03))
        ends.append(lives.kill())
        steps.append(saved_step(parts))
    print(f"{name}: killed after the steps {steps} of {STEPS}")
    assert ends == [-signal.SIGKILL] * KILLS
    assert steps == sorted(set(steps)) and steps[-1] < STEPS
    lives.begin(root=str(parts), often=False, **common)
    assert lives.finish() == 0
    assert data.files(data.opened(parts)) == data.files(data.opened(whole))
