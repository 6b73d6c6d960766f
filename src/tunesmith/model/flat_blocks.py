"""The two halves of a decoder layer and the norm, each with a backward that keeps little.

A gradient is made only where something below or inside wants it: with frozen layers underneath, the backward
ends at the lowest trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.model import flat_attention as attention
from tunesmith.model import flat_ops as ops
from tunesmith.model.flat_layout import Packed

if TYPE_CHECKING:
    from tunesmith.model.flat import Flat, Layer


class Norm(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """RMS norm; `learned` is its weight where that is trained."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, learned: Tensor | None = None
    ) -> Tensor:
        out = torch.empty(h.shape, dtype=dtype, device=h.device)
        rstd = ops.norm_forward(h, weight, eps, out)
        ctx.save_for_backward(h, rstd, weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        h, rstd, weight = ctx.saved_tensors
        of_weight = ops.norm_weight_gradient(grad, h, rstd) if ctx.needs_input_grad[4] else None
        dh = ops.norm_backward(grad, h, rstd, weight) if ctx.needs_input_grad[0] else None
        return dh, None, None, None, of_weight


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
        x = torch.empty(T, layer.qkv.width, dtype=flat.dtype, device=h.device)
        rstd = ops.norm_forward(h, layer.norm1, flat.eps, x[:, : layer.qkv.inputs])
        qkv, qkv_unscaled = layer.qkv.forward(x)
        qkv = qkv.view(T, H + 2 * K, D)
        raw = head_rstd = None
        qk = qkv[:, : H + K]
        if layer.head_norms:
            normed = torch.empty(qk.shape, dtype=qk.dtype, device=h.device)
            head_rstd = ops.norm_forward(qk, _head_weights(layer, H, K), flat.eps, normed)
            raw, qk = qk, normed
        rotated = ops.rotate(qk, cos, sin)
        a, kept = attention.attend(rotated[:, :H], rotated[:, H:], qkv[:, H + K :], packed)
        a = a.view(T, H * D)
        ctx.T = T
        if rows is not None:
            a, h_out = a.index_select(0, rows), h.index_select(0, rows)
        else:
            h_out = h
        y = torch.empty(a.shape[0], layer.o.width, dtype=flat.dtype, device=h.device)
        y[:, : layer.o.inputs] = a
        out, o_unscaled = layer.o.forward(y)
        ctx.kept = (h, rstd, x, qkv_unscaled, y, o_unscaled, raw, head_rstd, kept)
        ctx.made = (flat, layer, packed, cos, sin, rows)
        return h_out + out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, layer, packed, cos, sin, rows = ctx.made
        h, rstd, x, qkv_unscaled, y, o_unscaled, raw, head_rstd, kept = ctx.kept
        del ctx.kept
        T, H, K, D = ctx.T, flat.heads, flat.key_heads, flat.head_size
        need_h = ctx.needs_input_grad[0]
        inner = need_h or layer.attention_learns_before_o
        da, d_o = layer.o.backward(grad.to(flat.dtype), y, o_unscaled, need_input=inner)
        if not inner:
            return (*(None,) * 7, *d_o)
        if rows is not None:
            da = torch.zeros(T, H * D, dtype=flat.dtype, device=h.device).index_add_(0, rows, da)
            grad = torch.zeros(T, h.shape[1], device=h.device).index_add_(0, rows, grad)
        dqkv = torch.empty(T, H + 2 * K, D, dtype=flat.dtype, device=h.device)
        dqk = torch.empty(T, H + K, D, dtype=flat.dtype, device=h.device)
        attention.attend_backward(da.view(T, H, D), packed, kept, dqk[:, :H], dqk[:, H:], dqkv[:, H + K :])
        dqk = ops.rotate(dqk, cos, -sin)
        norms: list[Tensor] = []
        if layer.head_norms:
            for norm, heads in zip(layer.head_norms, (slice(0, H), slice(H, H + K)), strict=True):
                if norm.requires_grad:
                    norms.append(ops.norm_weight_gradient(dqk[:, heads], raw[:, heads], head_rstd[:, heads]))
            dqk = ops.norm_backward(dqk, raw, head_rstd, _head_weights(layer, H, K))
        dqkv[:, : H + K] = dqk
        need_norm = layer.learned_norm1 is not None
        dx, d_qkv = layer.qkv.backward(dqkv.view(T, -1), x, qkv_unscaled, need_input=need_h or need_norm)
        if need_norm:
            norms.insert(0, ops.norm_weight_gradient(dx, h, rstd))
        dh = ops.norm_backward(dx, h, rstd, layer.norm1).add_(grad) if need_h else None
        return (dh, *(None,) * 6, *norms, *d_qkv, *d_o)


class Mlp(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """h + down(silu(gate) * up), with gate and up of norm(h)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, flat: Flat, layer: Layer, *trained: Tensor) -> Tensor:
        x = torch.empty(h.shape[0], layer.gate_up.width, dtype=flat.dtype, device=h.device)
        rstd = ops.norm_forward(h, layer.norm2, flat.eps, x[:, : layer.gate_up.inputs])
        gate_up, unscaled = layer.gate_up.forward(x)
        s = torch.empty(h.shape[0], layer.down.width, dtype=flat.dtype, device=h.device)
        ops.swiglu_forward(gate_up, s[:, : layer.down.inputs])
        out, out_unscaled = layer.down.forward(s)
        ctx.kept = (h, rstd, x, unscaled, gate_up, s, out_unscaled)
        ctx.made = (flat, layer)
        return h + out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, layer = ctx.made
        h, rstd, x, unscaled, gate_up, s, out_unscaled = ctx.kept
        del ctx.kept
        need_h, need_norm = ctx.needs_input_grad[0], layer.learned_norm2 is not None
        inner = need_h or need_norm or bool(layer.gate_up.trained)
        ds, d_down = layer.down.backward(grad.to(flat.dtype), s, out_unscaled, need_input=inner)
        if not inner:
            return (None, None, None, *d_down)
        d_gate_up = ops.swiglu_backward(ds, gate_up)
        dx, d_trained = layer.gate_up.backward(d_gate_up, x, unscaled, need_input=need_h or need_norm)
        norm = [ops.norm_weight_gradient(dx, h, rstd)] if need_norm else []
        dh = ops.norm_backward(dx, h, rstd, layer.norm2).add_(grad) if need_h else None
        return (dh, None, None, *norm, *d_trained, *d_down)


def _head_weights(layer: Layer, heads: int, key_heads: int) -> Tensor:
    """[H+K, D]: the query norm's weight for query heads, the key norm's for key heads."""
    q, k = (n.detach().float() for n in layer.head_norms)
    return torch.cat((q.expand(heads, -1), k.expand(key_heads, -1)))
