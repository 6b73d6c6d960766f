"""Pairs of forward and backward for the parts of a Llama-like layer, written to touch memory little.

On a CPU with matrix units, element-wise passes cost as much as the products, so each function here
does its pass once, keeps what its backward needs and nothing else. Each backward is tested against
autograd of the plain formula.

Shapes: T rows of one packed row, M hidden, H query heads, K key heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED_ROWS = 128  # what is made between two passes over so many stays in the cache


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
    for some, made in zip(gate_up.split(CACHED_ROWS), out.split(CACHED_ROWS), strict=True):
        gate, up = some.chunk(2, -1)
        torch.mul(F.silu(gate), up, out=made)


def swiglu_backward(grad: Tensor, gate_up: Tensor) -> Tensor:
    out = torch.empty_like(gate_up)
    for g, some, made in zip(*(x.split(CACHED_ROWS) for x in (grad, gate_up, out)), strict=True):
        (gate, up), (d_gate, d_up) = some.chunk(2, -1), made.chunk(2, -1)
        torch.mul(F.silu(gate), g, out=d_up)
        torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=d_gate)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [T, heads, D]; cos and sin are [T, 1, D/2]. With -sin it is its own backward."""
    first, second = x.chunk(2, -1)
    out = torch.empty(x.shape, dtype=x.dtype)
    a, b = out.chunk(2, -1)
    torch.mul(first, cos, out=a).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=b).addcmul_(first, sin)
    return out
