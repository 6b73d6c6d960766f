"""LoRA on a base whose linear layers are held in 4 bits (NF4) or 8 (int8), through bitsandbytes.

Source: Dettmers et al. 2023, arXiv:2305.14314 (NF4, blocks of 64, double quantization); Dettmers et al.
2022, arXiv:2208.07339 (int8 by row; on a CPU only the weights are rounded, not the inputs).

The adapter learns around the errors of the quantized weights, so it belongs to them: a merge dequantizes
first, which agrees with the trained model to 0.003 in the logits, while the same adapter on the original
base is off by 0.1. The quantized weights are made again from the base at every load. They are therefore
quantized from the weights rounded to bf16, whatever precision the base is loaded in, and their hash is
saved: a load that makes other ones is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import InputError, ModelError
from tunesmith.core.extras import need
from tunesmith.model.methods import lora
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.methods.targets import linear_layers, target_names

FACTS = "quantization.json"
PRODUCTS = ("Linear", "FalconLinear")  # classes whose layers compute x Wᵀ + bias and nothing else


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int, texts: Sequence[Sequence[int]] = ()) -> PeftModel:
    """Quantizes `model`'s linear layers in place, but for the output head; what computes is in its dtype.

    Raises InputError for a family whose linear layers are not torch's, and as lora.wrap does.
    """
    target_names(model, spec.targets)  # a wrong name costs nothing yet
    quantize(model, spec)
    return lora.wrap(model, spec, seed=seed, texts=texts)


def check(model: PreTrainedModel, spec: MethodSpec) -> list[str]:
    """As lora.check."""
    target_names(model, spec.targets)
    _quantizable(model, spec)
    return lora.check(model, replace(spec, kind="lora", bits=0, double_quant=False))


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """As LoRA, and quantization.json: of which quantized weights this is the adapter."""
    lora.save(model, spec, folder, base=base)
    write_atomic(folder / FACTS, canonical_json(_facts(model, spec)) + b"\n")


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    """Quantizes the base and puts the adapter on. Raises ModelError if it gives other quantized weights."""
    quantize(model, spec)
    peft_model = lora.load(model, spec, checkpoint)
    path = checkpoint / FACTS
    try:
        saved = read_json(path)
    except OSError as e:
        raise ModelError("cannot be read", where=str(path), fix="restore it, or train again") from e
    found = _facts(model, spec)
    if saved != found:
        raise ModelError(
            "the adapter was trained on other quantized weights than come out of this base here",
            where=str(path),
            fix="load it on the base that it was trained on, with the bitsandbytes of then",
        )
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    """Dequantize to fp32, then add the update: plain linear layers in fp32."""
    from tunesmith.model.load import quiet

    state, config = get_peft_model_state_dict(model, save_embedding_layers=False), model.peft_config[lora.TRAINED]
    plain = _dequantize(model.unload())
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(plain, config)
    set_peft_model_state_dict(peft_model, state)
    return lora.merge(peft_model)


def quantize(model: PreTrainedModel, spec: MethodSpec) -> None:
    """Puts quantized layers in place of `model`'s linear ones, one after the other, but for the output head."""
    layers = _quantizable(model, spec)
    from tunesmith.model.methods.quantized import EightBits, FourBits

    for name, layer in layers.items():
        new = FourBits.of(layer, double_quant=spec.double_quant) if spec.bits == 4 else EightBits.of(layer)
        _put(model, name, new.train(layer.training))
    setattr(model, f"is_loaded_in_{spec.bits}bit", True)  # PEFT looks here


def _quantizable(model: PreTrainedModel, spec: MethodSpec) -> dict[str, nn.Module]:
    """The layers that are quantized. Raises InputError where they cannot be, MissingExtra without bitsandbytes."""
    need("bitsandbytes", extra="quant", why="qlora")
    from tunesmith.model.methods.quantized import BLOCK

    layers = linear_layers(model)
    wrong = sorted({type(m).__name__ for m in layers.values() if type(m).__name__ not in PRODUCTS})
    if wrong or not layers:
        raise InputError(
            f"{model.config.model_type} has layers of type {', '.join(wrong) or 'none'}, which cannot be quantized",
            where="train.method.kind: qlora",
            fix="use kind: lora",
        )
    odd = sorted({m.in_features for m in layers.values() if m.in_features % BLOCK})
    if odd and spec.dora and spec.bits == 4:  # PEFT's DoRA dequantizes for itself, on a CPU wrongly then
        raise InputError(
            f"dora on 4 bits needs layers whose inputs are a multiple of {BLOCK}, and here are some of {odd[0]}",
            where="train.method.dora",
            fix="bits: 8, or leave dora out",
        )
    return layers


def _dequantize(model: PreTrainedModel) -> PreTrainedModel:
    """Plain fp32 linear layers in place of the quantized ones."""
    from tunesmith.model.methods.quantized import layers, plain_linear

    for name, layer in layers(model).items():
        _put(model, name, plain_linear(layer))
    for bits in (4, 8):
        model.__dict__.pop(f"is_loaded_in_{bits}bit", None)
    return model


def _facts(model: nn.Module, spec: MethodSpec) -> dict[str, Any]:
    """How the base is quantized, and the hash of what came out."""
    from tunesmith.model.methods.quantized import content_hash

    return {
        "bits": spec.bits,
        "type": "nf4" if spec.bits == 4 else "int8",
        "double_quant": spec.double_quant,
        "sha256": content_hash(model),
    }


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
