"""Full fine-tuning: every weight is trained, kept in fp32 so that small steps are not rounded away."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.safety import scan


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PreTrainedModel:
    """`seed` is not used: no weight is new."""
    model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
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


def merge(model: PreTrainedModel) -> PreTrainedModel:
    return model
