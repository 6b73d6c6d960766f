"""A batch whose numbers are broken or far above the recent ones: stop before its step, or leave its rows out.

The loss is known before the weights are touched, so the state before the batch is the present one: leaving
a batch out drops its gradients, takes no step, and keeps its rows out of later epochs too. Where a row's own loss is
no finite number, that row alone is left out and the step is taken with the others; a batch that is only far above the
recent ones is left out whole, since every row of it had its part, and its worst row is named. Where several batches in
a row are far off, the weights are what is wrong, and no choice of rows would mend them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

import torch

from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.model.flat_layout import Document
from tunesmith.train.forward import Forward
from tunesmith.train.optim import refuse_non_finite
from tunesmith.train.state import Position

WINDOW = 64  # recent losses that a new one is compared with
ENOUGH = 16  # fewer say nothing
FLOOR = 0.05  # smallest spread taken seriously, as a share of the median: losses that hardly move are no alarm
IN_A_ROW = 3  # batches left out one after another before the training stops

OnSpike = Literal["ignore", "stop", "skip"]


def robust_z(loss: float, recent: Sequence[float]) -> float:
    """How many robust standard deviations `loss` lies above the recent losses; 0 while there are too few.

    (loss - median) / (1.4826 MAD), the modified z-score of Iglewicz & Hoaglin 1993: spikes among the recent
    losses do not widen it. Infinity for a loss that is not finite.
    """
    if not math.isfinite(loss):
        return math.inf
    if len(recent) < ENOUGH:
        return 0.0
    middle = median(recent)
    spread = 1.4826 * median(abs(x - middle) for x in recent)
    return (loss - middle) / max(spread, FLOOR * abs(middle), 1e-6)


def is_spike(at: Position, loss: float, norm: float, rows: Sequence[str], *, on_spike: OnSpike, spike_z: float) -> bool:
    """Whether the batch of the step after `at` is to be left out; `rows` are its "file:line". Raises TunesmithError
    where the training must stop; the weights are untouched."""
    step = at.step
    if on_spike != "skip":
        refuse_non_finite(step, loss, norm, rows)
    z = robust_z(loss if math.isfinite(norm) else math.inf, at.recent)
    if on_spike == "ignore" or z < spike_z:
        return False
    above = f"{z:.0f} robust standard deviations above the last {len(at.recent)}" if math.isfinite(z) else "not finite"
    what = f"loss {loss:.3g} in step {step + 1} is {above}: the weights were not touched"
    if on_spike == "stop":
        fix = "look at these rows; to leave them out and go on: --set train.on_spike=skip"
        raise TunesmithError(Problem(where=shown(rows), what=what, fix=fix))
    if {step - n for n in range(IN_A_ROW)} <= {b.step for b in at.left_out if b.whole}:
        what += f", and so it was in the {IN_A_ROW} batches before, so it is the weights and not the rows"
        fix = "lower the rate: --set train.lr=... (a third of the present one)"
        raise TunesmithError(Problem(where=shown(rows), what=what, fix=fix))
    return True


def own_losses(forward: Forward, batch: Sequence[Document]) -> list[float]:
    """Nats a token of each document by itself, without noise."""
    with torch.no_grad():
        return [float(forward.nll_sum([d], step=None)) / d.supervised for d in batch]


def broken(losses: Sequence[float]) -> list[int]:
    """The rows that are wrong by themselves; all of them where no single one is."""
    found = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
    return found or list(range(len(losses)))


def shown(rows: Sequence[str]) -> str:
    return ", ".join(rows[:16]) + (f" (+{len(rows) - 16} more)" if len(rows) > 16 else "")
