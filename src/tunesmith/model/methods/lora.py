"""LoRA through PEFT: y = Wx + s B A x, with A and B trained and W frozen; s = alpha / rank.

Sources: Hu et al. 2021, arXiv:2106.09685; rsLoRA, s = alpha / sqrt(rank), Kalajdzievski 2023,
arXiv:2312.03732; DoRA, Liu et al. 2024, arXiv:2402.09353; LoRA+, Hayou et al. 2024, arXiv:2402.12354;
PiSSA, OLoRA and EVA in starts.py. PEFT holds the layers; the start of A and B, the strict loading and the
portable files are ours.

Layers of another rank (`ranks`) have the same s as all others. PiSSA and OLoRA leave W untouched: their
start is a second, frozen pair that is subtracted, y = Wx + s (B A - B0 A0) x, where PEFT subtracts it from
W and so rounds W once more. The files hold [A; A0] and [B, -B0]: plain LoRA of twice the rank on the
original base.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.model.methods import adapter_files, starts
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.methods.targets import fits, refuse_unmatched, target_names

TRAINED, START = "default", "start"  # PEFT's names for the two adapters of a layer
INSIDE = "base_model.model."  # what PEFT puts before a module's name


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int, texts: Sequence[Sequence[int]] = ()) -> PeftModel:
    """A PeftModel whose adapters change nothing yet. They depend on `seed`, the base and, with eva, on `texts`.

    Raises InputError for a target that the model lacks, that is not linear, or that is tied to another weight,
    for a pattern in `ranks` that fits no targeted layer, and for a start that needs a smaller rank.
    """
    peft_model = _attach(model, spec)
    layers = lora_layers(peft_model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers.values():
            a, b = layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            b.zero_()
    if spec.init == "eva":
        starts.eva(peft_model, layers, texts, seed=seed)
    elif spec.init != "uniform":
        _subtract_start(peft_model, layers, spec)
    return peft_model


def check(model: PreTrainedModel, spec: MethodSpec) -> list[str]:
    """Names of the weights that `wrap` would train. Refuses what it would, of a model whose weights are not there."""
    targets = target_names(model, spec.targets)
    layers = _targeted(model, targets)
    ranks = _config(spec, targets, layers).rank_pattern
    if spec.init != "uniform":
        sizes = {n: tuple(m.weight.T.shape if isinstance(m, nn.Linear) else m.weight.shape) for n, m in layers.items()}
        starts.refuse_wide({n: (ranks.get(n, spec.rank), *size) for n, size in sizes.items()}, spec.init)
    wrapped = wrap(model, replace(spec, init="uniform"), seed=0)
    return sorted(n for n, p in wrapped.named_parameters() if p.requires_grad)


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """adapter_model.safetensors and adapter_config.json, as PEFT reads them."""
    state = get_peft_model_state_dict(model, adapter_name=TRAINED, save_embedding_layers=False)
    config = model.peft_config[TRAINED]
    if START in model.peft_config:
        start = get_peft_model_state_dict(model, adapter_name=START, save_embedding_layers=False)
        state = {
            n: torch.cat((t, start[n])) if "lora_A" in n else torch.cat((t, -start[n]), dim=1) for n, t in state.items()
        }
        layers = [n.removeprefix(INSIDE) for n in lora_layers(model)]
        config = _config(_plain_lora(spec), sorted(config.target_modules), layers)
        config.fan_in_fan_out = model.peft_config[TRAINED].fan_in_fan_out
    adapter_files.write(folder, state, config, base=base)


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    """The base with a checkpoint's adapter on it. Its base_model_name_or_path is never followed."""
    peft_model = _attach(model, _plain_lora(spec))
    own = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    state = adapter_files.read(checkpoint, own, peft_model.peft_config[TRAINED])
    set_peft_model_state_dict(peft_model, state)
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    return model.merge_and_unload(safe_merge=True)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """In name order."""
    return {n: m for n, m in sorted(model.named_modules()) if isinstance(m, LoraLayer)}


def _attach(model: PreTrainedModel, spec: MethodSpec) -> PeftModel:
    from tunesmith.model.load import quiet

    targets = target_names(model, spec.targets)
    config = _config(spec, targets, list(_targeted(model, targets)))
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)  # adapters in fp32
    return peft_model.train(training)


def _targeted(model: PreTrainedModel, targets: Sequence[str]) -> dict[str, nn.Module]:
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    return {n: m for n, m in linear.items() if any(n == t or n.endswith(f".{t}") for t in targets)}


def _config(spec: MethodSpec, targets: Sequence[str], layers: Iterable[str]) -> LoraConfig:
    """`layers` are the names of all targeted layers, among which `ranks` chooses."""
    layers = list(layers)
    refuse_unmatched("ranks", [p for p, _ in spec.ranks], layers)
    ranks = {n: next((r for p, r in spec.ranks if fits(p, n)), spec.rank) for n in layers}
    special = {n: r for n, r in sorted(ranks.items()) if r != spec.rank}
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(targets),
        rank_pattern=special,
        alpha_pattern={n: _alpha(spec, r) for n, r in special.items()},
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _alpha(spec: MethodSpec, rank: int) -> float:
    """The alpha that gives a layer of this rank the scale of the others."""
    return spec.alpha * (math.sqrt(rank / spec.rank) if spec.rslora else rank / spec.rank)


def _plain_lora(spec: MethodSpec) -> MethodSpec:
    """The LoRA that the files hold: with a subtracted start, twice the rank at the same scale."""
    if spec.init not in ("pissa", "olora"):
        return spec
    ranks = tuple((p, 2 * r) for p, r in spec.ranks)
    return replace(spec, init="uniform", rank=2 * spec.rank, alpha=_alpha(spec, 2 * spec.rank), ranks=ranks)


def _subtract_start(peft_model: PeftModel, layers: dict[str, LoraLayer], spec: MethodSpec) -> None:
    """A and B from the base's weights, and the same again, frozen, with the opposite sign."""
    from tunesmith.model.load import quiet

    pairs = starts.from_weights(layers, spec.init)
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model.add_adapter(START, copy.deepcopy(peft_model.peft_config[TRAINED]))
    peft_model.base_model.set_adapter([TRAINED, START])
    with torch.no_grad():
        for name, layer in layers.items():
            for adapter in (TRAINED, START):
                layer.lora_A[adapter].weight.copy_(pairs[name][0])
                layer.lora_B[adapter].weight.copy_(pairs[name][1])
            layer.scaling[START] = -layer.scaling[TRAINED]
            layer.lora_A[START].requires_grad_(False)
            layer.lora_B[START].requires_grad_(False)
