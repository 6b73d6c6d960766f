"""Checkpoints of one tiny base, made without training: every trained weight is moved by its seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunesmith.model.load import load_base
from tunesmith.model.merging.merge import IDENTITY, identity
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec, method_json

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
FULL = MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")
BOTTLENECK = MethodSpec(
    kind="bottleneck", rank=4, alpha=1.0, dropout=0.0, targets="all-linear", placement="pfeiffer", activation="relu"
)
IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9], [3, 3, 40, 99, 7, 9]])
Make = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_llama: Path) -> Make:
    def make(name: str, spec: MethodSpec, *, seed: int, base: Path = tiny_llama, std: float = 0.05) -> Path:
        model = methods.wrap(load_base(base, dtype="fp32"), spec, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in methods.trainable_parameters(model).values():
                parameter.add_(torch.empty_like(parameter).normal_(std=std, generator=generator))
        out = tmp_path / name
        out.mkdir()
        methods.save(model, spec, out, base="tiny")
        facts = {"method": method_json(spec), "base": "tiny", IDENTITY: identity(base)}
        (out / "checkpoint.json").write_text(json.dumps(facts))
        (out / "renderer.json").write_text("{}")
        return out

    return make


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found
