"""Supervised fine-tuning: cross-entropy on the tokens the model should have written.

Read the loop in `sft` first; the arithmetic it calls is in losses.py, optim.py and forward.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tunesmith.core.canonical import content_id
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Exec, Workspace
from tunesmith.model.device import device_of, facts, refuse_precision
from tunesmith.model.flat_layout import Document
from tunesmith.model.methods import catalog as methods
from tunesmith.model.new_tokens import train_rows
from tunesmith.text.render import Renderer
from tunesmith.train import optim, state
from tunesmith.train.averages import Average
from tunesmith.train.batches import last_turn_only, read_rows
from tunesmith.train.checkpoint import folders, kept_facts, write_held
from tunesmith.train.cost import machine
from tunesmith.train.forgetting import ends_early, kept_sentence, watch
from tunesmith.train.forward import Forward, choose_forward
from tunesmith.train.guard import WINDOW, broken, is_spike, own_losses
from tunesmith.train.memory import within_memory
from tunesmith.train.optimizers.catalog import Optimizer, hidden_weights, make
from tunesmith.train.optimizers.masters import optimizer_for, sum_gradients_in_fp32
from tunesmith.train.parallel.engines import join
from tunesmith.train.parallel.world import ALONE, World
from tunesmith.train.pool import Pool, general_documents, wordings
from tunesmith.train.retention import Retention
from tunesmith.train.stages import SftInputs, SftOutputs, SftSpec, many_epochs
from tunesmith.train.start import base_with, check_start
from tunesmith.train.validate import Validation, overfitting, validate_after

T = TypeVar("T")


def sft(spec: SftSpec, inputs: SftInputs, work: Workspace) -> SftOutputs:
    machine.forget_peak()
    if work.exec.threads:
        torch.set_num_threads(work.exec.threads)
    world = join(work.exec)
    renderer = Renderer.load(inputs.base, system=spec.system, user=spec.template, new_tokens=spec.new_tokens)
    if inputs.start is not None:
        check_start(inputs.start, renderer)
    pool = pool_of(spec, inputs, renderer)
    schedule = pool.schedule(spec.mixture, epochs=spec.epochs, global_batch=spec.global_batch)
    steps, taken = schedule.steps, schedule.tokens
    validations = validate_after(spec, steps)

    work.progress(0, steps, "load")
    forgetting = watch(spec, inputs.general, renderer, work.state, to_replay=pool.has_general)
    model, parameters, optimizer, forward = prepared(
        spec, inputs.base, pool.documents, work.exec, start=inputs.start, world=world
    )
    average = Average(spec.averaging, parameters, optimizer, work.state, spec.ema_decay, spec.average_last, world)
    validation = Validation(spec, inputs.dataset, renderer)
    retention = Retention(keep=spec.keep, last=spec.keep_last, higher_is_better=validation.higher_is_better)

    def judged(at: state.Position) -> state.Position:
        """Validate the weights as they are to be kept, score the general data beside it, and hold the best."""
        work.progress(at.step, steps, "validate", best=at.best)
        with average.judged((*(j.step for j in at.judgments if j.step), at.step)) if at.step else nullcontext():
            judge = partial(validation.run, model, forward)
            outcome, at = fitted(work, at, validation.documents, parameters, optimizer, judge, world)
            if forgetting is not None:
                tokens = at.micro_batch_tokens or work.exec.micro_batch_tokens
                outcome |= forgetting.read(at.step, model, forward, max_tokens=tokens)
            outcome = world.same(outcome)
            allowed = forgetting is None or forgetting.within(at.step)
            better = validation.higher_is_better
            at = at.after(outcome["validation_loss"], outcome.get(spec.metric), better, allowed=allowed)
            if at.step in retention.steps(at):
                state.hold(work.state, at.step, parameters, world)
        work.log(step=at.step, **outcome)
        return at

    def save(at: state.Position) -> None:
        held = retention.steps(at)
        state.save(work.state, at, parameters, optimizer, average.tensors(), average.last, world, held)

    at = state.resume(work.state, content_id(spec), parameters, optimizer, world)
    average.restore(state.resume_more(work.state))
    begun = at.best_loss is not None or forgetting is None
    work.keep_log_until(lambda line: begun and line["step"] <= at.step)
    if forgetting is not None:
        forgetting.resume(at.step if begun else -1)
    if not begun:  # what training gains and forgets is held against step 0, which is a candidate itself
        at = judged(at)
        save(at)
    saved_at = time.monotonic()
    while at.step < steps and not ends_early(spec.patience, at.waited, forgetting):
        started = time.perf_counter()
        chosen = at.remaining(schedule.batch(at.step) + pool.replayed(forgetting, spec.replay_share, taken, at.step))
        batch = pool.batch(chosen, schedule.epoch(at.step))
        learn = partial(accumulate, forward, batch, at.step, world=world)
        loss, at = fitted(work, at, batch, parameters, optimizer, learn, world)
        norm = world.clip(parameters, spec.max_grad_norm)
        places = [pool.places[i] for i in chosen]
        if is_spike(at, loss, norm, places, on_spike=spec.on_spike, spike_z=spec.spike_z):
            optimizer.zero_grad(set_to_none=True)
            alone = own_losses(forward, batch)
            out = broken(alone)
            if len(out) < len(chosen):  # the same step again, without them
                at = at.without(loss, [chosen[i] for i in out])
                work.log(step=at.step + 1, left_out=[places[i] for i in out], spike=at.left_out[-1].loss)
                continue
            at = at.skipped(loss, chosen, seconds=time.perf_counter() - started)
            worst = places[max(range(len(alone)), key=alone.__getitem__)]
            work.log(step=at.step, left_out=places, spike=at.left_out[-1].loss, worst=worst)
        else:
            lr = rate_at(spec, at.step, steps)
            optim.apply(optimizer, lr=lr)
            tokens = sum(len(d.ids) for d in batch)
            at = at.trained(loss, tokens=tokens, seconds=time.perf_counter() - started, window=WINDOW)
            average.update(at.step)
            if at.step % work.exec.log_every == 0 or at.step == steps:
                work.log(step=at.step, loss=loss, lr=lr, grad_norm=norm, tokens=tokens)
        work.progress(at.step, steps, "train", loss=loss, rate=at.tokens / at.seconds, best=at.best)
        if at.step in validations:
            at = judged(at)
        if world.due(work.stop, at.step in validations or time.monotonic() - saved_at >= work.exec.save_every_s):
            save(at)
            saved_at = time.monotonic()
            work.stop_if_asked()

    trained_weights = world.count(parameters)
    early = ends_early(spec.patience, at.waited, forgetting) if at.step < steps else ""
    facts = forgetting.facts(at.best_step) if forgetting is not None else None
    work.summarize(**_summary(spec, at, forward, early, facts, rows=pool.own, trained_weights=trained_weights))
    if spec.mixture:
        work.summarize(mixture=pool.mixture(spec.mixture).facts())
    work.summarize(**world.facts(), **kept_facts(retention, at))
    checkpoint, kept = folders(work.scratch, retention, at)
    if world.writes:
        if world.splits:  # what was split is put together again: the same model anew, with the best weights
            model, parameters = at_start(spec, inputs.base, pool.documents, start=inputs.start)
        facts = {"spec": spec, "base": inputs.base, "model": model, "renderer": renderer}
        of_run = {"steps": steps, "places": pool.places}
        write_held(work.scratch, work.state, retention, parameters, at, inputs.start, **facts, **of_run)
    return SftOutputs(checkpoint=checkpoint, kept=kept)


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


def at_start(
    spec: SftSpec,
    base: Path,
    documents: Sequence[Document],
    start: Path | None,
    world: World = ALONE,
    *,
    device: Any = "cpu",
) -> tuple[Any, dict[str, nn.Parameter]]:
    """(model, trained weights), split among the ranks of `world`."""
    dtype = "fp32" if spec.method.kind == "full" else spec.precision
    bare = base_with(base, start, dtype=dtype, new_tokens=spec.new_tokens)
    model = methods.wrap(bare, spec.method, seed=spec.seed, texts=[d.ids for d in documents])
    if spec.method.kind != "full":  # which trains all rows
        train_rows(model, base, spec.new_tokens)
    model.to(device, torch.bfloat16 if spec.weights == "bf16" else None)
    world.shard(model)
    return model, methods.trainable_parameters(model)


def prepared(
    spec: SftSpec,
    base: Path,
    documents: Sequence[Document],
    exec: Exec,
    start: Path | None = None,
    world: World = ALONE,
) -> tuple[Any, dict[str, nn.Parameter], Optimizer, Forward]:
    """(model, trained weights, optimizer, forward) at their start."""
    device = device_of(exec.device)
    refuse_precision(device, spec.precision)
    full = spec.method.kind == "full"
    model, parameters = at_start(spec, base, documents, start, world, device=device)
    groups = methods.parameter_groups(model, spec.method)
    own = [(name, g["lr_ratio"]) for g in groups if g["lr_ratio"] != 1.0 for name in g["names"]]
    sum_gradients_in_fp32(parameters)
    made = partial(
        make,
        spec.optimizer,
        weight_decay=spec.weight_decay,
        lr_ratios=(*spec.lr_ratios, *own),
        hidden=hidden_weights(model),
        paged=exec.offload_optimizer and device.type == "cuda",
    )
    offload = exec.offload_optimizer and spec.optimizer != "adamw_8bit"  # which pages
    optimizer = optimizer_for(made, parameters, master=spec.master, seed=spec.seed, offload=offload)
    forward = choose_forward(
        model,
        documents,
        spec.precision,
        full=full and spec.weights == "fp32",
        seed=spec.seed,
        smoothing=spec.label_smoothing,
        neftune_alpha=spec.neftune_alpha,
        twice=exec.gradient_checkpointing,
        packing=exec.packing,
        attention=exec.attention,
        kernels=exec.kernels,
        compiled=exec.compile,
        offload=exec.activation_offload,
        plain_because=world.splits,
    )
    return model, parameters, world.bind(model, optimizer, forward, spec.max_grad_norm), forward


def rate_at(spec: SftSpec, step: int, steps: int) -> float:
    """Learning rate of 0-based `step`."""
    return optim.rate(step, steps=steps, peak=spec.lr, warmup=spec.warmup, schedule=spec.schedule, decay=spec.decay)


def accumulate(
    forward: Forward, batch: Sequence[Document], step: int, micro_batch_tokens: int, world: World = ALONE
) -> float:
    """Gradients of the batch's mean loss per supervised token, added up over micro-batches; returns the loss.

    Each micro-batch's sum is divided by the whole batch's tokens: averaging averages would give a short
    answer the weight of a long one.
    """
    if not batch:  # all its rows were left out
        return 0.0
    supervised = sum(d.supervised for d in batch)  # tokens, by the rows' weights
    loss = 0.0
    micros = world.micros(batch, micro_batch_tokens, shares_prefix=forward.shares_prefix)
    for n, micro in enumerate(micros, 1):
        share = forward.nll_sum(micro, step=step) / supervised
        world.backward(share, last=n == len(micros))
        loss += share.item()
    return world.sum(loss)


def fitted(
    work: Workspace,
    at: state.Position,
    documents: Sequence[Document],
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    run: Callable[[int], T],
    world: World = ALONE,
) -> tuple[T, state.Position]:
    """What `run` gives at the largest micro-batch that memory holds, and the position that remembers that size."""
    tokens = min(at.micro_batch_tokens or work.exec.micro_batch_tokens, work.exec.micro_batch_tokens)
    if world.size > 1:  # one rank cannot try again alone: it fails, and all are started anew (launch/perform.py)
        return run(tokens), at
    longest = max((len(d.ids) for d in documents), default=0)
    found, fitting = within_memory(
        run, micro_batch_tokens=tokens, longest=longest, parameters=parameters, optimizer=optimizer
    )
    if fitting < tokens:
        at = replace(at, micro_batch_tokens=fitting)
        work.progress(at.step, at.step, "out of memory: smaller micro-batches", micro_batch_tokens=fitting)
    return found, at


def _summary(
    spec: SftSpec,
    at: state.Position,
    forward: Forward,
    stopped_early: str,
    forgetting: dict[str, Any] | None,
    *,
    rows: int,
    trained_weights: int,
) -> dict[str, Any]:
    notes = [overfitting(at.judgments), many_epochs(spec.epochs, rows)]
    more: dict[str, Any] = {"stopped_early": stopped_early} if stopped_early else {}
    if forgetting is not None:
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
        "trained_weights": trained_weights,
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
