"""The `adapters` library's forward of a decoder layer with a bottleneck, written out on plain tensors.

Its SeqBn, DoubleSeqBn and ParBn configurations (adapters 1.3, methods/modeling.py: pre_forward, forward and
post_forward) and its decoder layers, where layer_norm is None because these families normalise before they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}


class Formula:
    """`state` has the adapter's tensors under the names of its file."""

    def __init__(self, placement: str, state: State, *, scaling: float, activation: str):
        self.placement, self.state, self.scaling = placement, state, scaling
        self.activation = ACTIVATIONS[activation]

    def up(self, x: Tensor, module: str) -> Tensor:
        s = self.state
        down = x @ s[f"{module}.bottleneck_down.weight"].T + s[f"{module}.bottleneck_down.bias"]
        up = self.activation(down) @ s[f"{module}.bottleneck_up.weight"].T + s[f"{module}.bottleneck_up.bias"]
        return up * self.scaling

    def attention(self, h: Tensor, residual: Tensor, module: str) -> Tensor:
        if self.placement == "houlsby":  # mh_adapter, original_ln_before=False, residual_before_ln=True
            h = self.up(h, module) + h
        return h + residual

    def output(self, h: Tensor, residual: Tensor, module: str) -> Tensor:
        if self.placement == "houlsby":
            h = self.up(h, module) + h
        elif self.placement == "pfeiffer":  # original_ln_before=True, residual_before_ln=True
            h = self.up(h + residual, module) + h
        else:  # parallel: the adapter reads the residual
            h = self.up(residual, module) + h
        return h + residual


def names_of(family: str, placement: str, layer: int) -> tuple[str, str]:
    """(attention's, output's) module in the adapter's file."""
    stack = {"gpt2": "transformer.h", "opt": "model.decoder.layers"}.get(family, "model.layers")
    block = f"base_model.model.{stack}.{layer}"
    if placement != "houlsby":
        return "", block
    inner = {
        "gpt2": ("attn.c_proj", "mlp.c_proj"),
        "opt": ("self_attn.out_proj", "fc2"),
    }.get(family, ("self_attn.o_proj", "mlp.down_proj"))
    return f"{block}.{inner[0]}", f"{block}.{inner[1]}"


def with_formula(model: Any, family: str, formula: Formula) -> Any:
    """The base model, its layers' forward replaced by `adapters`' one."""
    blocks = {"gpt2": lambda m: m.transformer.h, "opt": lambda m: m.model.decoder.layers}.get(
        family, lambda m: m.model.layers
    )(model)
    for i, block in enumerate(blocks):
        block.forward = _forward(family, block, formula, names_of(family, formula.placement, i))
    return model


def _forward(family: str, block: nn.Module, formula: Formula, names: tuple[str, str]) -> Callable[..., Any]:
    ln1, attn, ln2, mlp = _parts(family, block)

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        residual = hidden
        h = attn(ln1(hidden), *args, **kwargs)
        h = formula.attention(h, residual, names[0])
        residual = h
        h = mlp(ln2(h))
        return formula.output(h, residual, names[1])

    return forward


def _parts(family: str, block: Any) -> tuple[Any, Any, Any, Any]:
    if family == "gpt2":

        def gpt2_attention(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            kwargs.pop("encoder_hidden_states", None)
            kwargs.pop("encoder_attention_mask", None)
            return block.attn(x, *args[:2], **kwargs)[0]

        return block.ln_1, gpt2_attention, block.ln_2, block.mlp
    if family == "opt":
        return (
            block.self_attn_layer_norm,
            lambda x, *args, **kwargs: block.self_attn(x, *args, **kwargs)[0],
            block.final_layer_norm,
            lambda x: block.fc2(block.activation_fn(block.fc1(x))),
        )
    return (
        block.input_layernorm,
        lambda x, *args, **kwargs: block.self_attn(x, *args, **kwargs)[0],
        block.post_attention_layernorm,
        block.mlp,
    )
