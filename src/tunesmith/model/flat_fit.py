"""Which models the flat forward is written for, and why it is not for others."""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.model.flat_weights import adapters, dora_length

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
QUANTIZED = ("FourBits", "EightBits")  # of methods/quantized.py, which is not imported here: it needs bitsandbytes


def plain_model(model: Any) -> Any:
    """The causal language model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def refusal(model: Any, longest: int) -> str:
    """Why this model cannot use the flat forward on rows of `longest` tokens; empty if it can."""
    inner = plain_model(model)
    config = inner.config
    device = next(model.parameters()).device.type
    if device != "cpu":
        return f"on {device} the plain path with fused attention is used"
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not one of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"activation {config.hidden_act}"
    if any(t == "sliding_attention" for t in getattr(config, "layer_types", None) or ()) or (
        config.model_type == "mistral" and config.sliding_window is not None and config.sliding_window < longest
    ):
        return "sliding-window attention"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return f"rotary embedding of type {rope['rope_type']}"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "virtual tokens"
    return _module_refusal(inner) or _trained_refusal(model, inner)


def linears(layer: Any) -> list[Any]:
    a, m = layer.self_attn, layer.mlp
    return [a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj]


def _module_refusal(inner: Any) -> str:
    if hasattr(inner.model.embed_tokens, "new_tokens"):
        return "rows of new tokens are trained"
    if type(inner.lm_head) is not nn.Linear or type(inner.model.embed_tokens) is not nn.Embedding:
        return "the embeddings or the output head are inside an adapter"
    for layer in inner.model.layers:
        if hasattr(layer, "base_layer"):
            return f"a layer is inside a {type(layer).__name__}"
        found = linears(layer)
        for linear in found:
            if reason := _linear_refusal(linear):
                return reason
        kinds = {type(getattr(x, "base_layer", x)) for x in found}
        if len(kinds) > 1:
            return "some linear layers are quantized and some are not"
    return ""


def _linear_refusal(linear: Any) -> str:
    base = getattr(linear, "base_layer", linear)
    if type(base) is not nn.Linear and type(base).__name__ not in QUANTIZED:
        return f"a linear layer is a {type(linear).__name__}"
    if base is linear:
        return ""
    if not hasattr(linear, "lora_A"):
        return f"a linear layer is a {type(linear).__name__}"
    if not {"default"} <= set(adapters(linear)) <= {"default", "start"} or linear.merged or linear.disable_adapters:
        return "adapters that are several, merged or off"
    variants = set(getattr(linear, "lora_variant", {}))
    if variants and (dora_length(linear) is None or len(adapters(linear)) > 1):
        return "a variant of LoRA"
    if any(getattr(d, "p", 0.0) for d in linear.lora_dropout.values()):
        return "dropout"  # its noise belongs to an example, and the shared prefix belongs to many
    if any(linear.lora_B[n].bias is not None for n in adapters(linear)):
        return "LoRA with a bias"
    return ""


def _trained_refusal(model: Any, inner: Any) -> str:
    """Everything that is trained must be something the flat backward has a gradient for."""
    known = [inner.lm_head.weight, inner.model.embed_tokens.weight, inner.model.norm.weight]
    for layer in inner.model.layers:
        a = layer.self_attn
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += [getattr(a, n) for n in ("q_norm", "k_norm") if getattr(a, n, None) is not None]
        known += [n.weight for n in norms]
        for linear in linears(layer):
            base = getattr(linear, "base_layer", linear)
            known += [base.weight, *([base.bias] if base.bias is not None else [])]
            for name in adapters(linear):
                known += [linear.lora_A[name].weight, linear.lora_B[name].weight]
            if (length := dora_length(linear)) is not None:
                known.append(length)
    others = {id(p) for p in model.parameters() if p.requires_grad} - {id(p) for p in known}
    return "weights are trained that the flat backward does not know" if others else ""
