"""The learning-rate range finder: a short training at rates that grow step by step, and what its losses say.

Source: Smith 2017, arXiv:1506.01186 (the range test), with the growth on a log scale and the stop at a multiple
of the lowest loss that fastai made usual. It suggests where the smoothed loss falls most steeply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.core.stage import Workspace
from tunesmith.text.render import Renderer
from tunesmith.train import optim
from tunesmith.train.batches import Schedule, read_rows, render_rows
from tunesmith.train.learner import accumulate, at_start
from tunesmith.train.lr_stages import LrRangeOutputs, LrRangeSpec
from tunesmith.train.stages import SftInputs

SMOOTHING = 0.8  # of the exponential mean over losses: about the last five count
BURST = 3.0  # times the lowest smoothed loss, from which on nothing more is to be learnt
SIDE = 2  # points left and right of one, over which its slope is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Facts for a plot of loss over rate, rates on a log scale."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # of each batch before its step, nats a token
    smoothed: tuple[float, ...]
    suggestion: float | None  # None: the loss never fell
    lowest: float  # the rate at the lowest smoothed loss: too high already
    burst: float | None  # the rate at which the loss left all bounds; None: it never did
    why: str


def lr_range(spec: LrRangeSpec, inputs: SftInputs, work: Workspace) -> LrRangeOutputs:
    """Nothing of the model is kept: each execution starts at the base again. Deterministic for one machine."""
    if work.exec.threads:
        torch.set_num_threads(work.exec.threads)
    training = spec.training
    rows = read_rows(inputs.dataset / "train.jsonl")
    renderer = Renderer.load(
        inputs.base, system=training.system, user=training.template, new_tokens=training.new_tokens
    )
    documents = render_rows(rows, renderer, training.max_tokens)
    per_epoch = math.ceil(len(rows) / training.global_batch)
    epochs = float(math.ceil(spec.steps / per_epoch))
    schedule = Schedule(rows, epochs=epochs, global_batch=training.global_batch, seed=training.seed)
    work.keep_log_until(lambda line: False)
    work.progress(0, spec.steps, "load")
    learner = at_start(training, inputs.base, documents, work.exec)

    rates, losses = [], []
    for step in range(spec.steps):
        lr = spec.low * (spec.high / spec.low) ** (step / (spec.steps - 1))
        batch = [documents[i] for i in schedule.batch(step)]
        loss = accumulate(learner.forward, batch, step, work.exec.micro_batch_tokens)
        norm = learner.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        rates.append(lr)
        losses.append(loss)
        work.log(step=step + 1, lr=lr, loss=loss)
        work.progress(step + 1, spec.steps, "try", loss=loss)
        if smooth(losses)[-1] > BURST * min(smooth(losses)):
            break
        optim.apply(learner.optimizer, lr=lr)
        work.stop_if_asked()
    found = judge(rates, losses, burst=len(rates) < spec.steps or smooth(losses)[-1] > BURST * min(smooth(losses)))
    folder = work.scratch / "curve"
    folder.mkdir(parents=True)
    write_atomic(folder / "curve.json", canonical_json(asdict(found)) + b"\n")
    work.summarize(suggestion=found.suggestion, lowest=found.lowest, burst=found.burst, why=found.why, tried=len(rates))
    return LrRangeOutputs(curve=folder)


def smooth(losses: Sequence[float]) -> list[float]:
    """Exponential mean, corrected for its start as Adam's are."""
    total, found = 0.0, []
    for n, loss in enumerate(losses, 1):
        total = SMOOTHING * total + (1 - SMOOTHING) * loss
        found.append(total / (1 - SMOOTHING**n))
    return found


def judge(rates: Sequence[float], losses: Sequence[float], *, burst: bool) -> Curve:
    """What a curve says; `burst`: whether the loss left all bounds after the last rate."""
    if len(rates) < 2 * SIDE + 1:
        what = f"the loss left all bounds after {len(rates)} steps, so no rate can be suggested"
        raise TunesmithError(Problem(where="train.lr_range", what=what, fix="start at a lower rate: low"))
    smoothed = smooth(losses)
    bottom = min(range(len(rates)), key=smoothed.__getitem__)
    slopes = {}  # nats per factor e of the rate
    for i in range(SIDE, min(bottom + 1, len(rates) - SIDE)):
        run = math.log(rates[i + SIDE] / rates[i - SIDE])
        slopes[i] = (smoothed[i + SIDE] - smoothed[i - SIDE]) / run
    steepest = min(slopes, key=slopes.__getitem__) if slopes else None
    suggestion, why = None, "the loss never fell: the rates are too high, or there is nothing to learn"
    if steepest is not None and slopes[steepest] < 0:
        suggestion = rates[steepest]
        why = f"the smoothed loss falls most steeply there; it is lowest at {rates[bottom]:.1e}"
    return Curve(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        suggestion=suggestion,
        lowest=rates[bottom],
        burst=rates[-1] if burst else None,
        why=why,
    )
