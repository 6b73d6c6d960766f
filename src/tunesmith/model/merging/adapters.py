"""LoRA adapters of one base with each other. What is combined is the update ΔW = s B A, never A and B apart:
(A₁+A₂)(B₁+B₂) has cross terms that no adapter learned.

Shapes: I inputs and O outputs of a layer, R rank; A is (R, I), B is (O, R).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import ModelError, Problem, require
from tunesmith.model.merging.arithmetic import Recipe, combine, trim_threshold
from tunesmith.model.merging.merge import IDENTITY
from tunesmith.model.merging.tensors import Weights, write_tensors
from tunesmith.model.methods import adapter_files
from tunesmith.model.methods.spec import START, MethodSpec, method_json, read_method

A, B = ".lora_A.weight", ".lora_B.weight"
Factors = tuple[Tensor, Tensor]  # (O, R) and (R, I); their product is the update


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What came out, and how far it is from what the recipe says."""

    rank: int
    error: float  # ‖ΔW - B A‖ / ‖ΔW‖ over all layers together, Frobenius; 0 where nothing was cut off
    worst_layer: str
    worst_error: float


class Adapter:
    """A LoRA checkpoint as updates of layers."""

    def __init__(self, checkpoint: Path) -> None:
        self.folder, self.spec = checkpoint, read_method(checkpoint)
        self.facts: dict[str, Any] = read_json(checkpoint / "checkpoint.json")
        self.weights = Weights(checkpoint, adapter=True)
        self.layers = sorted(n.removesuffix(A) for n in self.weights.entries if n.endswith(A))
        spec = self.spec
        # as in methods/lora.py: layers of another rank, and pairs with a subtracted start, have this scale too
        self.scale = spec.alpha / (math.sqrt(spec.rank) if spec.rslora else spec.rank)

    @property
    def base(self) -> str:
        """Its weights' identity where the checkpoint says it, else their name."""
        return str(self.facts.get(IDENTITY) or self.facts.get("base"))

    def rank(self, layer: str) -> int:
        return self.weights.shape(layer + A)[0] if layer in self.layers else 0

    def size(self, layer: str) -> tuple[int, int]:
        """(O, I)."""
        return self.weights.shape(layer + B)[0], self.weights.shape(layer + A)[1]

    def factors(self, layer: str) -> Factors:
        return self.scale * self.weights[layer + B].double(), self.weights[layer + A].double()


def combine_adapters(
    checkpoints: Sequence[Path], out: Path, recipe: Recipe, *, rank: int, renderer_of: int | None = None
) -> Combined:
    """Write a LoRA checkpoint whose update is the recipe's combination; one layer is in memory at a time.

    `rank` 0 keeps a linear combination exact, by putting the factors side by side: the ranks add up. Any other is
    the best approximation of that rank (Eckart & Young 1936), with its error in the result. `renderer_of` says whose
    prompts the new one answers to, where they were trained with different ones.
    Raises ModelError for adapters of different bases or kinds, and for DoRA, which is no sum of updates.
    """
    adapters = [Adapter(c) for c in checkpoints]
    _refuse(adapters, recipe, rank, renderer_of)
    layers = sorted({name for a in adapters for name in a.layers})
    sizes = {name: next(a.size(name) for a in adapters if name in a.layers) for name in layers}
    exact = sum(max(a.rank(name) for name in layers) for a in adapters)
    final = rank or exact
    thresholds = _thresholds(adapters, layers, sizes, recipe)
    errors: dict[str, tuple[float, float]] = {}

    @lru_cache(maxsize=1)  # A and B of a layer follow each other
    def factors(layer: str) -> Factors:
        if recipe.method == "linear":
            parts = [(w, a.factors(layer)) for a, w in zip(adapters, recipe.weights, strict=True) if a.rank(layer)]
            left = torch.cat([recipe.scale * w * b for w, (b, _) in parts], dim=1)
            right = torch.cat([a for _, (_, a) in parts])
            found, lost, whole = truncated(left, right, rank) if rank else ((left, right), 0.0, 1.0)
        else:
            delta = combine([_update(a, layer, sizes[layer]) for a in adapters], recipe, layer, thresholds)
            eye = torch.eye(delta.shape[1], dtype=torch.float64)
            found, lost, whole = truncated(delta.double(), eye, rank)
        errors[layer] = (lost, whole)
        return padded(found, final)

    out.mkdir(parents=True)
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for layer in layers:
        o, i = sizes[layer]
        shapes |= {layer + A: (torch.float32, (final, i)), layer + B: (torch.float32, (o, final))}
    weights = out / adapter_files.WEIGHTS
    write_tensors(weights, shapes, lambda n: factors(n.removesuffix(A).removesuffix(B))[0 if n.endswith(B) else 1])
    _write_facts(out, adapters, recipe, final, layers, renderer_of or 0)
    return _combined(final, errors)


def truncated(left: Tensor, right: Tensor, rank: int) -> tuple[Factors, float, float]:
    """(B, A) of the best approximation of left @ right of that rank, ‖lost‖² and ‖whole‖²; √σ is in both.

    left = Q R and rightᵀ = P S, so the singular values are those of the small R Sᵀ.
    """
    q, r = torch.linalg.qr(left)
    p, s = torch.linalg.qr(right.T)
    u, sigma, v = torch.linalg.svd(r @ s.T, full_matrices=False)
    root = sigma[:rank].sqrt()
    factors = (q @ u[:, :rank] * root, root[:, None] * (v[:rank] @ p.T))
    return factors, float(sigma[rank:].square().sum()), float(sigma.square().sum())


def padded(factors: Factors, rank: int) -> Factors:
    """With zeros up to `rank`: the same update."""
    left, right = factors
    more = rank - left.shape[1]
    return torch.nn.functional.pad(left, (0, more)), torch.nn.functional.pad(right, (0, 0, 0, more))


def _update(adapter: Adapter, layer: str, size: tuple[int, int]) -> Tensor:
    """(O, I); zero where the adapter leaves the layer alone."""
    if not adapter.rank(layer):
        return torch.zeros(size)
    left, right = adapter.factors(layer)
    return (left @ right).float()


def _thresholds(
    adapters: Sequence[Adapter], layers: list[str], sizes: dict[str, tuple[int, int]], recipe: Recipe
) -> list[float]:
    def parts(adapter: Adapter) -> Iterator[Tensor]:
        return (_update(adapter, layer, sizes[layer]) for layer in layers)

    if recipe.method != "ties":
        return []
    return [trim_threshold(lambda a=a: parts(a), recipe.keep) for a in adapters]  # type: ignore[misc]


def _refuse(adapters: Sequence[Adapter], recipe: Recipe, rank: int, renderer_of: int | None) -> None:
    require(len(adapters) >= 1, "adapters", len(adapters), "at least one")
    require(
        len(recipe.weights) == len(adapters), "weights", recipe.weights, f"one for each of {len(adapters)} adapters"
    )
    require(rank >= 0, "rank", rank, "0 (exact) or positive")
    problems = []
    if recipe.method == "slerp":
        problems.append(Problem(where="method", what="slerp is for whole models", fix="merge the adapters first"))
    elif recipe.method != "linear" and rank == 0:
        what = f"{recipe.method} gives an update of full rank, which no adapter holds"
        problems.append(Problem(where="rank", what=what, fix="give a rank; the error is reported"))
    first = adapters[0]
    for a in adapters:
        if a.spec.kind not in ("lora", "qlora"):
            what = f"is {a.spec.kind}: only LoRA adapters are updates that can be added"
            problems.append(Problem(where=str(a.folder), what=what))
        if (a.folder / START).is_dir():
            what = "stands on a checkpoint of its own (start), so its update is not one of the base"
            problems.append(Problem(where=str(a.folder), what=what, fix="merge each into its base"))
        if "new_tokens" in a.facts:
            what = "has new tokens, whose rows are no update that could be added"
            problems.append(Problem(where=str(a.folder), what=what, fix="merge each into its base"))
        if a.spec.dora:
            what = "is DoRA: its lengths do not add up with those of another"
            problems.append(Problem(where=str(a.folder), what=what, fix="merge it into its base"))
        if (a.base, a.spec.kind, a.spec.bits) != (first.base, first.spec.kind, first.spec.bits):
            what = f"is {a.spec.kind} on {a.base[:40]}, but the first is {first.spec.kind} on {first.base[:40]}"
            problems.append(Problem(where=str(a.folder), what=what, fix="combine adapters of one base"))
        for layer in sorted(set(a.layers) & set(first.layers)):
            if a.size(layer) != first.size(layer):
                problems.append(
                    Problem(where=str(a.folder), what=f"{layer} is {a.size(layer)}, not {first.size(layer)}")
                )
                break
    if renderer_of is None and len({_renderer(a) for a in adapters}) > 1:
        what = "the adapters were trained with different prompts or tokenizers (renderer.json)"
        problems.append(Problem(where=str(first.folder), what=what, fix="say whose prompts the new one answers to"))
    if problems:
        raise ModelError(problems)


def _renderer(adapter: Adapter) -> bytes:
    path = adapter.folder / "renderer.json"
    return path.read_bytes() if path.exists() else b""


def _write_facts(
    out: Path, adapters: Sequence[Adapter], recipe: Recipe, rank: int, layers: list[str], renderer_of: int
) -> None:
    from peft import LoraConfig

    first = adapters[0]
    same = len({a.spec.targets for a in adapters}) == 1
    targets = first.spec.targets if same else tuple(sorted({n.rsplit(".", 1)[-1] for n in layers}))
    plain = MethodSpec(kind="lora", rank=rank, alpha=float(rank), dropout=0.0, targets=targets)
    spec = replace(plain, kind=first.spec.kind, bits=first.spec.bits, double_quant=first.spec.double_quant)
    config = LoraConfig(
        r=rank,
        lora_alpha=float(rank),
        lora_dropout=0.0,
        target_modules=sorted({n.rsplit(".", 1)[-1] for n in layers}),
        bias="none",
        task_type="CAUSAL_LM",
    ).to_dict()
    facts = {k: v for k, v in first.facts.items() if k in ("base", IDENTITY)}
    facts |= {"method": method_json(spec), "combined": {"recipe": recipe, "of": [a.facts for a in adapters]}}
    adapter_files.write_config(out, config, base=str(first.facts.get("base", "")))
    write_atomic(out / "checkpoint.json", canonical_json(facts) + b"\n")
    if (adapters[renderer_of].folder / "renderer.json").exists():
        write_atomic(out / "renderer.json", _renderer(adapters[renderer_of]))


def _combined(rank: int, errors: dict[str, tuple[float, float]]) -> Combined:
    relative = {n: math.sqrt(lost / whole) if whole else 0.0 for n, (lost, whole) in errors.items()}
    lost, whole = (math.fsum(e[k] for e in errors.values()) for k in (0, 1))
    worst = max(sorted(relative), key=lambda n: relative[n])
    return Combined(
        rank=rank,
        error=math.sqrt(lost / whole) if whole else 0.0,
        worst_layer=worst,
        worst_error=relative[worst],
    )
