"""The papers' formulas for combining weights, on one tensor at a time, in fp32.

A delta (task vector) is what training added to a base: τ = θ - θ₀ (Ilharco et al. 2023, arXiv:2212.04089).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import InputError, Problem, require

Method = Literal["linear", "ties", "dare", "dare_ties", "slerp"]
METHODS = ("linear", "ties", "dare", "dare_ties", "slerp")
PARALLEL = 1e-6  # radians: below it the arc is a line in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How several become one.

    linear      Σ wᵢ τᵢ; of adapters the weighted update, of models task arithmetic (weights 1/n: the average)
    ties        trim each τᵢ to its largest, elect a sign for each weight, average those that agree
    dare        Σ wᵢ τᵢ after dropping most of each τᵢ at random and scaling up the rest
    dare_ties   TIES on what DARE left, without trimming
    slerp       along the arc between two models, by weights[1] / (weights[0] + weights[1]); models only
    """

    method: Method
    weights: tuple[float, ...]  # one for each of those that are combined, in their order
    scale: float = 1.0  # λ: what the combined delta is multiplied by
    keep: float = 1.0  # TIES: share of each delta that is kept, the largest
    drop: float = 0.0  # DARE: share of each delta that is dropped
    seed: int = 0  # DARE

    def __post_init__(self) -> None:
        require(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        require(len(self.weights) >= 1, "weights", self.weights, "one number for each")
        require(all(math.isfinite(w) for w in self.weights), "weights", self.weights, "finite")
        require(math.isfinite(self.scale) and self.scale != 0, "scale", self.scale, "a finite number other than 0")
        require(0 < self.keep <= 1, "keep", self.keep, "in (0, 1]")
        require(0 <= self.drop < 1, "drop", self.drop, "in [0, 1)")
        unread = [n for n, v, readers in self._read_by() if v and self.method not in readers]
        if unread:
            raise InputError(
                Problem(where=n, what=f"would change nothing: {self.method} does not read it", fix="leave it out")
                for n in unread
            )
        if self.method in ("ties", "dare_ties"):
            equal = len(set(self.weights)) == 1
            require(equal, "weights", self.weights, "equal: TIES counts votes, and `scale` sets the size")
        if self.method == "slerp":
            fit = len(self.weights) == 2 and min(self.weights) >= 0 and sum(self.weights) > 0
            require(fit, "weights", self.weights, "two that are not negative: SLERP joins two models")

    def _read_by(self) -> list[tuple[str, bool, tuple[str, ...]]]:
        return [
            ("keep", self.keep != 1.0, ("ties",)),
            ("drop", self.drop != 0.0, ("dare", "dare_ties")),
            ("scale", self.scale != 1.0, ("linear", "ties", "dare", "dare_ties")),
        ]


def combine(deltas: Sequence[Tensor], recipe: Recipe, name: str, thresholds: Sequence[float]) -> Tensor:
    """The combined delta of the tensor `name`, float32. `thresholds` are those of `trim`, for TIES alone."""
    deltas = [d.float() for d in deltas]
    if recipe.method in ("dare", "dare_ties"):
        deltas = [drop_and_rescale(d, recipe.drop, recipe.seed, i, name) for i, d in enumerate(deltas)]
    if recipe.method == "ties":
        deltas = [trim(d, t) for d, t in zip(deltas, thresholds, strict=True)]
    if recipe.method in ("ties", "dare_ties"):
        return recipe.scale * elect_and_average(deltas)
    return recipe.scale * linear(deltas, recipe.weights)


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢ τᵢ."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor
    return total


def trim(delta: Tensor, threshold: float) -> Tensor:
    """TIES, step 1: τ̂ keeps the weights of at least `threshold` in magnitude and is 0 elsewhere."""
    return torch.where(delta.abs() >= threshold, delta, 0.0)


def elect_and_average(deltas: Sequence[Tensor]) -> Tensor:
    """TIES, steps 2 and 3: γ = sgn(Σ τ̂ᵢ), then the mean of those τ̂ᵢ whose sign is γ; 0 where there is none.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1.
    """
    stacked = torch.stack(list(deltas))
    sign = stacked.sum(0).sign()
    agree = (stacked.sign() == sign) & (sign != 0)
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def trim_threshold(parts: Callable[[], Iterable[Tensor]], keep: float) -> float:
    """The magnitude of the ⌈keep · n⌉-th largest of all n weights of a delta, exactly, tensor by tensor.

    TIES trims the whole task vector at once, not each tensor. `parts` is called twice: magnitudes are counted by the
    upper, then by the lower half of their fp32 bits, so nothing but 65,536 counts is held.
    """
    if keep == 1.0:
        return 0.0
    upper = sum((np.bincount(_bits(p) >> 16, minlength=1 << 16) for p in parts()), np.zeros(1 << 16, dtype=np.int64))
    wanted = math.ceil(keep * int(upper.sum()))
    bin, above = _from_the_top(upper, wanted)
    lower = np.zeros(1 << 16, dtype=np.int64)
    for part in parts():
        bits = _bits(part)
        lower += np.bincount(bits[bits >> 16 == bin] & 0xFFFF, minlength=1 << 16)
    rest, _ = _from_the_top(lower, wanted - above)
    return float(np.array([bin << 16 | rest], dtype=np.uint32).view(np.float32)[0])


def _bits(tensor: Tensor) -> np.ndarray:
    """Of the magnitudes, in fp32: they sort as the numbers do."""
    return tensor.detach().float().abs().flatten().numpy().view(np.uint32)


def _from_the_top(counts: np.ndarray, wanted: int) -> tuple[int, int]:
    """(bin in which the `wanted`-th largest is, how many are in the bins above it)."""
    reached = counts[::-1].cumsum()
    place = int(np.searchsorted(reached, wanted))
    return len(counts) - 1 - place, int(reached[place - 1]) if place else 0


def drop_and_rescale(delta: Tensor, drop: float, seed: int, index: int, name: str) -> Tensor:
    """DARE: m ~ Bernoulli(drop) for each weight, τ̂ = (1 - m) τ / (1 - drop).

    The noise is that of (seed, index, name): neither the other tensors nor their order changes it.
    Source: Yu et al. 2024, arXiv:2311.03099, eq. 1.
    """
    key = int(content_id(["dare", seed, index, name])[:15], 16)
    kept = torch.rand(delta.shape, generator=torch.Generator().manual_seed(key)) >= drop
    return delta * kept / (1 - drop)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """sin((1-t)Ω)/sin Ω · a + sin(tΩ)/sin Ω · b, with Ω the angle between a and b as vectors.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", 3.3; as elsewhere, of two models tensor by
    tensor. A line where the two are parallel or one is zero.
    """
    x, y = a.double().flatten(), b.double().flatten()
    norms = float(x.norm() * y.norm())
    angle = math.acos(max(-1.0, min(1.0, float(x @ y) / norms))) if norms > 0 else 0.0
    if angle < PARALLEL or math.pi - angle < PARALLEL:
        return ((1 - t) * a.double() + t * b.double()).float()
    first, second = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return (first * a.double() + second * b.double()).float()
