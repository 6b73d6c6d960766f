"""Causal attention of one packed row, in blocks of queries that are multiplied with no key behind them.

Half of the scores of a causal product are thrown away, and what is left of a long document does not fit the cache:
taken whole, documents of 395 tokens cost 1.9 times as much as here, and torch's own fused kernel 1.4 times, forward and
backward (SmolLM2-135M's heads, fp32; benchmarks/attention.py). Up to KEPT_KEYS keys the backward reads the probabilities
that the forward kept; beyond, it makes them again, so that memory grows with the length and not with its square.

Shapes: T rows of one packed row, B documents of n tokens behind a prefix of P, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.model.flat_layout import Packed, Span

BLOCK = 64  # queries; 48 to 96 are equally fast
KEPT_KEYS = 512


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one span, for its backward."""

    q: Tensor  # [B*K, H/K, n, D], scaled
    k: Tensor  # [B*K, P+n, D]
    v: Tensor
    probabilities: list[Tensor]  # of each block, [B*K, H/K*rows, keys]; empty where they are made again


def attend(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> tuple[Tensor, list[Kept]]:
    """Each document sees the prefix and its own past. q [T, H, D]; k, v [T, K, D] → [T, H, D]."""
    out = torch.empty_like(q)
    out[packed.end :] = 0
    return out, [_forward(q, k, v, span, out) for span in packed.spans]


def attend_backward(grad: Tensor, packed: Packed, saved: list[Kept], dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Writes the gradients of q, k and v. The prefix span comes first; documents then add to its keys."""
    for d in (dq, dk, dv):
        d[packed.end :] = 0
    for span, kept in zip(packed.spans, saved, strict=True):
        _backward(grad, span, kept, dq, dk, dv)


def _forward(q: Tensor, k: Tensor, v: Tensor, span: Span, out: Tensor) -> Kept:
    P, n, K = span.prefix, span.longest, k.shape[1]
    kept = Kept(_by_key_head(_padded(q, span), K).mul_(q.shape[-1] ** -0.5), _keys(k, span), _keys(v, span), [])
    o = torch.empty_like(kept.q)
    for low, high in _blocks(n):
        p = _probabilities(kept, P, low, high)
        _block(o, low, high).copy_((p @ kept.v[:, : P + high]).view(_block(o, low, high).shape))
        if P + n <= KEPT_KEYS:
            kept.probabilities.append(p)
    out[span.low : span.high] = _rows(o, span)
    return kept


def _backward(grad: Tensor, span: Span, kept: Kept, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    P, n, K, D = span.prefix, span.longest, dk.shape[1], grad.shape[-1]
    g = _padded(grad, span)
    if span.padding is not None:  # the gather filled padded places with some row; they have no gradient
        g = g.flatten(0, 1).index_fill_(0, span.padding, 0).view_as(g)
    g = _by_key_head(g, K)
    made = torch.empty_like(kept.q)
    dkb, dvb = (torch.zeros(kept.k.shape, device=grad.device) for _ in range(2))  # sums over blocks, in fp32
    for i, (low, high) in enumerate(_blocks(n)):
        p = kept.probabilities[i] if kept.probabilities else _probabilities(kept, P, low, high)
        x, gb, keys = _block(kept.q, low, high).flatten(1, 2), _block(g, low, high).flatten(1, 2), P + high
        dvb[:, :keys] += p.transpose(1, 2) @ gb
        ds = torch._softmax_backward_data(gb @ kept.v[:, :keys].transpose(1, 2), p, -1, p.dtype)
        dkb[:, :keys] += ds.transpose(1, 2) @ x
        _block(made, low, high).copy_((ds @ kept.k[:, :keys]).view(_block(made, low, high).shape))
    dq[span.low : span.high] = _rows(made, span).mul_(D**-0.5)
    for d, db in ((dk, dkb), (dv, dvb)):
        db = db.view(len(span.bounds), K, P + n, D).transpose(1, 2)
        own = db[:, P:].reshape(-1, K, D)
        d[span.low : span.high] = own if span.scatter is None else own.index_select(0, span.scatter)
        if P:
            d[:P] += db[:, :P].sum(0)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    for low in range(0, n, BLOCK):
        yield low, min(low + BLOCK, n)


def _block(x: Tensor, low: int, high: int) -> Tensor:
    """[B*K, H/K, n, D] → [B*K, H/K, high-low, D]."""
    return x[:, :, low:high]


def _probabilities(kept: Kept, prefix: int, low: int, high: int) -> Tensor:
    """[B*K, H/K*(high-low), prefix+high]: each query's own keys, and 0 where a later one stands in its block."""
    q = _block(kept.q, low, high)
    scores = q.flatten(1, 2) @ kept.k[:, : prefix + high].transpose(1, 2)
    rows = high - low
    later = torch.ones(rows, rows, dtype=torch.bool, device=scores.device).triu_(1)
    scores.view(*q.shape[:3], -1)[..., prefix + low :].masked_fill_(later, float("-inf"))
    return torch.softmax(scores, -1)


def _padded(x: Tensor, span: Span) -> Tensor:
    """Rows of the span as [B, n, heads, D]."""
    rows = x[span.low : span.high]
    if span.gather is not None:
        rows = rows.index_select(0, span.gather)
    return rows.view(len(span.bounds), span.longest, *x.shape[1:])


def _keys(x: Tensor, span: Span) -> Tensor:
    """[B*K, P+n, D] of x [T, K, D]: the prefix again for each document."""
    own = _padded(x, span).transpose(1, 2)
    if span.prefix:
        before = x[: span.prefix].transpose(0, 1)[None].expand(len(own), -1, -1, -1)
        own = torch.cat((before, own), 2)
    return own.reshape(-1, *own.shape[2:])


def _by_key_head(x: Tensor, heads: int) -> Tensor:
    """A new [B*K, H/K, n, D] of [B, n, H, D]: query heads that share a key head become rows of one product."""
    B, n, H, D = x.shape
    grouped = x.view(B, n, heads, H // heads, D).permute(0, 2, 3, 1, 4)
    return grouped.clone(memory_format=torch.contiguous_format).view(B * heads, H // heads, n, D)


def _rows(x: Tensor, span: Span) -> Tensor:
    """[B*K, H/K, n, D] → a new [high-low, H, D], without padding."""
    B, D = len(span.bounds), x.shape[-1]
    flat = x.view(B, -1, span.longest, D).transpose(1, 2).reshape(-1, x.shape[0] // B * x.shape[1], D)
    return flat if span.scatter is None else flat.index_select(0, span.scatter)
