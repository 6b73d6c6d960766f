"""A model at its start, with all that trains it: what every recipe begins with and takes its steps by.

world = begin(work.exec)
learner = at_start(spec, base, documents, work.exec, world=world)
loss, at = learner.learn(work, at, batch)    gradients, at the largest micro-batch that memory holds
norm = learner.clip()
lr = learner.step(at.step, steps)            the weights move
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tunesmith.core.stage import Exec, Workspace
from tunesmith.model.device import device_of, refuse_precision
from tunesmith.model.flat_layout import Document
from tunesmith.model.methods import catalog as methods
from tunesmith.model.new_tokens import train_rows
from tunesmith.train import optim
from tunesmith.train.cost import machine
from tunesmith.train.domain_stages import DomainSpec
from tunesmith.train.forward import Forward, choose_forward
from tunesmith.train.memory import within_memory
from tunesmith.train.optimizers.catalog import Optimizer, hidden_weights, make
from tunesmith.train.optimizers.masters import optimizer_for, sum_gradients_in_fp32
from tunesmith.train.parallel.engines import join
from tunesmith.train.parallel.world import ALONE, World
from tunesmith.train.stages import SftSpec
from tunesmith.train.start import base_with
from tunesmith.train.state import Position

T = TypeVar("T")
Spec = SftSpec | DomainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model that is trained, by one process or as one of the ranks of `world`."""

    spec: Spec
    model: Any
    parameters: dict[str, nn.Parameter]  # the trained weights
    optimizer: Optimizer
    forward: Forward
    world: World

    def learn(self, work: Workspace, at: Position, batch: Sequence[Document]) -> tuple[float, Position]:
        """Gradients of a batch and its loss, as `accumulate` has them; the position remembers what memory held."""
        return self.fitted(work, at, batch, partial(accumulate, self.forward, batch, at.step, world=self.world))

    def clip(self) -> float:
        """The norm of the whole gradient before clipping."""
        return self.world.clip(self.parameters, self.spec.max_grad_norm)

    def step(self, step: int, steps: int) -> float:
        """Take 0-based optimizer step `step` of `steps`; returns its learning rate."""
        lr = rate_at(self.spec, step, steps)
        optim.apply(self.optimizer, lr=lr)
        return lr

    def forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def fitted(
        self, work: Workspace, at: Position, documents: Sequence[Document], run: Callable[[int], T]
    ) -> tuple[T, Position]:
        """What `run` gives at the largest micro-batch that memory holds, and the position that remembers that size."""
        tokens = min(at.micro_batch_tokens or work.exec.micro_batch_tokens, work.exec.micro_batch_tokens)
        if self.world.size > 1:  # one rank cannot try again alone: it fails, and all start anew (launch/perform.py)
            return run(tokens), at
        longest = max((len(d.ids) for d in documents), default=0)
        found, fitting = within_memory(
            run, micro_batch_tokens=tokens, longest=longest, parameters=self.parameters, optimizer=self.optimizer
        )
        if fitting < tokens:
            at = replace(at, micro_batch_tokens=fitting)
            work.progress(at.step, at.step, "out of memory: smaller micro-batches", micro_batch_tokens=fitting)
        return found, at


def begin(exec: Exec) -> World:
    """This process as one that trains: its threads, and the other ranks."""
    machine.forget_peak()
    if exec.threads:
        torch.set_num_threads(exec.threads)
    return join(exec)


def model_at_start(
    spec: Spec,
    base: Path,
    documents: Sequence[Document],
    start: Path | None = None,
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


def at_start(
    spec: Spec,
    base: Path,
    documents: Sequence[Document],
    exec: Exec,
    start: Path | None = None,
    world: World = ALONE,
) -> Learner:
    """`documents`: all that may be trained on. `start`: a checkpoint merged into the base first."""
    device = device_of(exec.device)
    refuse_precision(device, spec.precision)
    model, parameters = model_at_start(spec, base, documents, start, world, device=device)
    optimizer = _optimizer(spec, model, parameters, exec, paged=exec.offload_optimizer and device.type == "cuda")
    smoothing, alpha = (spec.label_smoothing, spec.neftune_alpha) if isinstance(spec, SftSpec) else (0.0, 0.0)
    forward = choose_forward(
        model,
        documents,
        spec.precision,
        full=spec.method.kind == "full" and spec.weights == "fp32",
        seed=spec.seed,
        smoothing=smoothing,
        neftune_alpha=alpha,
        twice=exec.gradient_checkpointing,
        packing=exec.packing,
        attention=exec.attention,
        kernels=exec.kernels,
        compiled=exec.compile,
        offload=exec.activation_offload,
        plain_because=world.splits,
    )
    optimizer = world.bind(model, optimizer, forward, spec.max_grad_norm)
    return Learner(spec=spec, model=model, parameters=parameters, optimizer=optimizer, forward=forward, world=world)


def _optimizer(spec: Spec, model: Any, parameters: dict[str, nn.Parameter], exec: Exec, *, paged: bool) -> Optimizer:
    groups = methods.parameter_groups(model, spec.method)
    own = [(name, g["lr_ratio"]) for g in groups if g["lr_ratio"] != 1.0 for name in g["names"]]
    sum_gradients_in_fp32(parameters)
    made = partial(
        make,
        spec.optimizer,
        weight_decay=spec.weight_decay,
        lr_ratios=(*spec.lr_ratios, *own),
        hidden=hidden_weights(model),
        paged=paged,
    )
    offload = exec.offload_optimizer and spec.optimizer != "adamw_8bit"  # which pages
    return optimizer_for(made, parameters, master=spec.master, seed=spec.seed, offload=offload)


def rate_at(spec: Spec, step: int, steps: int) -> float:
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
