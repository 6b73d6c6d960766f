"""Each optimizer against its paper's formula or its authors' code, and its memory through a save."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.train import optim, state
from tunesmith.train.optimizers.catalog import hidden_weights, judged, make
from tunesmith.train.optimizers.names import OPTIMIZERS

torch.set_default_dtype(torch.float32)
STEPS = 6


def parameters(seed: int = 0) -> dict[str, torch.nn.Parameter]:
    """One matrix large enough for bitsandbytes to keep in 8 bits, one small, one vector."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"large": (64, 72), "norm": (5,), "small": (4, 6)}
    return {n: torch.nn.Parameter(torch.randn(*s, generator=generator)) for n, s in shapes.items()}


def step(weights: dict[str, torch.nn.Parameter], optimizer: object, t: int, lr: float = 0.01) -> None:
    for i, p in enumerate(weights.values()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i)) + 0.1 * p.detach()
    optim.apply(optimizer, lr=lr)


def built(name: str, weights: dict[str, torch.nn.Parameter]) -> object:
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes", reason="the extra bitsandbytes is not installed")
    return make(name, weights, weight_decay=0.1, hidden=lambda n: n != "small")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_and_resumed_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    whole = parameters()
    optimizer = built(name, whole)
    for t in range(STEPS):
        step(whole, optimizer, t)
    weights = parameters()
    for t in range(STEPS):
        optimizer = built(name, weights)
        assert state.resume(tmp_path, "x", weights, optimizer).step == t
        step(weights, optimizer, t)
        state.save(tmp_path, state.Position(spec_id="x", step=t + 1), weights, optimizer)
        weights = {n: torch.nn.Parameter(torch.zeros_like(p)) for n, p in weights.items()}
    state.resume(tmp_path, "x", weights, built(name, weights))
    for n in whole:
        assert torch.equal(weights[n], whole[n]), n
        assert not torch.equal(whole[n], parameters()[n]), n


def test_lion_is_algorithm_2() -> None:
    weights = parameters()
    w, m = weights["small"].detach().double().clone(), torch.zeros(4, 6, dtype=torch.float64)
    optimizer = make("lion", weights, weight_decay=0.1)
    for t in range(STEPS):
        for i, p in enumerate(weights.values()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i))
        g = weights["small"].grad.double()
        w = w - 0.01 * ((0.9 * m + 0.1 * g).sign() + 0.1 * w)
        m = 0.99 * m + 0.01 * g
        optim.apply(optimizer, lr=0.01)
    torch.testing.assert_close(weights["small"].detach().double(), w, atol=1e-6, rtol=0)


def test_schedule_free_is_its_authors_own() -> None:
    theirs_library = pytest.importorskip("schedulefree", reason="the oracle schedulefree is not installed")
    ours, theirs = parameters(), parameters()
    optimizer = make("schedule_free", ours, weight_decay=0.1)
    groups = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in theirs.values()]
    peer = theirs_library.AdamWScheduleFree(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    peer.train()
    for t in range(STEPS):
        rate = 0.01 * min(1, (t + 1) / 3)
        for group in peer.param_groups:
            group["lr"] = rate
        step(ours, optimizer, t, rate)
        for i, p in enumerate(theirs.values()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i)) + 0.1 * p.detach()
        peer.step()
    for n in ours:
        torch.testing.assert_close(ours[n], theirs[n], atol=1e-5, rtol=0)
    peer.eval()
    averages = judged(optimizer, ours)
    for n in ours:
        torch.testing.assert_close(averages[n], theirs[n].detach(), atol=1e-5, rtol=0)
        assert not torch.equal(averages[n], ours[n].detach())


def test_adafactor_divides_by_the_outer_product_of_row_and_column_means() -> None:
    """One step, decay 1 - 1^-0.8 = 0: the update is g / sqrt(R C / mean R), clipped to a root mean square of 1."""
    weights = parameters()
    before = weights["small"].detach().clone()
    optimizer = make("adafactor", weights, weight_decay=0.0)
    for p in weights.values():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) * 100
    g = weights["small"].grad.double()
    rows, columns = (g**2).mean(1, keepdim=True), (g**2).mean(0, keepdim=True)
    update = g / (rows * columns / rows.mean()).sqrt()
    update = update / max(1.0, float(update.square().mean().sqrt()))
    optim.apply(optimizer, lr=0.01)
    torch.testing.assert_close((before - weights["small"].detach()).double(), 0.01 * update, atol=1e-6, rtol=0)


def test_muon_takes_orthogonal_steps_in_hidden_matrices_and_adamw_s_in_the_rest() -> None:
    weights, plain = parameters(), parameters()
    before = weights["large"].detach().clone()
    optimizer = make("muon", weights, weight_decay=0.0, hidden=lambda n: n == "large")
    adamw = make("adamw", plain, weight_decay=0.0)
    step(weights, optimizer, 0)
    step(plain, adamw, 0)
    update = (before - weights["large"].detach()) / (0.01 * 0.2 * math.sqrt(72))
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.5 and singular.max() < 1.5
    for n in ("norm", "small"):
        assert torch.equal(weights[n], plain[n])


def test_muon_leaves_embeddings_and_head_to_adamw(tiny_llama: Path) -> None:
    from tunesmith.model.load import load_base

    model = load_base(tiny_llama, dtype="fp32")
    hidden = hidden_weights(model)
    matrices = [n for n, p in model.named_parameters() if p.ndim == 2 and hidden(n)]
    assert not any("embed" in n or "lm_head" in n for n in matrices)
    assert len(matrices) == 3 * 7


def test_eight_bits_stay_near_adamw() -> None:
    ours, plain = parameters(), parameters()
    eight, full = built("adamw_8bit", ours), make("adamw", plain, weight_decay=0.1)
    for t in range(STEPS):
        step(ours, eight, t)
        step(plain, full, t)
    moved = (plain["large"] - parameters()["large"]).abs().mean()
    assert 0 < (ours["large"] - plain["large"]).abs().mean() < 0.1 * moved


def test_two_rates_by_name_and_the_first_pattern_counts() -> None:
    weights = parameters()
    optimizer = make("adamw", weights, weight_decay=0.1, lr_ratios=(("la*", 16.0), ("*l*", 0.5)))
    optim.apply(optimizer, lr=0.1)
    names = {id(p): n for n, p in weights.items()}
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates == {"large": pytest.approx(1.6), "small": pytest.approx(0.05), "norm": pytest.approx(0.1)}


def test_a_pattern_that_matches_nothing_is_refused_with_near_names() -> None:
    with pytest.raises(InputError, match="matches no trained weight") as e:
        make("adamw", parameters(), weight_decay=0.0, lr_ratios=(("smal", 2.0),))
    assert "small" in str(e.value)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"optimizer": "schedule_free"}, "train.schedule"),
        ({"optimizer": "schedule_free", "schedule": "constant", "averaging": "ema"}, "train.averaging"),
        ({"optimizer": "muon"}, "train.optimizer"),
        ({"optimizer": "sgd"}, "train.optimizer"),
        ({"lr_ratios": (("*", -1.0),)}, "train.lr_ratios"),
        ({"validate_every_steps": 1, "validate_every_epochs": 0.5}, "train.validate_every_epochs"),
    ],
)
def test_pairs_that_would_train_badly_are_refused(changes: dict, where: str) -> None:
    with pytest.raises(InputError) as e:
        replace(data.SPEC, **changes)
    assert any(p.where.startswith(where) for p in e.value.problems)


@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_wsd_is_that_of_transformers_with_warm_up_one_rung_up(warmup: float) -> None:
    from transformers import get_wsd_schedule

    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    rising = math.ceil(warmup * 20)
    peer = get_wsd_schedule(sgd, num_warmup_steps=rising, num_decay_steps=5, num_training_steps=20, decay_type="1-sqrt")
    for t in range(20):
        got = optim.rate(t, steps=20, peak=0.5, warmup=warmup, schedule="wsd", decay=0.25)
        rung = 0.5 / rising if t < rising else 0.0
        assert got == pytest.approx(peer.get_last_lr()[0] + rung)
        sgd.step()
        peer.step()
