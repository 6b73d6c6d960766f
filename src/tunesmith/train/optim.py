"""The optimizer's side of a step: the learning rate, clipping, the step itself, and refusal of broken numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, assert_never

import torch
from torch import nn

from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.train.optimizers.catalog import AnyOptimizer, Optimizer, make

DECAY = 0.2  # share of the steps in which wsd falls; Hägele et al. find 10 to 20 % enough
ScheduleName = Literal["cosine", "linear", "constant", "wsd"]


def adamw(parameters: Mapping[str, nn.Parameter], *, weight_decay: float) -> Optimizer:
    """Fused AdamW over named parameters in their order. Vectors (norms, biases) do not decay.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; constants as in transformers' Trainer.
    """
    return make("adamw", parameters, weight_decay=weight_decay)


def rate(step: int, *, steps: int, peak: float, warmup: float, schedule: ScheduleName, decay: float = DECAY) -> float:
    """Learning rate of optimizer step `step` (0-based) of `steps`: up in a line over the first
    ceil(warmup * steps), then as the schedule says, towards 0 at `steps`.

    wsd (warm-up, stable, decay) stays at the peak and falls as 1 - sqrt(share) over the last ceil(decay * steps),
    as in Hägele et al. 2024, arXiv:2405.18392; only it reads `decay`.
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
        case "wsd":
            falling = min(math.ceil(decay * steps), steps - rising)
            fallen = step - (steps - falling)
            return peak * (1 - math.sqrt(fallen / falling)) if fallen > 0 else peak
        case _:
            assert_never(schedule)


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before."""
    parameters = list(parameters)
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)


def apply(optimizer: AnyOptimizer, *, lr: float) -> None:
    """One step at this rate, times each group's own ratio; gradients are dropped afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("ratio", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def refuse_non_finite(step: int, loss: float, norm: float, rows: Sequence[str]) -> None:
    """Stop before a step that would spoil the weights. `rows` are "file:line" of the batch."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"loss {loss} and gradient norm {norm} in step {step + 1}: the weights were not touched"
    shown = ", ".join(rows[:16]) + (f" (+{len(rows) - 16} more)" if len(rows) > 16 else "")
    fix = "look at these rows; if they are fine, lower the rate: --set train.lr=... (a third of the present one)"
    raise TunesmithError(Problem(where=shown, what=what, fix=fix))
