"""Bottleneck adapters: a small network beside the residual stream, with the whole base frozen.

houlsby   two in each layer: on what attention and feed-forward write into the residual stream, y + A(y)
pfeiffer  one in each layer: on the layer's output, h + A(h)
parallel  one in each layer: from the residual stream before the feed-forward's norm, added to the layer's output

The formulas are those of the `adapters` library (Houlsby, SeqBn, ParBn configurations) for layers that normalise
before they compute; all start as a change of nothing, where `adapters` starts the first two at N(0, 0.02).
The layers are in bottleneck_layers.py, PEFT's part in bottleneck_peft.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import InputError, Problem
from tunesmith.model.methods import adapter_files
from tunesmith.model.methods.bottleneck_layers import BottleneckLayer, refuse_merge
from tunesmith.model.methods.bottleneck_peft import BottleneckConfig
from tunesmith.model.methods.spec import MethodSpec

ATTENTION_OUT = ("o_proj", "out_proj", "c_proj", "dense", "attention_out")
FEED_FORWARD_OUT = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "w2", "fc_out")
# The norm whose input is the residual stream that the feed-forward branches from, the first that a layer has.
FEED_FORWARD_NORM = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "ln_mlp")
ONLY_NORM = ("input_layernorm", "ln_1")  # attention and feed-forward side by side: Phi, Falcon
AFTER = ("post_feedforward_layernorm",)  # without a norm before: OLMo 2 normalises outputs


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PeftModel:
    """A PeftModel whose adapters start as a change of nothing, from `seed` alone.

    Raises InputError for a layer in which the placement cannot be found, naming what it has.
    """
    peft_model = _attach(model, config_for(model, spec))
    generator = torch.Generator().manual_seed(seed)
    for _, layer in sorted(layers(peft_model).items()):
        layer.reset("default", generator)
    return peft_model


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    adapter_files.write(folder, state, model.peft_config["default"], base=base)


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    """The base with a checkpoint's adapter on it. Its base_model_name_or_path is never followed."""
    peft_model = _attach(model, config_for(model, spec))
    own = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    set_peft_model_state_dict(peft_model, adapter_files.read(checkpoint, own, peft_model.peft_config["default"]))
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    refuse_merge()


def layers(model: nn.Module) -> dict[str, BottleneckLayer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, BottleneckLayer)}


def config_for(model: PreTrainedModel, spec: MethodSpec) -> BottleneckConfig:
    """Where the adapters of `spec` go in this model."""
    stack, blocks = decoder_layers(model)
    pattern = f"{re.escape(stack)}\\.\\d+"
    targets: list[str] | str
    reads = None
    if spec.placement == "houlsby":
        targets = _outputs(blocks, model)
    else:
        if _normalises_after(model, blocks):
            what = "this model's layers normalise after they compute, and the placement is for layers that do so before"
            raise InputError(_problem(what, "placement: houlsby"))
        targets = pattern
    if spec.placement == "parallel":
        reads = _feed_forward_norm(blocks)
    return BottleneckConfig(
        target_modules=targets,
        width=0 if spec.reduction else spec.rank,
        reduction=spec.reduction or BottleneckConfig.reduction,
        activation=spec.activation,
        dropout=spec.dropout,
        scaling=spec.scaling,
        reads=reads,
        task_type="CAUSAL_LM",
    )


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """(name, layers) of the model's stack. Raises InputError where there is no such list."""
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not found:
        raise InputError(_problem(f"{type(model).__name__} has no list of {count} layers", "use kind: lora"))
    return min(found, key=lambda f: f[0].count("."))


def _outputs(blocks: nn.ModuleList, model: nn.Module) -> list[str]:
    """Last parts of the names of the two linear maps in each layer that write into the residual stream."""
    width = model.config.get_text_config(decoder=True).hidden_size
    names: set[str] = set()
    for block in blocks:
        linear = {
            n: m.out_features if isinstance(m, nn.Linear) else m.weight.shape[1]
            for n, m in block.named_modules()
            if isinstance(m, nn.Linear | Conv1D)
        }
        attention = [n for n in linear if _last(n) in ATTENTION_OUT and "att" in n and linear[n] == width]
        rest = [n for n in linear if _last(n) in FEED_FORWARD_OUT and "att" not in n and linear[n] == width]
        if len(attention) != 1 or len(rest) != 1:
            has = ", ".join(sorted({_last(n) for n in linear}))
            what = f"houlsby needs one output map of attention and one of the feed-forward in each layer, found {has}"
            raise InputError(_problem(what, "placement: pfeiffer, or kind: lora"))
        names |= {_last(attention[0]), _last(rest[0])}
    return sorted(names)


def _feed_forward_norm(blocks: nn.ModuleList) -> str:
    children = dict(blocks[0].named_children())
    for name in (*FEED_FORWARD_NORM, *ONLY_NORM):
        if name in children:
            return name
    what = f"parallel reads what enters the feed-forward's norm, and a layer here has only {', '.join(children)}"
    raise InputError(_problem(what, "placement: pfeiffer, or kind: lora"))


def _normalises_after(model: nn.Module, blocks: nn.ModuleList) -> bool:
    children = dict(blocks[0].named_children())
    if getattr(model.config, "do_layer_norm_before", True) is False:  # OPT-350m
        return True
    return any(n in children for n in AFTER) and "pre_feedforward_layernorm" not in children


def _attach(model: PreTrainedModel, config: BottleneckConfig) -> PeftModel:
    from tunesmith.model.load import quiet

    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)  # adapters in fp32
    return peft_model.train(training)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _problem(what: str, fix: str) -> Problem:
    return Problem(where="train.method.placement", what=what, fix=fix)
