"""Data parallel: every rank holds the whole model, and gradients are added up over ranks before each step.

Not torch's DistributedDataParallel: that hooks the model's own backward, and the flat forward has another. What it
would do is little: gradients in buckets, in fp32, summed (never averaged: losses are divided by the whole batch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunesmith.train import optim
from tunesmith.train.optimizers.catalog import Optimizer
from tunesmith.train.parallel.ranks import Ranks

BUCKET = 8 << 20  # weights in one message: 32 MiB


class Ddp(Ranks):
    def bind(self, model: Any, optimizer: Optimizer, forward: Any, max_grad_norm: float) -> Optimizer:
        """Ranks that did not start with the same weights would never agree: compared, not assumed."""
        sums = torch.stack([p.detach().double().sum() for _, p in model.named_parameters() if p.is_floating_point()])
        first = sums.clone().cpu()
        dist.broadcast(first, 0)
        if not torch.equal(first, sums.cpu()):
            raise RuntimeError(f"rank {self.rank} starts with other weights than rank 0")
        return optimizer

    def clip(self, parameters: Mapping[str, nn.Parameter], max_norm: float) -> float:
        add_up(list(parameters.values()))
        return optim.clip(parameters.values(), max_norm)


@torch.no_grad()  # type: ignore[untyped-decorator]
def add_up(parameters: Sequence[nn.Parameter]) -> None:
    """Each gradient becomes the sum over ranks. One that no rank has stays None, as in one process: an optimizer
    passes such a weight by."""
    held = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    for bucket in _buckets([p for p, some in zip(parameters, held.tolist(), strict=True) if some]):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat: Tensor = torch.cat([g.reshape(-1).float() for g in grads])
        dist.all_reduce(flat)
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p).to(getattr(p, "grad_dtype", None) or p.dtype)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    found: list[list[nn.Parameter]] = []
    size = BUCKET
    for p in parameters:
        if size + p.numel() > BUCKET:
            found.append([])
            size = 0
        found[-1].append(p)
        size += p.numel()
    return found
