"""One spec of every method and variant, a base of every family, and a checkpoint whose weights were moved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.tiny import make_tiny, move
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.prompts import virtual_columns
from tunesmith.model.methods.spec import MethodSpec, method_json

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
FULL = replace(LORA, kind="full")
NF4 = replace(LORA, kind="qlora", bits=4, double_quant=True)
PREFIX = replace(LORA, kind="prefix", virtual_tokens=5)
LORAS = {
    "rslora": replace(LORA, rslora=True),
    "dora": replace(LORA, dora=True),
    "pissa": replace(LORA, init="pissa"),
    "olora": replace(LORA, init="olora"),
    "eva": replace(LORA, init="eva"),
    "lora_plus": replace(LORA, b_lr_ratio=16.0),
    "ranks": replace(LORA, ranks=(("*.0.*", 2), ("*.1.*", 6))),
    "rslora_pissa_ranks": replace(LORA, rslora=True, init="pissa", ranks=(("*.0.*", 2),)),
}
QUANTIZED = {
    "nf4": NF4,
    "nf4_single": replace(NF4, double_quant=False),
    "int8": replace(LORA, kind="qlora", bits=8),
    "nf4_dora": replace(NF4, dora=True),
}
VIRTUAL = {
    "prompt": replace(LORA, kind="prompt", virtual_tokens=5),
    "p_tuning": replace(LORA, kind="p_tuning", virtual_tokens=5, projection=16),
    "prefix": PREFIX,
    "prefix_projection": replace(PREFIX, projection=16),
}
OTHERS = {"ia3": replace(LORA, kind="ia3"), "last_layers": replace(FULL, train_layers="last:2")}
MERGED = LORAS | OTHERS
IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9]])
TEXTS = [tuple(range(i, i + 30)) for i in range(5)]


def make_family(folder: Path, family: str) -> Path:
    if family == "wide":  # all widths are multiples of 64
        return make_tiny(folder, "llama", hidden_size=128, intermediate_size=256, num_attention_heads=8)
    return make_tiny(folder, family, **({"multi_query": True} if family == "falcon" else {}))


def wrapped(base: Path, spec: MethodSpec, *, dtype: str = "fp32", moved: bool = True) -> Any:
    """A model as it could be in the middle of training."""
    model = methods.wrap(load_base(base, dtype=dtype), spec, seed=0, texts=TEXTS)
    if moved:
        move(methods.trainable_parameters(model))
    return model


def saved(model: Any, spec: MethodSpec, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    methods.save(model, spec, folder, base="tiny-base")
    (folder / "checkpoint.json").write_text(json.dumps({"method": method_json(spec)}))
    return folder


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """(B, T, V) of the text's own tokens."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found[:, virtual_columns(model) :]


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
