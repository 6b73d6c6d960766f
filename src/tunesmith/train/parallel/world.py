"""Where a recipe's ranks must act together: one process, which does nothing of the kind, and the form of the others.

world.micros     this rank's part of a batch, in micro-batches
world.backward   gradients of one of them
world.clip       gradients of all ranks together, clipped by their joint norm
world.sum        a figure over all ranks
world.due        whether to save now: the same answer on all ranks, and the same wish to stop
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.model.flat_layout import Document, shared_prefix
from tunesmith.train import optim
from tunesmith.train.batches import split
from tunesmith.train.optimizers.catalog import AnyOptimizer, Optimizer, memory, restore


class World:
    """One process."""

    name = "single"
    size = 1
    writes = True  # whether this rank writes files
    splits = ""  # who splits the weights, so that only the model's own forward will do; "": they are whole

    def shard(self, model: Any) -> None:
        """Split the weights among ranks, in place, before an optimizer sees them. Alone, they stay whole."""

    def bind(self, model: Any, optimizer: Optimizer, forward: Any, max_grad_norm: float) -> Optimizer:
        """The optimizer to step, once model, optimizer and forward are made. Asserts that the engine is the one
        asked for, by what it made of them."""
        return optimizer

    def micros(self, batch: Sequence[Document], max_tokens: int, *, shares_prefix: bool) -> list[list[Document]]:
        return split(batch, max_tokens, shared=shared_prefix(batch) if shares_prefix else 0)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """`last`: of this rank's micro-batches in this step."""
        loss.backward()

    def clip(self, parameters: Mapping[str, nn.Parameter], max_norm: float) -> float:
        """The norm of the whole gradient before clipping."""
        return optim.clip(parameters.values(), max_norm)

    def sum(self, value: float) -> float:
        return value

    def due(self, stop: threading.Event, due: bool) -> bool:
        return due or stop.is_set()

    def same(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """What the first rank found, on all of them: decisions rest on it."""
        return outcome

    def wait(self) -> None:
        """Until all ranks are here. Alone, there is nobody to wait for."""

    def share(self, folder: Path) -> None:
        """Give the files of the first machine's workspace to the others, so that all go on from the same state.
        Alone, there are no others."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Trained weights, or what is remembered of them, in one piece on every rank that writes."""
        return dict(tensors)

    def like(self, tensor: Tensor, p: nn.Parameter) -> Tensor:
        """A whole tensor, split as `p` is."""
        return tensor

    def remembered(
        self, optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]
    ) -> tuple[dict[str, Tensor], str]:
        """Trained weights under "weight.<name>", the optimizer's memory under "memory.<entry>.<name>", and its other
        values as JSON."""
        tensors, values = memory(optimizer, parameters)
        weights = {f"weight.{n}": p.detach() for n, p in parameters.items()}
        return weights | {f"memory.{n}": t for n, t in tensors.items()}, values

    def recall(
        self, optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor], values: str
    ) -> None:
        """Put back what `remembered` gave, in this or any other world."""
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(self.like(saved[f"weight.{name}"], p))
        under = {n.removeprefix("memory."): t for n, t in saved.items() if n.startswith("memory.")}
        restore(optimizer, parameters, {n: self._entry(n, t, parameters) for n, t in under.items()}, values)

    def _entry(self, key: str, tensor: Tensor, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        p = parameters.get(key.partition(".")[2])
        return tensor if p is None else self.like(tensor, p)

    def write_parts(self, folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Write what is split among ranks into `folder`, each rank its own; what is left for the common file."""
        return tensors

    def count(self, parameters: Mapping[str, nn.Parameter]) -> int:
        """Trained weights, on all ranks together."""
        return sum(p.numel() for p in parameters.values())

    def facts(self) -> dict[str, Any]:
        """For the run's record."""
        return {"engine": self.name, "ranks": self.size}


ALONE = World()
