"""The seam: five verbs that every method has, resolved by name when they are used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.spec import METHODS, MethodSpec, read_method


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> Any:
    """The model with exactly the method's weights trainable. New weights depend on `seed` alone."""
    return _module(spec).wrap(model, spec, seed=seed)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter, in name order: the order in which an optimizer gets them."""
    return {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}


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
        raise ModelError(f"{spec.kind} cannot be merged into the base", fix="serve the adapter beside its base")
    return _module(spec).merge(model)


def _module(spec: MethodSpec) -> Any:
    return importlib.import_module(METHODS[spec.kind].module)
