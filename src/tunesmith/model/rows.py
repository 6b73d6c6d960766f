"""Prompts in left-padded rows, one prompt a row, with the beginning they share computed once.

The layout of generation: the newest token of every row is in the last column. Shapes: B rows, K columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.model.forward import KeyValues, Network
from tunesmith.model.scoring import common_beginning


@dataclass(slots=True)
class Rows:
    """Rows after their prompts were read."""

    logits_BV: Tensor  # of the token after each prompt
    cache: KeyValues
    mask_BK: Tensor  # 1 where a column holds a token, 0 where padding
    lengths: list[int]  # of the prompts

    def keep(self, rows: list[int]) -> Rows:
        return Rows(self.logits_BV[rows], self.cache.rows(rows), self.mask_BK[rows], [self.lengths[r] for r in rows])


def padded_batches(prompts: Sequence[Sequence[int]], *, batch_tokens: int, more: int) -> list[list[int]]:
    """Indices of prompts, longest first, in batches of at most `batch_tokens` columns with `more` answer tokens each."""
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    found: list[list[int]] = []
    for i in order:
        if found and (len(found[-1]) + 1) * (len(prompts[found[-1][0]]) + more) <= batch_tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def read_rows(network: Network, prompts: Sequence[Sequence[int]], *, share: bool = True) -> Rows:
    """Run the prompts through the model. `share`: their common beginning once, which needs one adapter for all."""
    shared = common_beginning(sorted({tuple(p) for p in prompts})) if share else 0
    cache = KeyValues()
    if shared:
        none = torch.zeros(0, dtype=torch.long)
        ids = torch.tensor([list(prompts[0][:shared])])
        positions = torch.arange(shared)[None]
        network(ids, positions_BT=positions, mask=torch.ones_like(ids), cache=cache, at=(none, none))
        cache = cache.rows([0] * len(prompts))
    b, width = len(prompts), max(len(p) for p in prompts) - shared
    ids = torch.zeros(b, width, dtype=torch.long)
    mask = torch.ones(b, shared + width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    for r, prompt in enumerate(prompts):
        tail = torch.tensor(list(prompt[shared:]))
        ids[r, width - len(tail) :] = tail
        positions[r, width - len(tail) :] = torch.arange(shared, len(prompt))
        mask[r, shared : shared + width - len(tail)] = 0
    logits = network(
        ids,
        positions_BT=positions,
        mask=mask,
        cache=cache,
        at=(torch.arange(b), torch.full((b,), width - 1)),
    )
    return Rows(logits, cache, mask, [len(p) for p in prompts])
