"""The seam: five verbs that every method has, resolved by name when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.spec import METHODS, MethodSpec, read_method


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int, texts: Sequence[Sequence[int]] = ()) -> Any:
    """The model with exactly the method's weights trainable. New weights depend on the base, on `seed` and, where
    the start is taken from data (init: eva), on `texts`, the token ids of what will be trained on."""
    if spec.init == "eva":
        return _module(spec).wrap(model, spec, seed=seed, texts=texts)
    return _module(spec).wrap(model, spec, seed=seed)


def check(folder: Path, spec: MethodSpec) -> list[str]:
    """Names of the weights that `wrap` would train, from a model's configuration alone: no weight is read. Empty for
    virtual tokens. Raises InputError for what `wrap` would refuse."""
    from tunesmith.model.load import skeleton

    module, model = _module(spec), skeleton(folder)
    if hasattr(module, "check"):  # where `wrap` computes with weights
        return list(module.check(model, spec))
    return list(trainable_parameters(module.wrap(model, spec, seed=0)))


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter, in name order: the order in which an optimizer gets them."""
    return {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}


def parameter_groups(model: nn.Module, spec: MethodSpec) -> list[dict[str, Any]]:
    """[{"names": [...], "lr_ratio": x}]: which trainable parameters learn at which multiple of the rate.

    Every trainable parameter is in one group, names in order; one group of ratio 1 but for LoRA+.
    """
    names = list(trainable_parameters(model))
    fast = [n for n in names if "lora_B" in n] if spec.b_lr_ratio != 1.0 else []
    slow = [n for n in names if n not in set(fast)]
    groups = [{"names": slow, "lr_ratio": 1.0}, {"names": fast, "lr_ratio": spec.b_lr_ratio}]
    return [g for g in groups if g["names"]]


def save(model: Any, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """Write the method's files into `folder`; equal weights give equal bytes. `base` is the base model's
    portable name (never a path of this machine)."""
    _module(spec).save(model, spec, folder, base=base)


def load(model: PreTrainedModel, checkpoint: Path) -> Any:
    """Put a checkpoint's weights on (LoRA) or into (full) its base. Strict: every tensor, no other."""
    spec = read_method(checkpoint)
    return _module(spec).load(model, spec, checkpoint)


def merge(model: Any, spec: MethodSpec) -> PreTrainedModel:
    """One set of plain weights, in the dtype of the base; merge in fp32 and cast afterwards."""
    if not METHODS[spec.kind].mergeable:
        what = f"{spec.kind} cannot be merged into the base: it is no change of the base's weights"
        raise ModelError(what, fix="serve the adapter beside its base")
    return _module(spec).merge(model)


def _module(spec: MethodSpec) -> Any:
    return importlib.import_module(METHODS[spec.kind].module)
