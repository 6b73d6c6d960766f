"""Token-weighted negative log-likelihood: sums now, divided once over the global batch by the caller.

Dividing each micro-batch by its own count would give a short answer the weight of a long one.
Shapes: N supervised places, M hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROWS = 256  # of logits held at a time: 50 MB at a vocabulary of 49,152


def nll_sum(logits_NV: Tensor, labels_N: Tensor, weights_N: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Sum over places of weight times -log p(label), in nats, computed in float32.

    With `smoothing` s: (1 - s) of that and s times the mean of -log p over the vocabulary (Szegedy et al. 2016,
    arXiv:1512.00567, section 7).
    """
    each = F.cross_entropy(logits_NV.float(), labels_N, reduction="none", label_smoothing=smoothing)
    return (each * weights_N).sum()


def head_nll_sum(
    hidden_NM: Tensor,
    head_VM: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    *,
    smoothing: float = 0.0,
    learned: Tensor | None = None,
) -> Tensor:
    """`nll_sum` of hidden @ head', some rows of logits at a time. `learned`: the head where it is trained, of which
    head_VM is the copy that computes; it gets its gradient in float32."""
    total: Tensor = _HeadNll.apply(hidden_NM, head_VM, labels_N, weights_N, smoothing, learned)
    return total


def module_nll_sum(
    hidden_NM: Tensor, head: nn.Module, labels_N: Tensor, weights_N: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """The same for a head of any kind (with a bias, an adapter, quantized): each part is computed again in the
    backward, so that its logits need not be kept."""

    def part(hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return nll_sum(head(hidden), labels, weights, smoothing=smoothing)

    total = torch.zeros((), dtype=torch.float64, device=hidden_NM.device)
    for some in zip(hidden_NM.split(ROWS), labels_N.split(ROWS), weights_N.split(ROWS), strict=True):
        total = total + checkpoint(part, *some, use_reentrant=False, preserve_rng_state=False)
    return total.float()


class _HeadNll(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """The gradients are made in the forward, where the logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        labels: Tensor,
        weights: Tensor,
        smoothing: float,
        learned: Tensor | None,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_head = torch.zeros(head.shape, device=head.device) if ctx.needs_input_grad[5] else None
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
            if grad is None and of_head is None:
                continue
            p.scatter_add_(1, picked, torch.full_like(picked, smoothing - 1, dtype=p.dtype))
            if smoothing:
                p -= smoothing / logits.shape[-1]
            if grad is not None:
                grad[some] = (p.to(hidden.dtype) @ head).float() * weights[some, None]
            if of_head is not None:
                pulls = p.mul_(weights[some, None]).to(hidden.dtype)
                if hidden.dtype == of_head.dtype:
                    of_head.addmm_(pulls.T, hidden[some])
                else:
                    of_head += pulls.T @ hidden[some]
        ctx.grad, ctx.of_head = grad, of_head
        return total.float()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        grad = None if ctx.grad is None else ctx.grad.mul_(scale)
        of_head = None if ctx.of_head is None else ctx.of_head.mul_(scale)
        del ctx.grad, ctx.of_head  # the head's is as large as the embeddings
        return grad, None, None, None, None, of_head
