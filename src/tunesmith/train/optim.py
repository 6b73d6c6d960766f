"""The optimizer's side of a step: AdamW, the learning rate at a step, clipping, and refusal of broken numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from tunesmith.core.errors import Problem, TunesmithError

BETAS = (0.9, 0.999)
EPS = 1e-8


def adamw(parameters: Mapping[str, nn.Parameter], *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over named parameters in their order. Vectors (norms, biases) do not decay.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; constants as in transformers' Trainer.
    """
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=BETAS, eps=EPS, fused=True)


def rate(
    step: int, *, steps: int, peak: float, warmup: float, schedule: Literal["cosine", "linear", "constant"]
) -> float:
    """Learning rate of optimizer step `step` (0-based) of `steps`: up in a line over the first
    ceil(warmup * steps), then as the schedule says, towards 0 at `steps`.

    transformers' schedules are the same but for warm-up, whose first step they take at rate 0: that
    step learns nothing, so ours starts one rung up the ladder.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    share = (step - rising) / max(1, steps - rising)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - share)
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * share))
        case _:
            assert_never(schedule)


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before."""
    parameters = list(parameters)
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)


def apply(optimizer: torch.optim.Optimizer, *, lr: float) -> None:
    """One step at this rate; gradients are dropped afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's memory by name, to be saved."""
    return {
        f"{kind}.{name}": optimizer.state[p][kind]
        for name, p in parameters.items()
        if p in optimizer.state
        for kind in ("exp_avg", "exp_avg_sq")
    }


def restore_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    saved: Mapping[str, Tensor],
    step: int,
) -> None:
    for name, p in parameters.items():
        if f"exp_avg.{name}" in saved:
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": saved[f"exp_avg.{name}"].clone(),
                "exp_avg_sq": saved[f"exp_avg_sq.{name}"].clone(),
            }


def refuse_non_finite(step: int, loss: float, norm: float, rows: Sequence[str]) -> None:
    """Stop before a step that would spoil the weights. `rows` are "file:line" of the batch."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"loss {loss} and gradient norm {norm} in step {step + 1}: the weights were not touched"
    shown = ", ".join(rows[:16]) + (f" (+{len(rows) - 16} more)" if len(rows) > 16 else "")
    fix = "look at these rows; if they are fine, lower the rate: --set train.lr=... (a third of the present one)"
    raise TunesmithError(Problem(where=shown, what=what, fix=fix))
