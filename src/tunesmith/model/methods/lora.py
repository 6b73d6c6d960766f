"""LoRA through PEFT: y = Wx + (alpha / rank) B A x, with A and B trained and W frozen.

Source: Hu et al. 2021, arXiv:2106.09685. PEFT holds the layers; the start of A, the strict loading and
the portable files are ours.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.safety import scan

# What a config.json of an adapter may say besides the values of MethodSpec: what we write ourselves.
OURS = {"r", "lora_alpha", "lora_dropout", "target_modules", "base_model_name_or_path", "inference_mode"}
FACTS = {"peft_version", "auto_mapping", "revision", "task_type", "fan_in_fan_out", "init_lora_weights"}


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PeftModel:
    """A PeftModel whose adapters start as PEFT's do, A uniform and B zero, from `seed` alone.

    Raises InputError for a target that the model lacks, that is not linear, or that is tied to another weight.
    """
    peft_model = _attach(model, spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in sorted(_layers(peft_model).items()):
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            b.zero_()
    return peft_model


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """adapter_model.safetensors and adapter_config.json, as PEFT reads them."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {n: t.detach().cpu().contiguous() for n, t in sorted(state.items())},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"].to_dict()
    config |= {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "peft_type": "LORA",
        "target_modules": sorted(config["target_modules"]),
    }
    body = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / "adapter_config.json").write_text(body + "\n", encoding="utf-8")


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    """The base with a checkpoint's adapter on it. Its base_model_name_or_path is never followed."""
    scan(checkpoint, follow_links=True, adapter=True)
    _check_config(checkpoint / "adapter_config.json", spec)
    state = load_file(checkpoint / "adapter_model.safetensors")
    peft_model = _attach(model, spec)
    own = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    wrong = sorted(set(own) ^ set(state)) or sorted(n for n in own if own[n].shape != state[n].shape)
    if wrong:
        raise ModelError(
            f"{len(wrong)} tensors do not fit the base model, first {wrong[0]}",
            where=str(checkpoint / "adapter_model.safetensors"),
            fix="load it on the model it was trained on",
        )
    set_peft_model_state_dict(peft_model, state)
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    return model.merge_and_unload(safe_merge=True)


def _attach(model: PreTrainedModel, spec: MethodSpec) -> PeftModel:
    from tunesmith.model.load import quiet

    targets = _targets(model, spec.targets)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)  # adapters in fp32
    return peft_model.train(training)


def _layers(model: PeftModel) -> dict[str, LoraLayer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def _targets(model: PreTrainedModel, targets: str | tuple[str, ...]) -> list[str]:
    """Last parts of module names. "all-linear" is every linear layer but the output head."""
    head = model.get_output_embeddings()
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    body = {n for n in linear if model.get_submodule(n) is not head}
    if targets == "all-linear":
        return sorted({n.rsplit(".", 1)[-1] for n in body})
    names = [targets] if isinstance(targets, str) else list(targets)
    tied = {id(m) for m in (head, model.get_input_embeddings())} if model.config.tie_word_embeddings else set()
    problems = []
    for name in names:
        hits = [m for n, m in model.named_modules() if n == name or n.endswith(f".{name}")]
        known = sorted({n.rsplit(".", 1)[-1] for n in linear})
        if not hits:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]}? " if near else ""
            problems.append(_problem(name, "no module of this model has this name", f"{fix}it has {', '.join(known)}"))
        elif any(id(m) in tied for m in hits):
            problems.append(
                _problem(
                    name,
                    "is tied to the other embedding: a merged update would change both and give a silently wrong model",
                    "leave it out, or use all-linear",
                )
            )
        elif not all(isinstance(m, nn.Linear | Conv1D) for m in hits):
            problems.append(_problem(name, "is not a linear layer", f"use some of {', '.join(known)}"))
    if problems:
        raise InputError(problems)
    return sorted(names)


def _problem(name: str, what: str, fix: str) -> Problem:
    return Problem(where=f"train.method.targets: {name}", what=what, fix=fix)


def _check_config(path: Path, spec: MethodSpec) -> None:
    """Refuse an adapter_config.json that means another adapter than the one we would build."""
    config: dict[str, Any] = json.loads(path.read_bytes())
    default = json.loads(json.dumps(LoraConfig(task_type="CAUSAL_LM").to_dict(), default=_plain))
    problems = [
        Problem(where=f"{path}: {key}", what=f"is {value!r}, which is not supported", fix="train the adapter here")
        for key, value in sorted(config.items())
        if key not in OURS | FACTS and value not in (default.get(key), None)
    ]
    for key, want in (("r", spec.rank), ("lora_alpha", spec.alpha), ("lora_dropout", spec.dropout)):
        if config.get(key) != want:
            problems.append(
                Problem(where=f"{path}: {key}", what=f"is {config.get(key)!r}, but checkpoint.json says {want!r}")
            )
    if problems:
        raise ModelError(problems)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
