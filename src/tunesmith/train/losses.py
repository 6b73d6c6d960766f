"""Token-weighted negative log-likelihood: sums now, divided once over the global batch by the caller.

Dividing each micro-batch by its own count would give a short answer the weight of a long one.
Shapes: N supervised places, M hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 256  # of logits held at a time: 50 MB at a vocabulary of 49,152


def nll_sum(logits_NV: Tensor, labels_N: Tensor, weights_N: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Sum over places of weight times -log p(label), in nats, computed in float32.

    With `smoothing` s: (1 - s) of that and s times the mean of -log p over the vocabulary (Szegedy et al. 2016,
    arXiv:1512.00567, section 7).
    """
    each = F.cross_entropy(logits_NV.float(), labels_N, reduction="none", label_smoothing=smoothing)
    return (each * weights_N).sum()


def head_nll_sum(
    hidden_NM: Tensor, head_VM: Tensor, labels_N: Tensor, weights_N: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """`nll_sum` of hidden @ head', some rows of logits at a time. The head is frozen: its gradient is not made."""
    total: Tensor = _HeadNll.apply(hidden_NM, head_VM, labels_N, weights_N, smoothing)
    return total


class _HeadNll(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """The gradient of the hidden states is made in the forward, where the logits are at hand."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(labels), ROWS):
            some = slice(start, start + ROWS)
            logits, picked = hidden[some] @ head.T, labels[some, None]
            top, place = logits.max(-1, keepdim=True)
            p = torch.softmax(logits, -1, dtype=torch.float32)
            log_sum = top.float() - p.gather(1, place).log()  # the largest p never underflows
            reached = logits.gather(1, picked).float()
            if smoothing:
                reached = (1 - smoothing) * reached + smoothing * logits.float().mean(-1, keepdim=True)
            total += ((log_sum - reached)[:, 0] * weights[some]).sum()
            if grad is not None:
                p.scatter_add_(1, picked, torch.full_like(picked, smoothing - 1, dtype=p.dtype))
                if smoothing:
                    p -= smoothing / logits.shape[-1]
                grad[some] = (p.to(hidden.dtype) @ head).float() * weights[some, None]
        ctx.grad = grad
        return total.float()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        return ctx.grad.mul_(scale), None, None, None, None
