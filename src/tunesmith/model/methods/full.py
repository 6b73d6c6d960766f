"""Full fine-tuning: weights are trained in place, kept in fp32 so that small steps are not rounded away.

All of them, or those of the last layers, or those whose names fit a pattern; the checkpoint is a whole model
in every case.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.methods.targets import fits, refuse_unmatched
from tunesmith.model.safety import scan


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PreTrainedModel:
    """`seed` is not used: no weight is new. Raises InputError for layers or patterns that the model lacks."""
    model.float()
    chosen = trained_names(model, spec.train_layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return model


def save(model: PreTrainedModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """model.safetensors in the weights' dtype and config.json; the tokenizer's files are the caller's."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = {n: t.detach().cpu().contiguous() for n, t in sorted(model.state_dict().items()) if n not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict()
    for key in ("transformers_version", "_name_or_path"):
        config.pop(key, None)
    config |= {"architectures": [type(model).__name__], "dtype": str(model.dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PreTrainedModel:
    """Copies the checkpoint's weights into `model`. Raises ModelError unless the tensors are the same set."""
    scan(checkpoint, follow_links=True)
    state = load_file(checkpoint / "model.safetensors")
    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wrong = sorted((set(own) - tied) ^ set(state)) or sorted(n for n, t in state.items() if t.shape != own[n].shape)
    if wrong:
        raise ModelError(
            f"{len(wrong)} tensors do not fit the base model, first {wrong[0]}",
            where=str(checkpoint / "model.safetensors"),
            fix="load it on the model it was trained from",
        )
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    return model


def trained_names(model: PreTrainedModel, layers: str | tuple[str, ...]) -> set[str]:
    """Names of the parameters to train. "last:4" is the last four decoder layers and nothing else: the embeddings,
    the final norm and the head stay."""
    names = [n for n, _ in model.named_parameters()]
    if layers == "all":
        return set(names)
    if isinstance(layers, str):
        count = int(layers.removeprefix("last:"))
        lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
        stack = max(lists, key=lambda n: len(lists[n]), default="")
        size = len(lists[stack]) if lists else 0
        if count > size:
            raise InputError(
                f"{layers} asks for {count} layers, and the model has {size}",
                where="train.method.train_layers",
                fix=f"last:1 to last:{size}, or all",
            )
        starts = tuple(f"{stack}.{i}." for i in range(size - count, size))
        return {n for n in names if n.startswith(starts)}
    refuse_unmatched("train_layers", layers, names)
    return {n for n in names if any(fits(p, n) for p in layers)}


def merge(model: PreTrainedModel) -> PreTrainedModel:
    return model
