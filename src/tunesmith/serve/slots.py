"""Keys and values of every running answer in one left-padded block, so that one step serves them all.

Shapes: R rows (answers), H key-value heads, C columns (tokens, padding on the left), D head size.
A row's tokens are contiguous and end at the last column, so a difference of columns is a difference
of positions: sliding-window masks stay right, and rotary positions are counted per row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # columns added at a time, so that a step copies nothing but its own column


class _Block(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values in buffers with room to the right; the used part is what attention sees."""

    keys: Any
    values: Any
    is_initialized: bool

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        end = self.used + key_states.shape[-2]
        if not self.is_initialized or end > self.keys.shape[-2]:
            self.keys = _widened(self.keys, key_states, self.used, end)
            self.values = _widened(self.values, value_states, self.used, end)
            self.device, self.is_initialized = key_states.device, True
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def pair(self) -> tuple[Any, Any]:
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]


def _widened(old: Any, new: Any, used: int, end: int) -> Any:
    wide = new.new_empty((new.shape[0], new.shape[1], end + ROOM, new.shape[3]))
    if used:
        wide[:, :, :used] = old[:, :, :used]
    return wide


Pairs = list[tuple[Any, Any]]  # one (keys, values) of shape R, H, C, D a layer


def _cache(pairs: Pairs | None) -> Any:
    """A transformers cache over our blocks; layers are added as the model meets them."""
    cache = Cache(layer_class_to_replicate=_Block)
    for keys, values in pairs or ():
        block = _Block()
        block.keys, block.values = keys, values
        block.used, block.device, block.is_initialized = keys.shape[-2], keys.device, True
        cache.layers.append(block)
    return cache


class Forward:
    """A causal model called the same way whatever its family: ids, mask, positions and cache in, logits out."""

    def __init__(self, model: Any) -> None:
        names = inspect.signature(model.forward).parameters
        self._model = model
        self._cache_name = "cache" if "cache" in names else "past_key_values"  # renamed in transformers 5.2x
        self._keeps_logits = "logits_to_keep" in names
        self._takes_positions = "position_ids" in names
        self.device = next(model.parameters()).device

    def __call__(self, ids: Any, mask: Any, positions: Any, cache: Any, keep: Any) -> Any:
        """float32 logits of the input columns `keep` (a tensor of indexes): R, len(keep), V."""
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._keeps_logits else {}
        if self._takes_positions:
            extra["position_ids"] = positions
        out = self._model(input_ids=ids, attention_mask=mask, use_cache=True, **{self._cache_name: cache}, **extra)
        logits = out.logits if self._keeps_logits else out.logits[:, keep]
        return logits.float()


class Prefix:
    """Keys and values of the tokens that every prompt begins with, computed once."""

    def __init__(self, forward: Forward, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.pairs: Pairs = []
        if ids:
            cache = _cache(None)
            row = torch.tensor([list(ids)], device=forward.device)
            keep = torch.tensor([row.shape[1] - 1], device=forward.device)
            forward(row, torch.ones_like(row), torch.arange(row.shape[1], device=forward.device)[None], cache, keep)
            self.pairs = [layer.pair() for layer in cache.layers]

    def length_in(self, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` are here already. At least one token is always left to compute."""
        n = len(self.ids)
        return n if 0 < n < len(prompt) and tuple(prompt[:n]) == self.ids else 0


class Slots:
    """The running rows: join, step, leave. Row i of the logits belongs to the i-th row that is still here."""

    def __init__(self, forward: Forward, prefix: Prefix) -> None:
        self._forward = forward
        self._prefix = prefix
        self._cache = _cache(None)
        self.lengths: list[int] = []  # tokens in the cache, by row

    def join(self, prompts: Sequence[Sequence[int]]) -> Any:
        """Compute the prompts and add them as new rows; returns logits of their last tokens: len(prompts), V.

        Equal prompts (n answers to one question) are computed once.
        """
        places: dict[tuple[int, ...], int] = {}
        for prompt in prompts:
            places.setdefault(tuple(prompt), len(places))
        rows: list[tuple[Pairs, int, Any]] = [([], 0, None)] * len(places)
        with_prefix = [p for p in places if self._prefix.length_in(p)]
        without = [p for p in places if not self._prefix.length_in(p)]
        for group, skip in ((with_prefix, len(self._prefix.ids)), (without, 0)):
            if group:
                for prompt, row in zip(group, self._prefill(group, skip), strict=True):
                    rows[places[prompt]] = row
        chosen = [rows[places[tuple(p)]] for p in prompts]
        self._rebuild(list(range(len(self.lengths))), [(pairs, n) for pairs, n, _ in chosen])
        return torch.stack([logits for *_, logits in chosen])

    def step(self, tokens: Sequence[int]) -> Any:
        """Append one token to each row; returns logits R, V."""
        device = self._forward.device
        columns = max(self.lengths) + 1
        positions = torch.tensor(self.lengths, device=device)[:, None]
        mask = (torch.arange(columns, device=device)[None] >= columns - 1 - positions).long()
        keep = torch.tensor([0], device=device)
        logits = self._forward(torch.tensor(tokens, device=device)[:, None], mask, positions, self._cache, keep)
        self.lengths = [n + 1 for n in self.lengths]
        return logits[:, 0]

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows leave; columns that nobody needs any more go with them."""
        if len(rows) < len(self.lengths):
            self._rebuild(list(rows), [])

    def reset(self) -> None:
        """Forget every row, whatever state a failure left them in."""
        self._cache, self.lengths = _cache(None), []

    def _prefill(self, prompts: list[tuple[int, ...]], skip: int) -> list[tuple[Pairs, int, Any]]:
        """Padded on the right, where a causal model can't see it: (pairs with one row, length, logits) by prompt."""
        device = self._forward.device
        rests = [p[skip:] for p in prompts]
        width = max(map(len, rests))
        pad = rests[0][0]  # any token: its columns are thrown away below
        ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in rests], device=device)
        shared = [
            (k.expand(len(prompts), -1, -1, -1), v.expand(len(prompts), -1, -1, -1)) for k, v in self._prefix.pairs
        ]
        cache = _cache(shared if skip else None)
        positions = torch.arange(skip, skip + width, device=device)[None].expand(len(prompts), -1)
        mask = torch.ones((len(prompts), skip + width), dtype=torch.long, device=device)
        keep = torch.tensor(sorted({len(r) - 1 for r in rests}), device=device)
        logits = self._forward(ids, mask, positions, cache, keep)
        at = {int(column): i for i, column in enumerate(keep)}
        pairs = [layer.pair() for layer in cache.layers]
        return [
            ([(k[i : i + 1], v[i : i + 1]) for k, v in pairs], len(p), logits[i, at[len(p) - skip - 1]])
            for i, p in enumerate(prompts)
        ]

    def _rebuild(self, kept: list[int], new: list[tuple[Pairs, int]]) -> None:
        """Copy the rows that stay and those that join, ends aligned, into blocks as narrow as they can be."""
        lengths = [self.lengths[i] for i in kept] + [n for _, n in new]
        if not lengths:
            self._cache, self.lengths = _cache(None), []
            return
        columns = max(lengths)
        sources = len(self._cache.layers) or len(new[0][0])
        fresh = _cache(None)
        for layer in range(sources):
            old = self._cache.layers[layer].pair() if kept else None
            block = _Block()
            block.keys = self._aligned(0, old, kept, [(pairs[layer], n) for pairs, n in new], columns)
            block.values = self._aligned(1, old, kept, [(pairs[layer], n) for pairs, n in new], columns)
            block.used, block.device, block.is_initialized = columns, block.keys.device, True
            fresh.layers.append(block)
        self._cache, self.lengths = fresh, lengths

    def _aligned(self, part: int, old: Any, kept: list[int], new: list[tuple[Any, int]], columns: int) -> Any:
        like = old[part] if old is not None else new[0][0][part]
        block = like.new_zeros((len(kept) + len(new), like.shape[1], columns + ROOM, like.shape[3]))
        if kept:
            width = min(columns, like.shape[2])
            block[: len(kept), :, columns - width : columns] = old[part][kept][:, :, like.shape[2] - width :]
        for i, (pair, n) in enumerate(new, start=len(kept)):
            block[i, :, columns - n : columns] = pair[part][0, :, :n]
        return block
