"""Examples laid one after another in one row, their common beginning only once.

Shapes: T tokens in the row, P of them the shared prefix, B documents (what follows the prefix) of at
most n tokens, N supervised positions. T, n and N are rounded up a little: the CPU's kernels are made
anew for each new shape, which took a tenth of the time and 50 MB a step when every batch had its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

ROUND_ROWS, ROUND_LONGEST, ROUND_SUPERVISED = 32, 8, 32
TOGETHER = 128  # tokens; a longer document attends by itself: a batch saves it no time, and its padding costs some


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One example as training sees it."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]  # whether the token at that place is one the model should have written
    weight: float = 1.0  # of each of its tokens in the loss
    key: str = ""  # the example's id: names it in errors and seeds its dropout noise
    shares: tuple[float, ...] = ()  # of the weight, for each token: turns may count differently; empty: all of it

    @property
    def supervised(self) -> float:
        """The sum of its tokens' weights in the loss. A token at place 0 has nothing before it."""
        if self.shares:
            return sum(self.weight_at(i) for i in range(1, len(self.ids)) if self.trained[i])
        return self.weight * sum(self.trained[1:])

    def weight_at(self, place: int) -> float:
        """Of a trained token in the loss."""
        return self.weight * self.shares[place] if self.shares else self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Documents of the row that attend together: rows low..high, each seeing the prefix and its own past."""

    low: int
    high: int
    prefix: int
    bounds: tuple[tuple[int, int], ...]  # of each document in the row
    longest: int  # n, rounded up
    gather: Tensor | None  # [B*n] row of each padded place, counted from low; None where nothing is padded, or B is 1
    scatter: Tensor | None  # [high-low] padded place of each row
    padding: Tensor | None  # padded places that hold no row


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    ids_T: Tensor
    positions_T: Tensor
    spans: tuple[Span, ...]  # the prefix first, if there is one
    prefix: int
    end: int  # rows from here on belong to no document
    rows_N: Tensor  # places whose next token is supervised
    labels_N: Tensor
    weights_N: Tensor  # float32; 0 from `supervised` on
    supervised: int
    tokens: int  # real tokens of the examples, the prefix counted for each


def shared_prefix(documents: Sequence[Document]) -> int:
    """Tokens that all documents begin with, ending before the place that predicts the first supervised one."""
    if len(documents) < 2:
        return 0
    first = documents[0].ids
    limit = min(len(d.ids) for d in documents) - 1
    for d in documents:
        limit = min(limit, next((i for i, t in enumerate(d.trained) if t), len(d.ids)) - 1)
    limit = max(limit, 0)
    for d in documents[1:]:
        if d.ids[:limit] != first[:limit]:
            limit = next(i for i in range(limit) if d.ids[i] != first[i])
    return limit


def pack(documents: Sequence[Document], *, share_prefix: bool = True) -> Packed:
    """The row of these documents."""
    prefix = shared_prefix(documents) if share_prefix else 0
    ids, positions = list(documents[0].ids[:prefix]), list(range(prefix))
    rows: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    bounds: list[tuple[int, int]] = []
    for d in documents:
        start = len(ids)
        ids += d.ids[prefix:]
        positions += range(prefix, len(d.ids))
        bounds.append((start, len(ids)))
        for place in range(max(prefix, 1), len(d.ids)):
            if d.trained[place]:
                rows.append(start + place - prefix - 1)
                labels.append(d.ids[place])
                weights.append(d.weight_at(place))
    spans = [_span([(0, prefix)], 0, prefix)] if prefix else []
    spans += [_span(run, prefix, _rounded_longest(run)) for run in _runs(bounds)]
    more_rows, more_supervised = [0] * (-len(ids) % ROUND_ROWS), [0] * (-len(rows) % ROUND_SUPERVISED)
    return Packed(
        ids_T=torch.tensor(ids + more_rows),
        positions_T=torch.tensor(positions + more_rows),
        spans=tuple(spans),
        prefix=prefix,
        end=len(ids),
        rows_N=torch.tensor(rows + more_supervised),
        labels_N=torch.tensor(labels + more_supervised),
        weights_N=torch.tensor(weights + more_supervised, dtype=torch.float32),
        supervised=len(rows),
        tokens=sum(len(d.ids) for d in documents),
    )


def _runs(bounds: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Documents that follow each other and attend together."""
    runs: list[list[tuple[int, int]]] = []
    for alone, group in groupby(bounds, key=lambda b: b[1] - b[0] > TOGETHER):
        run = list(group)
        runs += [[b] for b in run] if alone else [run]
    return runs


def _rounded_longest(bounds: list[tuple[int, int]]) -> int:
    longest = max(end - start for start, end in bounds)
    return longest + -longest % ROUND_LONGEST


def _span(bounds: list[tuple[int, int]], prefix: int, longest: int) -> Span:
    lengths = torch.tensor([end - start for start, end in bounds])
    low, high = bounds[0][0], bounds[-1][1]
    gather = scatter = padding = None
    if len(bounds) > 1 and int(lengths.min()) < longest:
        place = torch.arange(longest)
        real = place[None, :] < lengths[:, None]  # [B, n]
        starts = torch.tensor([start for start, _ in bounds]) - low
        gather = torch.where(real, starts[:, None] + place[None, :], 0).flatten()
        scatter = real.flatten().nonzero().flatten()
        padding = (~real).flatten().nonzero().flatten()
    return Span(
        low=low,
        high=high,
        prefix=prefix,
        bounds=tuple(bounds),
        longest=longest,
        gather=gather,
        scatter=scatter,
        padding=padding,
    )
