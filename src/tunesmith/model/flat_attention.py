"""Causal attention of one packed row, in blocks of queries that are multiplied with no key behind them.

Half of the scores of a causal product are thrown away, and what is left of a long document does not fit the cache:
taken whole, documents of 395 tokens cost 1.8 times as much as here, and torch's own fused kernel 1.6 times, forward and
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
ROUND_KEYS = 8  # a product writes rows of scores more slowly where they begin at odd places in memory


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one span, for its backward. Keys and values are 0 from P+n on, which no query sees."""

    queries: list[Tensor]  # of each block, [B*K, H/K*rows, D], scaled
    k: Tensor  # [B*K, P+n rounded up, D]
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
    kept = Kept([], _keys(k, span), _keys(v, span), [])
    queries, o = _documents(q, span), _room(out, span)
    for low, high in _blocks(span.longest):
        x = _block(queries, low, high, k.shape[1], q.shape[-1] ** -0.5)
        p = _probabilities(x, kept.k, span.prefix, low, high)
        _put(p @ kept.v[:, : p.shape[2]], o, low, k.shape[1])
        kept.queries.append(x)
        if span.prefix + span.longest <= KEPT_KEYS:
            kept.probabilities.append(p)
    if span.gather is not None:
        _write(o, out, span)
    return kept


def _backward(grad: Tensor, span: Span, kept: Kept, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    P, K, D = span.prefix, dk.shape[1], grad.shape[-1]
    g, made = _documents(grad, span), _room(dq, span)
    if span.padding is not None:  # the gather filled padded places with some row; they have no gradient
        g = g.flatten(0, 1).index_fill_(0, span.padding, 0).view_as(g)
    dkb, dvb = (torch.zeros(kept.k.shape, device=grad.device) for _ in range(2))  # sums over blocks, in fp32
    for i, (low, high) in enumerate(_blocks(span.longest)):
        x, gb = kept.queries[i], _block(g, low, high, K, 1.0)
        p = kept.probabilities[i] if kept.probabilities else _probabilities(x, kept.k, P, low, high)
        keys = p.shape[2]
        _add_product(dvb[:, :keys], p.transpose(1, 2), gb)
        ds = torch._softmax_backward_data(gb @ kept.v[:, :keys].transpose(1, 2), p, -1, p.dtype)
        _add_product(dkb[:, :keys], ds.transpose(1, 2), x)
        _put(ds @ kept.k[:, :keys], made, low, K, D**-0.5)
    if span.gather is not None:
        _write(made, dq, span)
    for d, db in ((dk, dkb), (dv, dvb)):
        db = db.view(len(span.bounds), K, -1, D).transpose(1, 2)
        _write(db[:, P : P + made.shape[1]], d, span)
        if P:
            d[:P] += db[:, :P].sum(0)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    for low in range(0, n, BLOCK):
        yield low, min(low + BLOCK, n)


def _probabilities(queries: Tensor, keys: Tensor, prefix: int, low: int, high: int) -> Tensor:
    """[B*K, H/K*(high-low), keys]: each query's own keys, and 0 where a later one or none stands."""
    seen = prefix + high + -(prefix + high) % ROUND_KEYS
    scores = queries @ keys[:, :seen].transpose(1, 2)
    rows, last = high - low, seen - prefix - low
    later = torch.ones(rows, last, dtype=torch.bool, device=scores.device).triu_(1)
    scores.view(len(scores), -1, rows, seen)[..., -last:].masked_fill_(later, float("-inf"))
    return torch.softmax(scores, -1)


def _documents(x: Tensor, span: Span) -> Tensor:
    """Rows of the span as [B, n, heads, D]; a document alone as it lies, without what n is rounded up by."""
    rows = x[span.low : span.high]
    if span.gather is not None:
        rows = rows.index_select(0, span.gather)
    return rows.view(len(span.bounds), -1, *x.shape[1:])


def _room(x: Tensor, span: Span) -> Tensor:
    """For what belongs in the span's rows of x, in the shape of `_documents`: these rows themselves where nothing is
    padded, else memory that `_write` reads."""
    if span.gather is not None:
        return x.new_empty(len(span.bounds), span.longest, *x.shape[1:])
    return x[span.low : span.high].view(len(span.bounds), -1, *x.shape[1:])


def _write(values: Tensor, x: Tensor, span: Span) -> None:
    """[B, n, heads, D] to the span's rows of x."""
    if span.scatter is None:
        x[span.low : span.high].view(values.shape).copy_(values)
    else:
        x[span.low : span.high] = values.reshape(-1, *x.shape[1:]).index_select(0, span.scatter)


def _keys(x: Tensor, span: Span) -> Tensor:
    """[B*K, P+n rounded up, D] of x [T, K, D]: the prefix again for each document."""
    own, P = _documents(x, span).transpose(1, 2), span.prefix
    B, K, n, D = own.shape
    size = P + span.longest
    keys = x.new_empty(B, K, size + -size % ROUND_KEYS, D)
    keys[:, :, :P] = x[:P].transpose(0, 1)
    keys[:, :, P : P + n] = own
    keys[:, :, P + n :] = 0
    return keys.view(B * K, -1, D)


def _block(x: Tensor, low: int, high: int, key_heads: int, scale: float) -> Tensor:
    """scale * [B*K, H/K*(high-low), D] of x [B, n, H, D]: query heads that share a key head become rows of one product;
    0 beyond n."""
    rows = _by_key_head(x[:, low:high], key_heads)
    B, K, G, real, D = rows.shape
    made = x.new_empty(B, K, G, high - low, D)
    torch.mul(rows, scale, out=made[..., :real, :])
    made[..., real:, :] = 0
    return made.view(B * K, -1, D)


def _put(made: Tensor, room: Tensor, low: int, key_heads: int, scale: float = 1.0) -> None:
    """scale * made [B*K, H/K*rows, D] into the room's rows from `low` on."""
    B, _, H, D = room.shape
    rows = made.view(B, key_heads, H // key_heads, -1, D)
    into = _by_key_head(room[:, low : low + rows.shape[3]], key_heads)
    torch.mul(rows[..., : into.shape[3], :], scale, out=into)


def _by_key_head(x: Tensor, heads: int) -> Tensor:
    """The same memory as [B, K, H/K, n, D], of [B, n, H, D]."""
    B, n, H, D = x.shape
    return x.view(B, n, heads, H // heads, D).permute(0, 2, 3, 1, 4)


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == into.dtype:
        into.baddbmm_(a, b)
    else:
        into += a @ b
