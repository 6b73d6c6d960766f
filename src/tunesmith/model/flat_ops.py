"""Pairs of forward and backward for the parts of a Llama-like layer, written to touch memory little.

On a CPU with matrix units, element-wise passes cost as much as the products, so each function here
does its pass once, keeps what its backward needs and nothing else. Each backward is tested against
autograd of the plain formula.

Shapes: T rows of one packed row, M hidden, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.flat_layout import Packed, Span


def norm_forward(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """RMS norm of the last dimension into `out` (any float type); returns 1/rms for the backward."""
    x = x.float()
    rstd = x.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
    out.copy_((x * rstd).mul_(weight))
    return rstd


def norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """Gradient of x, float32."""
    x = x.float()
    g = grad.float() * weight
    pull = (g * x).sum(-1, keepdim=True).mul_(rstd.pow(3) / x.shape[-1])
    return g.mul_(rstd).addcmul_(x, pull, value=-1)


def norm_weight_gradient(grad: Tensor, x: Tensor, rstd: Tensor) -> Tensor:
    """Of the norm's weight, float32: summed over all but the last dimension."""
    return (x.float() * rstd).mul_(grad).flatten(0, -2).sum(0)


def swiglu_forward(gate_up: Tensor, out: Tensor) -> None:
    gate, up = gate_up.chunk(2, -1)
    out.copy_(F.silu(gate).mul_(up))


def swiglu_backward(grad: Tensor, gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    out = torch.empty_like(gate_up)
    d_gate, d_up = out.chunk(2, -1)
    torch.mul(F.silu(gate), grad, out=d_up)
    d_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [T, heads, D]; cos and sin are [T, 1, D/2]. With -sin it is its own backward."""
    first, second = x.chunk(2, -1)
    out = torch.empty(x.shape, dtype=x.dtype)
    a, b = out.chunk(2, -1)
    torch.mul(first, cos, out=a).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=b).addcmul_(first, sin)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> tuple[Tensor, list[Any]]:
    """Causal attention inside each document, all seeing the prefix. q [T, H, D]; k, v [T, K, D] → [T, H, D]."""
    out = torch.empty_like(q)
    out[packed.end :] = 0
    saved = []
    for span in packed.spans:
        saved.append((_flash if span.flash else _math)(q, k, v, span, out))
    return out, saved


def attend_backward(grad: Tensor, packed: Packed, saved: list[Any], dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Writes the gradients of q, k and v. The prefix span comes first; documents then add to its keys."""
    for d in (dq, dk, dv):
        d[packed.end :] = 0
    for span, kept in zip(packed.spans, saved, strict=True):
        (_flash_backward if span.flash else _math_backward)(grad, span, kept, dq, dk, dv)


def causal_mask(n: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(n, n, dtype=dtype).masked_fill_(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))


def _padded(x: Tensor, span: Span) -> Tensor:
    """Rows of the span as [B, n, heads, D]."""
    rows = x[span.low : span.high]
    if span.gather is not None:
        rows = rows.index_select(0, span.gather)
    return rows.view(len(span.bounds), span.longest, *x.shape[1:])


def _rows(x: Tensor, span: Span) -> Tensor:
    """The inverse: [B, n, heads, D] → [high-low, heads, D]."""
    flat = x.reshape(-1, *x.shape[2:])
    return flat if span.scatter is None else flat.index_select(0, span.scatter)


def _grouped(x: Tensor, heads: int) -> Tensor:
    """[B, n, H, D] → [B*K, H/K*n, D]: the query heads that share a key head become rows of one product."""
    B, n, H, D = x.shape
    return x.view(B, n, heads, H // heads, D).permute(0, 2, 3, 1, 4).reshape(B * heads, H // heads * n, D)


def _ungrouped(x: Tensor, B: int, heads: int, n: int) -> Tensor:
    """The inverse of `_grouped`, not contiguous."""
    return x.view(B, heads, -1, n, x.shape[-1]).permute(0, 3, 1, 2, 4).reshape(B, n, -1, x.shape[-1])


def _math(q: Tensor, k: Tensor, v: Tensor, span: Span, out: Tensor) -> tuple[Tensor, ...]:
    B, n, P, K, D = len(span.bounds), span.longest, span.prefix, k.shape[1], q.shape[-1]

    def keys(x: Tensor) -> Tensor:
        own = _padded(x, span).transpose(1, 2)
        if P:
            own = torch.cat((x[:P].transpose(0, 1)[None].expand(B, -1, -1, -1), own), 2)
        return own.reshape(B * K, P + n, D)

    qb = _grouped(_padded(q, span), K) * D**-0.5
    kb, vb = keys(k), keys(v)
    scores = (qb @ kb.transpose(1, 2)).view(B * K, -1, n, P + n)
    scores[..., P:] += causal_mask(n, q.dtype)
    p = torch.softmax(scores, -1).view(B * K, -1, P + n)
    out[span.low : span.high] = _rows(_ungrouped(p @ vb, B, K, n), span)
    return qb, kb, vb, p


def _math_backward(grad: Tensor, span: Span, kept: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    qb, kb, vb, p = kept
    B, n, P, K, D = len(span.bounds), span.longest, span.prefix, dk.shape[1], grad.shape[-1]
    g = _padded(grad, span)
    if span.padding is not None:  # the gather filled padded places with some row; they have no gradient
        g = g.flatten(0, 1).index_fill_(0, span.padding, 0).view_as(g)
    gb = _grouped(g, K)
    dvb = p.transpose(1, 2) @ gb
    ds = torch._softmax_backward_data(gb @ vb.transpose(1, 2), p, -1, p.dtype)
    dkb = ds.transpose(1, 2) @ qb
    dq[span.low : span.high] = _rows(_ungrouped(ds @ kb, B, K, n), span).mul_(D**-0.5)
    for d, db in ((dk, dkb), (dv, dvb)):
        db = db.view(B, K, P + n, D)
        d[span.low : span.high] = _rows(db[:, :, P:].transpose(1, 2), span)
        if P:
            d[:P] += db[:, :, :P].sum(0).transpose(0, 1)


def _flash(q: Tensor, k: Tensor, v: Tensor, span: Span, out: Tensor) -> Any:
    """Document by document with torch's own kernel; keeps small graphs for its backward."""
    graphs = []
    for start, end in span.bounds:
        with torch.enable_grad():
            qd = q[start:end].detach().requires_grad_()
            kd = torch.cat((k[: span.prefix], k[start:end])).detach().requires_grad_()
            vd = torch.cat((v[: span.prefix], v[start:end])).detach().requires_grad_()
            repeat = q.shape[1] // k.shape[1]
            heads = [x.repeat_interleave(repeat, 1).transpose(0, 1)[None] for x in (kd, vd)]
            mask = None
            if span.prefix:
                mask = torch.ones(end - start, span.prefix + end - start, dtype=torch.bool).tril(span.prefix)
            o = F.scaled_dot_product_attention(
                qd.transpose(0, 1)[None], heads[0], heads[1], attn_mask=mask, is_causal=mask is None
            )
            o = o[0].transpose(0, 1)
        out[start:end] = o.detach()
        graphs.append((qd, kd, vd, o))
    return graphs


def _flash_backward(grad: Tensor, span: Span, kept: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    P = span.prefix
    for (start, end), (qd, kd, vd, o) in zip(span.bounds, kept, strict=True):
        gq, gk, gv = torch.autograd.grad(o, (qd, kd, vd), grad[start:end])
        dq[start:end] = gq
        for d, g in ((dk, gk), (dv, gv)):
            d[start:end] = g[P:]
            if P:
                d[:P] += g[:P]
