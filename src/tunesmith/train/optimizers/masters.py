"""An optimizer that steps fp32 copies: of bf16 weights, or of weights on a GPU whose copies are on the CPU.

master fp32        a copy of every weight is kept, and the weight is its rounding (Micikevicius et al. 2018,
                   arXiv:1710.03740, section 3.1)
master stochastic  no copy is kept: one is made of each weight for its step, and rounded up or down by chance, so that
                   the mean over many steps is right where a small step would always be rounded away (Zamirai et al.
                   2021, arXiv:2010.06192, section 4). The chance is a function of seed, weight and step: a resumed
                   run draws what an uninterrupted one would.

Gradients of bf16 weights are summed in fp32 (`grad_dtype`), however many micro-batches a step has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tunesmith.core.errors import InputError, Problem
from tunesmith.train.optimizers.catalog import Optimizer

Master = Literal["fp32", "stochastic"]
Make = Callable[[Mapping[str, nn.Parameter]], Optimizer]
ROUNDED_TOGETHER = 1 << 20  # numbers
DRAWN = "drawn"  # entry of an optimizer's memory: how often a weight was rounded by chance


def optimizer_for(
    make: Make, parameters: Mapping[str, nn.Parameter], *, master: Master, seed: int, offload: bool = False
) -> Optimizer:
    """make(parameters), or an optimizer of their fp32 copies where they are in bf16, or `offload` wants their memory
    on the CPU. On a CPU it is there already, and `offload` changes nothing."""
    low = any(p.dtype != torch.float32 for p in parameters.values())
    away = offload and any(p.device.type != "cpu" for p in parameters.values())
    if not low and not away:
        return make(parameters)
    return Masters(make, parameters, master=master, seed=seed, place=torch.device("cpu") if away else None)


def sum_gradients_in_fp32(parameters: Mapping[str, nn.Parameter]) -> None:
    for p in parameters.values():
        if p.dtype != torch.float32:
            if not hasattr(p, "grad_dtype"):
                what = (
                    f"gradients of bf16 weights need torch 2.10 to be summed in fp32, and this is {torch.__version__}"
                )
                raise InputError(Problem(where="train.weights", what=what, fix="--set train.weights=fp32"))
            p.grad_dtype = torch.float32


class Masters(Optimizer):
    def __init__(
        self,
        make: Make,
        parameters: Mapping[str, nn.Parameter],
        *,
        master: Master,
        seed: int,
        place: torch.device | None,
    ):
        self._parameters, self._seed, self._place = dict(parameters), seed, place
        self._passing = master == "stochastic" and any(p.dtype != torch.float32 for p in parameters.values())
        self.copies = {n: nn.Parameter(self._copy(p)) for n, p in self._parameters.items()}
        super().__init__(make(self.copies).parts)
        if self._passing:
            for copy in self.copies.values():
                copy.data = copy.data.new_empty(0)

    def held(self, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        return {n: self.copies[n] for n in parameters}

    def kept(self) -> dict[str, Tensor]:
        """Copies that say more than the weights do, by name."""
        return {
            n: c.detach()
            for n, c in self.copies.items()
            if not self._passing and self._parameters[n].dtype != torch.float32
        }

    def refill(self, saved: Mapping[str, Tensor]) -> None:
        """After the weights were put back: the copies as saved, or else as the weights are."""
        if not self._passing:
            for name, copy in self.copies.items():
                copy.data.copy_(saved.get(name, self._parameters[name]))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self) -> None:
        if self._passing:
            for name in self._parameters:
                self._step_alone(name)
            return
        for name, p in self._parameters.items():
            self.copies[name].grad = None if p.grad is None else p.grad.to(self.copies[name])
            p.grad = None
        super().step()
        for name, p in self._parameters.items():
            if self.copies[name].grad is not None:
                p.copy_(self.copies[name])
            self.copies[name].grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self._parameters.values():
            p.grad = None

    def _step_alone(self, name: str) -> None:
        """One weight; the others have no gradient here, and torch's optimizers leave such ones alone."""
        p, copy = self._parameters[name], self.copies[name]
        if p.grad is None:
            return
        copy.data = self._copy(p)
        copy.grad, p.grad = p.grad.to(copy), None
        super().step()
        state = next(part.state for part in self.parts if copy in part.state)[copy]
        state[DRAWN] = state.get(DRAWN, 0) + 1
        if p.dtype == torch.float32:
            p.copy_(copy)
        else:
            round_into(p, copy, generator(copy.device, self._seed, name, state[DRAWN]))
        copy.data, copy.grad = copy.data.new_empty(0), None

    def _copy(self, p: nn.Parameter) -> Tensor:
        return p.detach().to(self._place or p.device, torch.float32, copy=True)


def round_into(weight: Tensor, values: Tensor, generator: torch.Generator) -> None:
    """A part at a time: rounding takes four times the memory of what it rounds, and embeddings are large."""
    rows = max(1, ROUNDED_TOGETHER * len(values) // max(1, values.numel())) if values.dim() else 1
    for into, part in zip(torch.atleast_1d(weight).split(rows), torch.atleast_1d(values).split(rows), strict=True):
        into.copy_(stochastic(part, generator))


def stochastic(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 to bf16, up with the probability of the share of the way; its mean is `values`. Infinities and NaN stay."""
    bits = values.detach().float().contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=generator.device, generator=generator)
    moved = ((bits + noise.to(bits.device)) & -65536).view(torch.float32)
    return torch.where(values.isfinite(), moved, values).to(torch.bfloat16)


def generator(device: torch.device, seed: int, name: str, step: int) -> torch.Generator:
    """Of the device itself where it is a GPU: a billion numbers a step would take the CPU seconds."""
    made = torch.Generator(device if device.type == "cuda" else "cpu")
    digest = hashlib.sha256(f"{seed}:{step}:{name}:rounding".encode()).digest()
    made.manual_seed(int.from_bytes(digest[:8]) >> 1)
    return made
