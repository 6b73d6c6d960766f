"""bf16 weights: their fp32 copies, or steps rounded by chance; gradients summed in fp32; resumed to the bit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.train.optimizers import masters
from tunesmith.train.optimizers.catalog import make

BF16 = {"method": data.FULL, "precision": "bf16", "weights": "bf16", "lr": 1e-3, "metric": ""}


def test_rounding_by_chance_is_right_on_average_and_only_to_neighbours() -> None:
    values = torch.tensor([1.0 + 2**-9, -3.1415926, 1e-20, 0.0, 65504.0])
    draws = torch.stack(
        [masters.stochastic(values, masters.generator(values.device, 0, "w", s)).float() for s in range(4000)]
    ).double()
    down = (values.view(torch.int32) & -65536).view(torch.float32)
    step = ((values.view(torch.int32) & -65536) + 65536).view(torch.float32) - down
    off = (draws.mean(0) - values.double()).abs()
    assert bool((off <= 4 * step.abs().double() * 0.5 / 4000**0.5).all())  # four standard errors at the most
    assert {float(v) for v in draws[:, 0]} == {1.0, 1.0 + 2**-7}  # both neighbours and nothing else
    assert bool((draws[:, 3] == 0).all())
    assert 0.2 < float((draws[:, 0] > 1).double().mean()) < 0.3  # a quarter of the way


def test_what_is_not_finite_stays_so() -> None:
    values = torch.tensor([float("inf"), float("-inf"), float("nan")])
    got = masters.stochastic(values, masters.generator(values.device, 0, "w", 0))
    assert got[0] == float("inf") and got[1] == float("-inf") and bool(got[2].isnan())


@pytest.mark.parametrize("shape", [(7, 5), (13,), ()])
def test_a_weight_rounded_in_parts_is_the_same_as_at_once(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    values = torch.randn(shape)
    found = []
    for together in (1 << 20, 4, 1):
        monkeypatch.setattr(masters, "ROUNDED_TOGETHER", together)
        weight = torch.zeros(shape, dtype=torch.bfloat16)
        masters.round_into(weight, values, masters.generator(values.device, 0, "w", 0))
        found.append(weight)
    assert torch.equal(found[0], masters.stochastic(values, masters.generator(values.device, 0, "w", 0)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("master", ["fp32", "stochastic"])
def test_small_steps_are_not_lost(master: masters.Master) -> None:
    """A hundred steps of a tenth of the distance between two bf16 numbers; rounding to nearest would lose them all."""
    p = torch.nn.Parameter(torch.ones(4000, dtype=torch.bfloat16))
    masters.sum_gradients_in_fp32({"w": p})
    made = masters.optimizer_for(lambda ps: make("lion", ps, weight_decay=0.0), {"w": p}, master=master, seed=0)
    for group in made.param_groups:
        group["lr"] = 2**-8 / 10  # below 1, bf16 numbers are 2**-8 apart
    for _ in range(100):
        p.grad = torch.ones(4000)
        made.step()
    want = 1 - 100 * 2**-8 / 10
    assert p.dtype == torch.bfloat16
    assert float(p.detach().double().mean()) == pytest.approx(want, abs=2e-3)
    kept = sum(c.numel() for c in made.copies.values())  # type: ignore[attr-defined]
    assert kept == (4000 if master == "fp32" else 0)


def test_gradients_of_bf16_weights_are_summed_in_fp32() -> None:
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    masters.sum_gradients_in_fp32({"w": p})
    for size in (256.0, 1.0, 1.0):  # bf16 would stay at 256
        (p * size).sum().backward()
    assert p.grad is not None and p.grad.dtype == torch.float32
    assert p.grad.tolist() == [258.0, 258.0]


@pytest.mark.parametrize("master", ["fp32", "stochastic"])
def test_training_in_bf16_learns_like_fp32_and_resumes_to_the_bit(
    tmp_path: Path, dataset: Path, tiny_llama: Path, master: str
) -> None:
    fp32 = data.train(tmp_path / "fp32", dataset, tiny_llama, method=data.FULL, lr=1e-3, metric="")
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, master=master, **BF16)
    first, last = data.losses(whole)[0], data.losses(whole)[-1]
    assert last < first - 0.3
    assert last == pytest.approx(data.losses(fp32)[-1], abs=0.25)
    assert {t.dtype for t in data.weights(whole).values()} == {torch.bfloat16}

    stop = threading.Event()

    def progress(done: float, total: float, label: str, **facts: object) -> None:
        if label == "train" and done == 3:
            stop.set()

    from tunesmith.core.errors import Stopped

    with pytest.raises(Stopped):
        data.train(tmp_path / "resumed", dataset, tiny_llama, master=master, stop=stop, progress=progress, **BF16)
    resumed = data.train(tmp_path / "resumed", dataset, tiny_llama, master=master, **BF16)
    assert data.files(resumed) == data.files(whole)


@pytest.mark.parametrize("optimizer", ["adafactor", "schedule_free", "muon"])
def test_every_optimizer_steps_bf16_weights(tmp_path: Path, dataset: Path, tiny_llama: Path, optimizer: str) -> None:
    schedule = "constant" if optimizer == "schedule_free" else "cosine"
    changes = BF16 | {"optimizer": optimizer, "schedule": schedule, "epochs": 1.0, "validate_times": 1}
    for master in ("fp32", "stochastic"):
        work = data.train(tmp_path / master, dataset, tiny_llama, master=master, **changes)
        assert data.losses(work)[-1] < data.losses(work)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "bf16", "precision": "bf16"}, "bf16 is for full fine-tuning"),
        ({"weights": "bf16", "method": data.FULL}, "cannot give fp32 products"),
        ({"master": "stochastic", "method": data.FULL}, "these are fp32"),
        (BF16 | {"averaging": "ema"}, "would be rounded at every step"),
    ],
)
def test_what_cannot_be_is_refused_with_a_fix(
    tmp_path: Path, dataset: Path, tiny_llama: Path, changes: dict, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        data.train(tmp_path, dataset, tiny_llama, **changes)
