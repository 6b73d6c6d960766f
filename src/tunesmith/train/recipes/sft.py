"""Supervised fine-tuning: cross-entropy on the tokens the model should have written.

Read the loop in `sft` first; the arithmetic it calls is in losses.py, optim.py and forward.py.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tunesmith.core.canonical import content_id
from tunesmith.core.stage import Workspace
from tunesmith.model.flat_layout import Document, shared_prefix
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.text.render import Renderer
from tunesmith.train import optim, state
from tunesmith.train.batches import Schedule, read_rows, render_rows, split
from tunesmith.train.checkpoint import write_checkpoint
from tunesmith.train.forward import Forward, choose_forward
from tunesmith.train.stages import SftInputs, SftOutputs, SftSpec
from tunesmith.train.validate import Validation, validation_steps


def sft(spec: SftSpec, inputs: SftInputs, work: Workspace) -> SftOutputs:
    if work.exec.threads:
        torch.set_num_threads(work.exec.threads)
    renderer = Renderer.load(inputs.base, system=spec.system)
    rows = read_rows(inputs.dataset / "train.jsonl")
    documents = render_rows(rows, renderer, spec.max_tokens)
    schedule = Schedule(rows, epochs=spec.epochs, global_batch=spec.global_batch, seed=spec.seed)
    steps = schedule.steps
    validate_after = validation_steps(steps, spec.validate_times)

    work.progress(0, steps, "load")
    full = spec.method.kind == "full"
    model = methods.wrap(load_base(inputs.base, dtype="fp32" if full else spec.precision), spec.method, seed=spec.seed)
    parameters = methods.trainable_parameters(model)
    optimizer = optim.adamw(parameters, weight_decay=spec.weight_decay)
    forward = choose_forward(model, documents, spec.precision, full=full, seed=spec.seed)
    validation = Validation(spec, inputs.dataset, renderer)

    at = state.resume(work.state, content_id(spec), parameters, optimizer)
    work.keep_log_until(lambda line: line["step"] <= at.step)
    saved_at = time.monotonic()
    while at.step < steps and not (spec.patience and at.waited >= spec.patience):
        started = time.perf_counter()
        chosen = schedule.batch(at.step)
        batch = [documents[i] for i in chosen]
        loss = accumulate(forward, batch, at.step, work.exec.micro_batch_tokens)
        norm = optim.clip(parameters.values(), spec.max_grad_norm)
        optim.refuse_non_finite(at.step, loss, norm, [f"{rows[i].file}:{rows[i].line}" for i in chosen])
        lr = optim.rate(at.step, steps=steps, peak=spec.lr, warmup=spec.warmup, schedule=spec.schedule)
        optim.apply(optimizer, lr=lr)

        tokens = sum(len(d.ids) for d in batch)
        seconds = at.seconds + time.perf_counter() - started
        at = replace(at, step=at.step + 1, tokens=at.tokens + tokens, seconds=seconds)
        if at.step % work.exec.log_every == 0 or at.step == steps:
            work.log(step=at.step, loss=loss, lr=lr, grad_norm=norm, tokens=tokens)
        work.progress(at.step, steps, "train", loss=loss, rate=at.tokens / seconds, best=at.best)
        if at.step in validate_after:
            work.progress(at.step, steps, "validate", loss=loss, best=at.best)
            outcome = validation.run(model, forward, max_tokens=work.exec.micro_batch_tokens)
            work.log(step=at.step, **outcome)
            at = at.after(outcome["validation_loss"], outcome.get(spec.metric), validation.higher_is_better)
            if at.best_step == at.step:
                state.save_best(work.state, at.step, parameters)
        if at.step in validate_after or work.stop.is_set() or time.monotonic() - saved_at >= work.exec.save_every_s:
            state.save(work.state, at, parameters, optimizer)
            saved_at = time.monotonic()
            work.stop_if_asked()

    state.load_best(work.state, at.best_step, parameters)
    work.summarize(**_summary(spec, at, forward, trained_weights=sum(p.numel() for p in parameters.values())))
    folder = work.scratch / "checkpoint"
    write_checkpoint(folder, spec, inputs.base, model, renderer, at, steps)
    return SftOutputs(checkpoint=folder)


def accumulate(forward: Forward, batch: Sequence[Document], step: int, micro_batch_tokens: int) -> float:
    """Gradients of the batch's mean loss per supervised token, added up over micro-batches; returns the loss.

    Each micro-batch's sum is divided by the whole batch's tokens: averaging averages would give a short
    answer the weight of a long one.
    """
    supervised = sum(d.supervised for d in batch)  # tokens, by the rows' weights
    shared = shared_prefix(batch) if forward.shares_prefix else 0
    loss = 0.0
    for micro in split(batch, micro_batch_tokens, shared=shared):
        share = forward.nll_sum(micro, step=step) / supervised
        share.backward()
        loss += share.item()
    return loss


def _summary(spec: SftSpec, at: state.Position, forward: Forward, *, trained_weights: int) -> dict[str, Any]:
    return {
        "steps": at.step,
        "tokens": at.tokens,
        "tokens_per_s": round(at.tokens / at.seconds, 1) if at.seconds else 0.0,
        "seconds": round(at.seconds, 3),
        "best_step": at.best_step,
        "best": at.best,
        "validation_loss": at.best_loss,
        "path": f"{forward.path}: {forward.why}" if forward.why else forward.path,
        "precision": spec.precision,
        "trained_weights": trained_weights,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
