"""Whole models of one architecture with each other, tensor by tensor: as much memory as a few of their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import ModelError, Problem, require
from tunesmith.model.merging.arithmetic import Recipe, combine, linear, slerp, trim_threshold
from tunesmith.model.merging.merge import copy_beside
from tunesmith.model.merging.tensors import Weights, write_tensors

# What two configurations of one architecture may differ in.
FACTS = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def combine_models(models: Sequence[Path], out: Path, recipe: Recipe, *, base: Path | None) -> None:
    """Write a model folder, in the dtype of the base (without one, of the first model); arithmetic is fp32.

    With a base: θ₀ + λ Σ wᵢ (θᵢ - θ₀) (task arithmetic, Ilharco et al. 2023), or TIES or DARE of those differences.
    Without: Σ wᵢ θᵢ with weights that add up to 1 (an average; Wortsman et al. 2022, arXiv:2203.05482), or SLERP.
    Configuration, tokenizer and chat template are those of the base, else of the first model.
    Raises ModelError for models that are not of one architecture.
    """
    start = Weights(base) if base is not None else None
    held = [Weights(m) for m in models]
    _refuse(held, start, recipe)
    first = start or held[0]
    floats = [n for n in first.entries if first.dtype(n).is_floating_point]
    thresholds: list[float] = []
    if recipe.method == "ties" and start is not None:
        thresholds = [trim_threshold(lambda m=m: _deltas(m, start, floats), recipe.keep) for m in held]  # type: ignore[misc]

    def tensor(name: str) -> Tensor:
        if name not in floats:
            return first[name]
        if recipe.method == "slerp":
            return slerp(held[0][name], held[1][name], recipe.weights[1] / sum(recipe.weights))
        if start is None:
            return linear([m[name].float() for m in held], recipe.weights)
        origin = start[name].float()
        return origin + combine([m[name].float() - origin for m in held], recipe, name, thresholds)

    out.mkdir(parents=True)
    write_tensors(out / "model.safetensors", {n: (first.dtype(n), first.shape(n)) for n in first.entries}, tensor)
    copy_beside(first.folder, out)


def _deltas(model: Weights, start: Weights, names: list[str]) -> Iterator[Tensor]:
    return (model[n].float() - start[n].float() for n in sorted(names))


def _refuse(models: Sequence[Weights], start: Weights | None, recipe: Recipe) -> None:
    require(len(models) >= 1, "models", len(models), "at least one")
    require(len(recipe.weights) == len(models), "weights", recipe.weights, f"one for each of {len(models)} models")
    problems = []
    if start is None and recipe.method not in ("linear", "slerp"):
        what = f"{recipe.method} combines what training added to a base, and none is given"
        problems.append(Problem(where="base", what=what, fix="give the model that all of them were trained from"))
    if start is None and recipe.method == "linear" and (abs(sum(recipe.weights) - 1) > 1e-6 or recipe.scale != 1.0):
        what = f"add up to {sum(recipe.weights) * recipe.scale:g}: without a base this would scale every weight"
        problems.append(Problem(where="weights", what=what, fix="weights that add up to 1, or give the base"))
    if start is not None and recipe.method == "slerp":
        problems.append(Problem(where="base", what="slerp has no use for a base", fix="leave it out"))
    first = start or models[0]
    for model in models:
        if model is not first:
            problems += _differences(first, model)
    if problems:
        raise ModelError(problems)


def _differences(first: Weights, other: Weights) -> list[Problem]:
    where = str(other.folder)
    names = sorted(set(first.entries) ^ set(other.entries))
    if names:
        tied = " (one has tied embeddings and the other not: untie it first)" if "lm_head.weight" in names else ""
        return [Problem(where=where, what=f"{len(names)} tensors are in one model only, first {names[0]}{tied}")]
    shapes = sorted(n for n in first.entries if first.shape(n) != other.shape(n))
    if shapes:
        n = shapes[0]
        what = f"{len(shapes)} tensors have another shape, first {n}: {other.shape(n)}, not {first.shape(n)}"
        return [Problem(where=where, what=what, fix="combine models of one architecture")]
    same = [n for n in first.entries if not first.dtype(n).is_floating_point]
    if any(not torch.equal(first[n], other[n]) for n in same):
        return [Problem(where=where, what="whole-number tensors differ, which cannot be averaged")]
    mine, theirs = (_config(w.folder) for w in (first, other))
    keys = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
    if keys:
        what = f"config.json differs in {', '.join(keys)}: the same weights would mean another model"
        return [Problem(where=where, what=what, fix="combine models of one architecture")]
    return []


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(folder / "config.json")
    return {k: v for k, v in values.items() if k not in FACTS}
