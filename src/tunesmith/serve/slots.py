"""Keys and values of every running answer in one left-padded block, so that one step serves them all.

A row may answer with an adapter of its own: its `Prefix` says which, and `Under` makes a forward pass one of
several adapters.

Shapes: R rows (answers), H key-value heads, C columns (tokens, padding on the left), D head size.
A row's tokens are contiguous and end at the last column, so a difference of columns is a difference
of positions: sliding-window masks stay right, and rotary positions are counted per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from tunesmith.model.forward import KeyValues, Network

Pairs = list[tuple[Tensor, Tensor]]  # one (keys, values) of shape R, H, C, D a layer
Under = Callable[[Sequence[str | None]], AbstractContextManager[None]]  # inside, each row has the adapter named here
Item = tuple["Prefix", tuple[int, ...]]  # what a prompt begins with, and the prompt


def as_loaded(_: Sequence[str | None]) -> AbstractContextManager[None]:
    """All rows as the model in memory answers."""
    return nullcontext()


def _pairs(cache: KeyValues) -> Pairs:
    return [(layer.keys[:, :, : layer.used], layer.values[:, :, : layer.used]) for layer in cache.cache.layers]


def _filled(pairs: Pairs) -> KeyValues:
    """A cache that begins with `pairs`, copied, with room for more columns."""
    cache = KeyValues()
    for layer, (keys, values) in enumerate(pairs):
        cache.cache.update(keys, values, layer)
    return cache


class Prefix:
    """Keys and values of what every prompt of one adapter begins with, computed once: its virtual tokens (`before`)
    and the tokens `ids`."""

    def __init__(
        self,
        network: Network,
        ids: Sequence[int],
        *,
        adapter: str | None = None,
        before: Pairs = [],  # noqa: B006 (never changed)
        under: Under = as_loaded,
    ) -> None:
        self.ids, self.adapter = tuple(ids), adapter
        self.virtual = before[0][0].shape[2] if before else 0  # columns
        self.pairs: Pairs = list(before)
        if ids:
            cache = _filled(before) if before else KeyValues()
            row = torch.tensor([list(ids)], device=network.device)
            positions = torch.arange(self.virtual, self.virtual + len(ids), device=network.device)[None]
            last = (torch.tensor([0]), torch.tensor([len(ids) - 1]))
            mask = torch.ones((1, self.virtual + len(ids)), dtype=torch.long, device=network.device)
            with under([adapter]):
                network(row, positions_BT=positions, mask=mask, cache=cache, at=last)
            self.pairs = _pairs(cache)

    def length_in(self, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` are here already. At least one token is always left to compute."""
        n = len(self.ids)
        return n if 0 < n < len(prompt) and tuple(prompt[:n]) == self.ids else 0


class Slots:
    """The running rows: join, step, leave. Row i of the logits belongs to the i-th row that is still here."""

    def __init__(self, network: Network, prefix: Prefix, under: Under = as_loaded) -> None:
        self._network = network
        self._prefix = prefix
        self._under = under
        self._cache = KeyValues()
        self.lengths: list[int] = []  # columns that are in use, by row: virtual tokens and tokens
        self._adapters: list[str | None] = []  # by row

    def join(self, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix] | None = None) -> Tensor:
        """Compute the prompts and add them as new rows; returns logits of their last tokens: len(prompts), V.

        `prefixes`: of each prompt, where they differ. Equal prompts (n answers to one question) are computed once.
        """
        items = [(p, tuple(ids)) for p, ids in zip(prefixes or [self._prefix] * len(prompts), prompts, strict=True)]
        different = list(dict.fromkeys(items))
        rows = dict(zip(different, read(self._network, different, self._under), strict=True))
        chosen = [rows[item] for item in items]
        self._rebuild(list(range(len(self.lengths))), [(pairs, n) for pairs, n, _ in chosen])
        self._adapters += [prefix.adapter for prefix, _ in items]
        return torch.stack([logits for *_, logits in chosen])

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row; returns logits R, V."""
        device = self._network.device
        columns = max(self.lengths) + 1
        positions_R1 = torch.tensor(self.lengths, device=device)[:, None]
        mask_RC = (torch.arange(columns, device=device)[None] >= columns - 1 - positions_R1).long()
        rows = torch.arange(len(tokens), device=device)
        with self._under(self._adapters):
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
            self._adapters = [self._adapters[r] for r in rows]

    def reset(self) -> None:
        """Forget every row, whatever state a failure left them in."""
        self._cache, self.lengths, self._adapters = KeyValues(), [], []

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


def read(network: Network, items: Sequence[Item], under: Under) -> list[tuple[Pairs, int, Tensor]]:
    """Each prompt through the model in one pass: (pairs with one row, columns in use, logits of its last token).

    What a prefix has already is put before the new tokens, ends aligned; new tokens are padded on the right, where a
    causal model can't see it.
    """
    device = network.device
    known = [prefix.length_in(ids) for prefix, ids in items]
    skips = [prefix.virtual + n for (prefix, _), n in zip(items, known, strict=True)]  # columns
    rests = [ids[n:] for (_, ids), n in zip(items, known, strict=True)]
    start, width = max(skips), max(map(len, rests))
    cache = _filled(_begun([prefix.pairs for prefix, _ in items], skips)) if start else KeyValues()
    skips_B1 = torch.tensor(skips, device=device)[:, None]
    mask = torch.ones((len(items), start + width), dtype=torch.long, device=device)
    mask[:, :start] = (torch.arange(start, device=device)[None] >= start - skips_B1).long()
    with under([prefix.adapter for prefix, _ in items]):
        logits = network(
            torch.tensor([[*r, *[r[0]] * (width - len(r))] for r in rests], device=device),  # any token pads
            positions_BT=skips_B1 + torch.arange(width, device=device)[None],
            mask=mask,
            cache=cache,
            at=(torch.arange(len(items)), torch.tensor([len(r) - 1 for r in rests])),
        ).float()
    pairs = _pairs(cache)
    return [
        (
            [(k[i : i + 1, :, start - skip :], v[i : i + 1, :, start - skip :]) for k, v in pairs],
            skip + len(rest),
            logits[i],
        )
        for i, (skip, rest) in enumerate(zip(skips, rests, strict=True))
    ]


def block(rows: Sequence[tuple[Pairs, int, Tensor]]) -> KeyValues:
    """What `read` gave as one cache, ends aligned."""
    columns = max(n for _, n, _ in rows)
    layers = range(len(rows[0][0]))
    return _filled([
        (_aligned(None, [], [(p[i][0], n) for p, n, _ in rows], columns),
         _aligned(None, [], [(p[i][1], n) for p, n, _ in rows], columns))
        for i in layers
    ])  # fmt: skip


def _begun(rows: Sequence[Pairs], columns: Sequence[int]) -> Pairs:
    """The first columns[i] columns of each row, ends aligned, zero before them."""
    layers = max(map(len, rows))
    some = next(pairs for pairs in rows if pairs)
    empty = [(k[:, :, :0], v[:, :, :0]) for k, v in some]
    full = [pairs or empty for pairs in rows]
    return [
        (
            _aligned(None, [], [(pairs[layer][0], n) for pairs, n in zip(full, columns, strict=True)], max(columns)),
            _aligned(None, [], [(pairs[layer][1], n) for pairs, n in zip(full, columns, strict=True)], max(columns)),
        )
        for layer in range(layers)
    ]


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
