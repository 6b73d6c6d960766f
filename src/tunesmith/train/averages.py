"""Which weights are judged and kept: the trained ones, or a mean of those seen on the way.

none  the trained weights; with schedule-free, whose model is a mean already, that mean
ema   m = d m + (1 - d) w after each step, d = min(decay, (1 + t) / (10 + t)) at step t, so that the random
      start does not linger (as in TensorFlow's ExponentialMovingAverage)
last  the plain mean of the weights at the last k validations, this one among them, as kept on disk
      (stochastic weight averaging at the given rate: Izmailov et al. 2018, arXiv:1803.05407)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tunesmith.train import state
from tunesmith.train.optimizers.catalog import AnyOptimizer, judged
from tunesmith.train.parallel.world import ALONE, World

Averaging = Literal["none", "ema", "last"]


class Average:
    """The mean that a training keeps. Its memory is `tensors()`, beside the files of `state.keep`."""

    def __init__(
        self,
        kind: Averaging,
        parameters: Mapping[str, nn.Parameter],
        optimizer: AnyOptimizer,
        folder: Path,
        decay: float,
        last: int,
        world: World = ALONE,
    ):
        self._kind, self._parameters, self._optimizer = kind, parameters, optimizer
        self._world = world
        self._folder, self._decay, self.last = folder, decay, last if kind == "last" else 0
        self._mean: dict[str, Tensor] = {}
        if kind == "ema":
            self._mean = {n: p.detach().clone() for n, p in parameters.items()}

    def update(self, step: int) -> None:
        """After optimizer step `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, mean in self._mean.items():
            mean.lerp_(self._parameters[name].detach(), 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        return self._mean

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, mean in self._mean.items():
            if name in saved:
                mean.copy_(self._world.like(saved[name], self._parameters[name]))

    @contextmanager
    def judged(self, validated: tuple[int, ...]) -> Iterator[None]:
        """The weights to judge are in the model inside, the trained ones again afterwards, to the bit.
        `validated` are the steps of validations, the present one last; its weights are kept first."""
        if self.last:
            state.keep(self._folder, validated[-1], self._parameters, self._world)
            self._world.wait()
        chosen = self._chosen(validated)
        trained = {n: self._parameters[n].detach().clone() for n in chosen}
        self._put(chosen)
        try:
            yield
        finally:
            self._put(trained)

    def _chosen(self, validated: tuple[int, ...]) -> dict[str, Tensor]:
        if self._kind == "ema":
            return self._mean
        if self._kind == "last":
            return state.mean_of_kept(self._folder, validated[-self.last :])
        return judged(self._optimizer, self._parameters)

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._parameters[name].copy_(self._world.like(tensor, self._parameters[name]))
