"""Supervised fine-tuning: cross-entropy on the tokens the model should have written.

Read the loop in `sft` first; what it steps is in learner.py, what it keeps in keeper.py; the arithmetic is in
losses.py, optim.py and forward.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.model.device import facts
from tunesmith.model.flat_layout import Document
from tunesmith.text.render import Renderer
from tunesmith.train import state
from tunesmith.train.averages import Average
from tunesmith.train.batches import last_turn_only, read_rows
from tunesmith.train.cost import machine
from tunesmith.train.forgetting import Forgetting, ends_early, kept_sentence, watch
from tunesmith.train.guard import WINDOW, broken, is_spike, own_losses
from tunesmith.train.judge import Judge
from tunesmith.train.keeper import Keeper
from tunesmith.train.learner import Learner, at_start, begin
from tunesmith.train.pool import Batch, Pool, general_documents, wordings
from tunesmith.train.retention import Retention
from tunesmith.train.stages import SftInputs, SftOutputs, SftSpec, many_epochs
from tunesmith.train.start import check_start
from tunesmith.train.validate import Validation, overfitting, validate_after


def sft(spec: SftSpec, inputs: SftInputs, work: Workspace) -> SftOutputs:
    world = begin(work.exec)
    renderer = Renderer.load(inputs.base, system=spec.system, user=spec.template, new_tokens=spec.new_tokens)
    if inputs.start is not None:
        check_start(inputs.start, renderer)
    pool = pool_of(spec, inputs, renderer)
    schedule = pool.schedule(spec.mixture, epochs=spec.epochs, global_batch=spec.global_batch)
    steps, taken = schedule.steps, schedule.tokens
    validations = validate_after(spec, steps)

    work.progress(0, steps, "load")
    forgetting = watch(spec, inputs.general, renderer, work.state, to_replay=pool.has_general)
    learner = at_start(spec, inputs.base, pool.documents, work.exec, start=inputs.start, world=world)
    weights, optimizer = learner.parameters, learner.optimizer
    average = Average(spec.averaging, weights, optimizer, work.state, spec.ema_decay, spec.average_last, world)
    validation = Validation(spec, inputs.dataset, renderer)
    retention = Retention(keep=spec.keep, last=spec.keep_last, higher_is_better=validation.higher_is_better)
    keeper = Keeper(work, learner, retention, average)
    judge = Judge(
        work=work, learner=learner, keeper=keeper, validation=validation, forgetting=forgetting, steps=steps,
        average=average,
    )  # fmt: skip

    at = keeper.resume()
    begun = at.best_loss is not None or forgetting is None
    work.keep_log_until(lambda line: begun and line["step"] <= at.step)
    if forgetting is not None:
        forgetting.resume(at.step if begun else -1)
    if not begun:  # what training gains and forgets is held against step 0, which is a candidate itself
        at = judge(at)
        keeper.save(at)
    while at.step < steps and not ends_early(spec.patience, at.waited, forgetting):
        started = time.perf_counter()
        chosen = at.remaining(schedule.batch(at.step) + pool.replayed(forgetting, spec.replay_share, taken, at.step))
        batch = pool.batch(chosen, schedule.epoch(at.step))
        loss, at = learner.learn(work, at, batch.documents)
        norm = learner.clip()
        if is_spike(at, loss, norm, batch.places, on_spike=spec.on_spike, spike_z=spec.spike_z):
            at, again = left_out(work, learner, at, loss, batch, started)
            if again:
                continue
        else:
            lr = learner.step(at.step, steps)
            tokens = sum(len(d.ids) for d in batch.documents)
            at = at.trained(loss, tokens=tokens, seconds=time.perf_counter() - started, window=WINDOW)
            average.update(at.step)
            if at.step % work.exec.log_every == 0 or at.step == steps:
                work.log(step=at.step, loss=loss, lr=lr, grad_norm=norm, tokens=tokens)
        work.progress(at.step, steps, "train", loss=loss, rate=at.tokens / at.seconds, best=at.best)
        if at.step in validations:
            at = judge(at)
        keeper.save_when_due(at, validated=at.step in validations)

    work.summarize(**_summary(spec, at, learner, forgetting, pool, steps), **keeper.facts(at))
    of_run = {"renderer": renderer, "steps": steps, "places": pool.places}
    checkpoint, kept = keeper.checkpoints(at, inputs.base, pool.documents, inputs.start, **of_run)
    return SftOutputs(checkpoint=checkpoint, kept=kept)


def left_out(
    work: Workspace, learner: Learner, at: state.Position, loss: float, batch: Batch, started: float
) -> tuple[state.Position, bool]:
    """The position after a batch that is far off, and whether its step is taken again: without the rows that are
    broken by themselves; else the batch is skipped whole."""
    learner.forget_gradients()
    alone = own_losses(learner.forward, batch.documents)
    out = broken(alone)
    if len(out) < len(batch.numbers):
        at = at.without(loss, [batch.numbers[i] for i in out])
        work.log(step=at.step + 1, left_out=[batch.places[i] for i in out], spike=at.left_out[-1].loss)
        return at, True
    at = at.skipped(loss, batch.numbers, seconds=time.perf_counter() - started)
    worst = batch.places[max(range(len(alone)), key=alone.__getitem__)]
    work.log(step=at.step, left_out=batch.places, spike=at.left_out[-1].loss, worst=worst)
    return at, False


def pool_of(spec: SftSpec, inputs: SftInputs, renderer: Renderer) -> Pool:
    """The rows and the general data, rendered. Raises DataError for rows that cannot be learnt from."""
    rows = rows_of(spec, inputs.dataset)
    general = [] if inputs.general is None else read_rows(inputs.general / "train.jsonl")
    documents = documents_of(spec, inputs.base, rows)
    return Pool(rows, documents, general_documents(general, renderer, spec.max_tokens), seed=spec.seed)


def rows_of(spec: SftSpec, dataset: Path) -> list[Row]:
    rows = read_rows(dataset / "train.jsonl")
    return [last_turn_only(row) for row in rows] if spec.turns == "last" else rows


def documents_of(spec: SftSpec, base: Path, rows: Sequence[Row]) -> list[list[Document]]:
    """Each row in every wording that training may draw, the one that serves first."""
    templates = (("serving", spec.template), *spec.templates)
    systems = (("serving", spec.system), *spec.systems)
    return wordings(
        rows, base, templates=templates, systems=systems, max_tokens=spec.max_tokens, new_tokens=spec.new_tokens
    )


def _summary(
    spec: SftSpec, at: state.Position, learner: Learner, watched: Forgetting | None, pool: Pool, steps: int
) -> dict[str, Any]:
    forward = learner.forward
    stopped_early = ends_early(spec.patience, at.waited, watched) if at.step < steps else ""
    notes = [overfitting(at.judgments), many_epochs(spec.epochs, pool.own)]
    more: dict[str, Any] = {"stopped_early": stopped_early} if stopped_early else {}
    if spec.mixture:
        more["mixture"] = pool.mixture(spec.mixture).facts()
    if watched is not None:
        forgetting = watched.facts(at.best_step)
        more |= {"gained": gained(at, spec.metric), "forgetting": forgetting}
        notes.append(f"{gained_sentence(at, spec.metric)} {kept_sentence(forgetting)}")
    if stopped_early:
        notes.append(f"Training stopped after {at.step} steps: {stopped_early}.")
    if at.micro_batch_tokens:
        notes.append(f"Memory ran out: micro-batches were cut to {at.micro_batch_tokens} tokens, and training went on.")
    if at.left_out:
        count = sum(len(b.rows) for b in at.left_out)
        notes.append(f"{count} rows in {len(at.left_out)} batches were left out: their loss was far above the others'.")
    return {
        "notes": [n for n in notes if n],
        "optimizer": spec.optimizer,
        "steps": at.step,
        "tokens": at.tokens,
        "tokens_per_s": round(at.tokens / at.seconds, 1) if at.seconds else 0.0,
        "seconds": round(at.seconds, 3),
        "best_step": at.best_step,
        "best": at.best,
        "validation_loss": at.best_loss,
        "path": f"{forward.path}: {forward.why}" if forward.why else forward.path,
        "precision": spec.precision,
        "trained_weights": learner.world.count(learner.parameters),
        "peak_mib": machine.peak_mib(),
        **more,
        **facts(forward.device),
    }


def gained(at: state.Position, metric: str) -> dict[str, tuple[float, float]]:
    """What was measured on the task: (before, of the weights that are kept), for the loss and the metric."""
    before, kept = (next(j for j in at.judgments if j.step == step) for step in (0, at.best_step))
    found = {"validation_loss": (before.validation_loss, kept.validation_loss)}
    if before.metric is not None and kept.metric is not None:
        found[metric] = (before.metric, kept.metric)
    return found


def gained_sentence(at: state.Position, metric: str) -> str:
    said = [
        f"{name.replace('_', ' ')} {before:.3g} → {after:.3g}" for name, (before, after) in gained(at, metric).items()
    ]
    return f"Gained: {', '.join(said)}."
