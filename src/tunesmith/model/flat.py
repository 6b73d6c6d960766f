"""A faster forward and backward for Llama-like models with LoRA, over the same parameters as the plain one.

No padding, the shared prompt prefix computed once, query/key/value and gate/up fused, adapters inside
the base product, the last layer and the head only where a token is supervised. `refusal` says why a
model cannot use it; train/forward.py proves before use that its logits are the plain forward's.
Read flat_layout.py for the packed row and flat_ops.py for the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.model import flat_ops as ops
from tunesmith.model.flat_layout import Packed

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def plain_model(model: Any) -> Any:
    """The causal language model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def refusal(model: Any, longest: int) -> str:
    """Why this model cannot use the flat forward on rows of `longest` tokens; empty if it can."""
    inner = plain_model(model)
    config = inner.config
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
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    for layer in inner.model.layers:
        if hasattr(layer, "base_layer"):
            return f"a layer is inside a {type(layer).__name__}"
        for linear in _linears(layer):
            if reason := _linear_refusal(linear):
                return reason
            trained -= {id(p) for n, p in linear.named_parameters() if "lora_A" in n or "lora_B" in n}
    return "other weights than LoRA on the linear layers are trained" if trained else ""


def _linears(layer: Any) -> list[Any]:
    a, m = layer.self_attn, layer.mlp
    return [a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj]


def _linear_refusal(linear: Any) -> str:
    if type(linear) is nn.Linear:
        return ""
    if not hasattr(linear, "lora_A"):
        return f"a linear layer is a {type(linear).__name__}"
    if list(linear.lora_A) != ["default"] or linear.merged or linear.disable_adapters:
        return "more than one adapter, or one that is merged or off"
    if getattr(linear, "use_dora", {}).get("default") or getattr(linear, "lora_variant", {}):
        return "a variant of LoRA"
    if any(getattr(d, "p", 0.0) for d in linear.lora_dropout.values()):
        return "dropout"  # its noise belongs to an example, and the shared prefix belongs to many
    if linear.lora_B["default"].bias is not None or type(linear.base_layer) is not nn.Linear:
        return "LoRA with a bias or on a quantized layer"
    return ""


class Layer:
    """One decoder layer's fused weights."""

    def __init__(self, layer: Any, dtype: torch.dtype):
        a, m = layer.self_attn, layer.mlp
        self.qkv = ops.Projection([a.q_proj, a.k_proj, a.v_proj], dtype)
        self.o = ops.Projection([a.o_proj], dtype)
        self.gate_up = ops.Projection([m.gate_proj, m.up_proj], dtype)
        self.down = ops.Projection([m.down_proj], dtype)
        self.norm1 = layer.input_layernorm.weight.detach().float()
        self.norm2 = layer.post_attention_layernorm.weight.detach().float()
        norms = [getattr(a, n, None) for n in ("q_norm", "k_norm")]
        self.head_norms = [n.weight.detach().float() for n in norms if n is not None]  # Qwen3
        self.projections = (self.qkv, self.o, self.gate_up, self.down)


class Flat:
    """The flat forward of a model for which `refusal` is empty. Building it makes the model's linear
    weights views of the fused matrices; the model itself keeps working."""

    def __init__(self, model: Any, dtype: torch.dtype):
        inner = plain_model(model)
        c = inner.config
        self.dtype = dtype
        self.heads, self.key_heads = c.num_attention_heads, c.num_key_value_heads
        self.head_size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        self.eps = c.rms_norm_eps
        self.layers = [Layer(layer, dtype) for layer in inner.model.layers]
        self.norm = inner.model.norm.weight.detach().float()
        self.embedding = inner.model.embed_tokens.weight
        self.head = inner.lm_head.weight.detach().to(dtype)  # no copy where the types agree
        self.rotary = inner.model.rotary_emb

    def hidden(self, packed: Packed) -> Tensor:
        """Last hidden states, normed, at rows_N: [N, M] in the run's type."""
        h = F.embedding(packed.ids_T, self.embedding.detach()).float()
        cos, sin = (
            x[0, :, None, : self.head_size // 2].to(self.dtype).contiguous()
            for x in self.rotary(h[None], packed.positions_T[None])
        )
        for i, layer in enumerate(self.layers):
            for projection in layer.projections:
                projection.refresh()
            rows = packed.rows_N if i == len(self.layers) - 1 else None
            h = Attention.apply(h, self, layer, packed, cos, sin, rows, *layer.qkv.trained, *layer.o.trained)
            h = Mlp.apply(h, self, layer, *layer.gate_up.trained, *layer.down.trained)
        return Norm.apply(h, self.norm, self.eps, self.dtype)

    def logits(self, packed: Packed) -> Tensor:
        """[supervised, V] float32."""
        return (self.hidden(packed)[: packed.supervised] @ self.head.T).float()


class Norm(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        out = torch.empty(h.shape, dtype=dtype)
        rstd = ops.norm_forward(h, weight, eps, out)
        ctx.save_for_backward(h, rstd, weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        h, rstd, weight = ctx.saved_tensors
        return ops.norm_backward(grad, h, rstd, weight), None, None, None


class Attention(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """h + o(attend(rope(qkv(norm(h))))), on all rows or, in the last layer, on the supervised ones."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        flat: Flat,
        layer: Layer,
        packed: Packed,
        cos: Tensor,
        sin: Tensor,
        rows: Tensor | None,
        *trained: Tensor,
    ) -> Tensor:
        T, H, K, D = h.shape[0], flat.heads, flat.key_heads, flat.head_size
        x = torch.empty(T, layer.qkv.width, dtype=flat.dtype)
        rstd = ops.norm_forward(h, layer.norm1, flat.eps, x[:, : layer.qkv.inputs])
        qkv = layer.qkv.forward(x).view(T, H + 2 * K, D)
        head_rstd = None
        qk = qkv[:, : H + K]
        if layer.head_norms:
            weight = _head_weights(layer, H, K)
            normed = torch.empty(qk.shape, dtype=qk.dtype)
            head_rstd = ops.norm_forward(qk, weight, flat.eps, normed)
            raw, qk = qk, normed
        rotated = ops.rotate(qk, cos, sin)
        a, kept = ops.attend(rotated[:, :H], rotated[:, H:], qkv[:, H + K :], packed)
        a = a.view(T, H * D)
        ctx.T = T
        if rows is not None:
            a, h_out = a.index_select(0, rows), h.index_select(0, rows)
        else:
            h_out = h
        y = torch.empty(a.shape[0], layer.o.width, dtype=flat.dtype)
        y[:, : layer.o.inputs] = a
        ctx.kept = (h, rstd, x, y, raw if layer.head_norms else None, head_rstd, kept)
        ctx.made = (flat, layer, packed, cos, sin, rows)
        return h_out + layer.o.forward(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, layer, packed, cos, sin, rows = ctx.made
        h, rstd, x, y, raw, head_rstd, kept = ctx.kept
        del ctx.kept
        T, H, K, D = ctx.T, flat.heads, flat.key_heads, flat.head_size
        da, d_o = layer.o.backward(grad.to(flat.dtype), y, need_input=True)
        if rows is not None:
            da = torch.zeros(T, H * D, dtype=flat.dtype).index_add_(0, rows, da)
            grad = torch.zeros(T, h.shape[1]).index_add_(0, rows, grad)
        dqkv = torch.empty(T, H + 2 * K, D, dtype=flat.dtype)
        dqk = torch.empty(T, H + K, D, dtype=flat.dtype)
        ops.attend_backward(da.view(T, H, D), packed, kept, dqk[:, :H], dqk[:, H:], dqkv[:, H + K :])
        dqk = ops.rotate(dqk, cos, -sin)
        if layer.head_norms:
            dqk = ops.norm_backward(dqk, raw, head_rstd, _head_weights(layer, H, K))
        dqkv[:, : H + K] = dqk
        dx, d_qkv = layer.qkv.backward(dqkv.view(T, -1), x, need_input=ctx.needs_input_grad[0])
        dh = ops.norm_backward(dx, h, rstd, layer.norm1).add_(grad) if dx is not None else None
        return (dh, None, None, None, None, None, None, *d_qkv, *d_o)


class Mlp(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """h + down(silu(gate) * up), with gate and up of norm(h)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, flat: Flat, layer: Layer, *trained: Tensor) -> Tensor:
        x = torch.empty(h.shape[0], layer.gate_up.width, dtype=flat.dtype)
        rstd = ops.norm_forward(h, layer.norm2, flat.eps, x[:, : layer.gate_up.inputs])
        gate_up = layer.gate_up.forward(x)
        s = torch.empty(h.shape[0], layer.down.width, dtype=flat.dtype)
        ops.swiglu_forward(gate_up, s[:, : layer.down.inputs])
        ctx.kept = (h, rstd, x, gate_up, s)
        ctx.made = (flat, layer)
        return h + layer.down.forward(s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, layer = ctx.made
        h, rstd, x, gate_up, s = ctx.kept
        del ctx.kept
        ds, d_down = layer.down.backward(grad.to(flat.dtype), s, need_input=True)
        dx, d_gate_up = layer.gate_up.backward(ops.swiglu_backward(ds, gate_up), x, need_input=True)
        return (ops.norm_backward(dx, h, rstd, layer.norm2).add_(grad), None, None, *d_gate_up, *d_down)


def _head_weights(layer: Layer, heads: int, key_heads: int) -> Tensor:
    """[H+K, D]: the query norm's weight for query heads, the key norm's for key heads."""
    q, k = layer.head_norms
    return torch.cat((q.expand(heads, -1), k.expand(key_heads, -1)))
