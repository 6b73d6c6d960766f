"""Keys and values of every running answer in one left-padded block, so that one step serves them all.

Shapes: R rows (answers), H key-value heads, C columns (tokens, padding on the left), D head size.
A row's tokens are contiguous and end at the last column, so a difference of columns is a difference
of positions: sliding-window masks stay right, and rotary positions are counted per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.model.forward import KeyValues, Network

Pairs = list[tuple[Tensor, Tensor]]  # one (keys, values) of shape R, H, C, D a layer


def _pairs(cache: KeyValues) -> Pairs:
    return [(layer.keys[:, :, : layer.used], layer.values[:, :, : layer.used]) for layer in cache.cache.layers]


def _filled(pairs: Pairs) -> KeyValues:
    """A cache that begins with `pairs`, copied, with room for more columns."""
    cache = KeyValues()
    for layer, (keys, values) in enumerate(pairs):
        cache.cache.update(keys, values, layer)
    return cache


class Prefix:
    """Keys and values of the tokens that every prompt begins with, computed once."""

    def __init__(self, network: Network, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.pairs: Pairs = []
        if ids:
            cache = KeyValues()
            row = torch.tensor([list(ids)], device=network.device)
            positions = torch.arange(len(ids), device=network.device)[None]
            last = (torch.tensor([0]), torch.tensor([len(ids) - 1]))
            network(row, positions_BT=positions, mask=torch.ones_like(row), cache=cache, at=last)
            self.pairs = _pairs(cache)

    def length_in(self, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` are here already. At least one token is always left to compute."""
        n = len(self.ids)
        return n if 0 < n < len(prompt) and tuple(prompt[:n]) == self.ids else 0


class Slots:
    """The running rows: join, step, leave. Row i of the logits belongs to the i-th row that is still here."""

    def __init__(self, network: Network, prefix: Prefix) -> None:
        self._network = network
        self._prefix = prefix
        self._cache = KeyValues()
        self.lengths: list[int] = []  # tokens in the cache, by row

    def join(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Compute the prompts and add them as new rows; returns logits of their last tokens: len(prompts), V.

        Equal prompts (n answers to one question) are computed once.
        """
        places: dict[tuple[int, ...], int] = {}
        for prompt in prompts:
            places.setdefault(tuple(prompt), len(places))
        rows: list[tuple[Pairs, int, Tensor]] = [([], 0, torch.empty(0))] * len(places)
        with_prefix = [p for p in places if self._prefix.length_in(p)]
        without = [p for p in places if not self._prefix.length_in(p)]
        for group, skip in ((with_prefix, len(self._prefix.ids)), (without, 0)):
            if group:
                for prompt, row in zip(group, self._prefill(group, skip), strict=True):
                    rows[places[prompt]] = row
        chosen = [rows[places[tuple(p)]] for p in prompts]
        self._rebuild(list(range(len(self.lengths))), [(pairs, n) for pairs, n, _ in chosen])
        return torch.stack([logits for *_, logits in chosen])

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row; returns logits R, V."""
        device = self._network.device
        columns = max(self.lengths) + 1
        positions_R1 = torch.tensor(self.lengths, device=device)[:, None]
        mask_RC = (torch.arange(columns, device=device)[None] >= columns - 1 - positions_R1).long()
        rows = torch.arange(len(tokens), device=device)
        logits = self._network(
            torch.tensor(tokens, device=device)[:, None],
            positions_BT=positions_R1,
            mask=mask_RC,
            cache=self._cache,
            at=(rows, torch.zeros_like(rows)),
        )
        self.lengths = [n + 1 for n in self.lengths]
        return logits.float()

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows leave; columns that nobody needs any more go with them."""
        if len(rows) < len(self.lengths):
            self._rebuild(list(rows), [])

    def reset(self) -> None:
        """Forget every row, whatever state a failure left them in."""
        self._cache, self.lengths = KeyValues(), []

    def _prefill(self, prompts: list[tuple[int, ...]], skip: int) -> list[tuple[Pairs, int, Tensor]]:
        """Padded on the right, where a causal model can't see it: (pairs with one row, length, logits) by prompt."""
        device = self._network.device
        rests = [p[skip:] for p in prompts]
        width = max(map(len, rests))
        pad = rests[0][0]  # any token: its columns are thrown away below
        cache = KeyValues()
        if skip:
            cache = _filled([(_repeat(k, len(prompts)), _repeat(v, len(prompts))) for k, v in self._prefix.pairs])
        logits = self._network(
            torch.tensor([[*r, *[pad] * (width - len(r))] for r in rests], device=device),
            positions_BT=torch.arange(skip, skip + width, device=device)[None].expand(len(prompts), -1),
            mask=torch.ones((len(prompts), skip + width), dtype=torch.long, device=device),
            cache=cache,
            at=(torch.arange(len(prompts)), torch.tensor([len(r) - 1 for r in rests])),
        ).float()
        pairs = _pairs(cache)
        return [([(k[i : i + 1], v[i : i + 1]) for k, v in pairs], len(p), logits[i]) for i, p in enumerate(prompts)]

    def _rebuild(self, kept: list[int], new: list[tuple[Pairs, int]]) -> None:
        """Copy the rows that stay and those that join, ends aligned, into blocks as narrow as they can be."""
        lengths = [self.lengths[i] for i in kept] + [n for _, n in new]
        old = _pairs(self._cache) if kept else []
        columns = max(lengths, default=0)
        blocks = []
        for layer in range(len(old) or (len(new[0][0]) if new else 0)):
            parts = []
            for part in (0, 1):  # keys, then values
                parts.append(
                    _aligned(
                        old[layer][part] if old else None, kept, [(pairs[layer][part], n) for pairs, n in new], columns
                    )
                )
            blocks.append((parts[0], parts[1]))
        self._cache, self.lengths = _filled(blocks), lengths


def _repeat(row: Tensor, times: int) -> Tensor:
    return row.expand(times, -1, -1, -1)


def _aligned(old: Tensor | None, kept: list[int], new: list[tuple[Tensor, int]], columns: int) -> Tensor:
    """One layer's keys (or values): rows `kept` of `old`, then the first n columns of each new row, ends aligned.

    The padding is zero and not just masked: what memory held before might be NaN, and 0 times NaN is NaN.
    """
    like = old if old is not None else new[0][0]
    block = like.new_zeros((len(kept) + len(new), like.shape[1], columns, like.shape[3]))
    if old is not None:
        width = min(columns, old.shape[2])
        block[: len(kept), :, columns - width :] = old[kept, :, old.shape[2] - width :]
    for i, (row, n) in enumerate(new, start=len(kept)):
        block[i, :, columns - n :] = row[0, :, :n]
    return block
