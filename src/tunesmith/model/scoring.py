"""The log-probability of every label after every prompt, computing each shared token once.

Prompts that begin alike share one cache of that beginning; several prompts lie in one row, kept apart by
the mask; the labels lie behind them as a tree, each token seeing its prompt and its ancestors only.
Branches that cannot matter any more are left out (see `score_labels`).

Shapes: B rows, T new tokens, K columns, N prompts, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunesmith.model.forward import KeyValues, Network
from tunesmith.model.trie import LabelTrie

SHARED = 8  # a common beginning shorter than this is not worth a forward pass of its own
ROW = 192  # prompt tokens that are gathered up to in a row; longer rows waste attention
ROW_NODES = 192  # nodes of the label trees in a row, at most, where a row holds several prompts
PASS = 192  # tokens below which a pass is bound by reading the weights, so that padding costs little
PADDED = 1.1  # padded over real tokens that a larger pass may have
FLAT = 0.6  # share of the tree beyond which all of it is evaluated at once
UNSURE = -1.5  # nats: the best label's first tokens below which all of the tree is evaluated at once
LIKELY = 1.0  # nats: while no label is complete, how far behind the best a branch may lie
PREFIX, PADDING = -1, -2  # owners of columns that belong to no one prompt


@dataclass(kw_only=True)
class Counts:
    """What was computed, in tokens."""

    prefix: int = 0
    prompts: int = 0  # padding included
    labels: int = 0  # padding included
    nodes: int = 0  # of the label trees, padding not included
    passes: int = 0


def score_labels(
    network: Network,
    prompts: Sequence[Sequence[int]],
    trie: LabelTrie,
    *,
    batch_tokens: int,
    tolerance: float,
    counts: Counts | None = None,
) -> np.ndarray:
    """(N, L) float64: log P(label | prompt) in nats, summed over the label's tokens, stop token included.

    With `tolerance` 0 every entry is exact. Otherwise a label is left incomplete once the tokens seen so far
    bound it below `best − ln(L / tolerance)`, and that bound, an upper one, is its entry. A softmax over the
    labels is then wrong by less than `tolerance` in total: the L bounded labels have at most tolerance / L each.
    With `tolerance` L only the winner is certain: its entry is exact and no other label can reach it.
    """
    counts = counts or Counts()
    unique = sorted({tuple(p) for p in prompts}, key=lambda p: (-len(p), p))
    shared = common_beginning(unique)
    prefix = _prefix(network, unique[0][:shared], counts) if shared else None
    scores: dict[tuple[int, ...], np.ndarray] = {}
    for rows in batches(unique, shared, trie, network.places_at_once(batch_tokens), batch_tokens):
        batch = _Batch(network, trie, [p for row in rows for p in row], tolerance, counts)
        places = iter(range(len(batch.prompts)))
        batch.run([[next(places) for _ in row] for row in rows], shared, prefix)
        scores |= {p: batch.bounds[i] for i, p in enumerate(batch.prompts)}
    return np.stack([scores[tuple(p)] for p in prompts])


def common_beginning(unique: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, at least one token of each left over; 0 if not worth sharing."""
    if len(unique) < 2:
        return 0
    low, high = min(unique), max(unique)  # in lexical order these differ first
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    length = min(length, min(len(p) for p in unique) - 1)
    return length if length >= SHARED else 0


def batches(
    unique: Sequence[tuple[int, ...]], shared: int, trie: LabelTrie, places: int, batch_tokens: int
) -> list[list[list[tuple[int, ...]]]]:
    """Batches of rows of prompts, longest first, so that rows of a batch are of about one length.

    A batch has at most `batch_tokens` padded tokens (one prompt alone may have more), and few enough prompts
    that all nodes of their labels are at most `places`.
    """
    most = max(1, places // (len(trie.inner) + 1))
    in_row = max(1, ROW_NODES // (len(trie.inner) + 1))
    found: list[list[list[tuple[int, ...]]]] = []
    rows: list[list[tuple[int, ...]]] = []
    width = held = used = 0  # columns of a row, prompts in the batch, columns used in the newest row
    for prompt in unique:
        length = len(prompt) - shared
        if rows and held < most and used + length <= width and len(rows[-1]) < in_row:
            rows[-1].append(prompt)
            used, held = used + length, held + 1
            continue
        if not rows or held >= most or (len(rows) + 1) * width > batch_tokens:
            rows, held, width = [], 0, max(length, min(ROW, batch_tokens) if in_row > 1 else 0)
            found.append(rows)
        rows.append([prompt])
        used, held = length, held + 1
    return found


def _prefix(network: Network, ids: Sequence[int], counts: Counts) -> KeyValues:
    cache, none = network.cache(), torch.zeros(0, dtype=torch.long)
    counts.prefix += len(ids)
    counts.passes += 1
    network.next_log_probabilities(
        torch.tensor([ids]),
        positions_BT=torch.arange(len(ids))[None],
        mask=torch.ones(1, len(ids), dtype=torch.long),
        cache=cache,
        at=(none, none),
        places=none,
        tokens=none,
    )
    return cache


@dataclass(slots=True)
class _Columns:
    """What each column of each row is. `owner`: the prompt it belongs to, PREFIX or PADDING."""

    owner: Tensor
    node: Tensor  # in the trie; 0 for a prompt's own tokens
    position: Tensor

    @classmethod
    def padding(cls, rows: int, width: int) -> _Columns:
        zeros = torch.zeros(rows, width, dtype=torch.long)
        return cls(zeros + PADDING, zeros, zeros.clone())

    def then(self, new: _Columns) -> _Columns:
        return _Columns(
            torch.cat([self.owner, new.owner], 1),
            torch.cat([self.node, new.node], 1),
            torch.cat([self.position, new.position], 1),
        )


@dataclass(slots=True)
class _Part:
    """Rows of a batch that are evaluated together."""

    prompts: list[list[int]]  # row → places of its prompts in the batch
    columns: _Columns
    cache: KeyValues

    def rows(self, rows: list[int]) -> _Part:
        if len(rows) == len(self.prompts):
            return self
        c = self.columns
        return _Part(
            [self.prompts[r] for r in rows],
            _Columns(c.owner[rows], c.node[rows], c.position[rows]),
            self.cache.rows(rows),
        )


Place = tuple[int, int, int, int]  # row, column, prompt, node: where the next token's distribution is wanted


class _Batch:
    """Some prompts in some rows, from their first token to the last label that matters."""

    def __init__(
        self, network: Network, trie: LabelTrie, prompts: list[tuple[int, ...]], tolerance: float, counts: Counts
    ) -> None:
        n, size = len(prompts), len(trie.tokens)
        self.network, self.trie, self.prompts, self.counts = network, trie, prompts, counts
        self.tolerance = tolerance
        self.bounds = np.zeros((n, len(trie.labels)))  # upper bound of each label, nats
        self.complete = np.zeros((n, len(trie.labels)), dtype=bool)
        self.reach = np.zeros((n, size))  # log P(node's tokens | prompt), once its parent is done
        self.done = np.zeros((n, size), dtype=bool)  # the distribution after the node is known
        self.sees = torch.zeros(size, size, dtype=torch.bool)
        for node in (0, *trie.inner):
            self.sees[node, trie.ancestors(node)] = True

    def run(self, rows: list[list[int]], shared: int, prefix: KeyValues | None) -> None:
        parts = [self._read_prompts(rows, shared, prefix)]
        while parts:
            part = parts.pop()
            wanted = self._wanted([i for row in part.prompts for i in row])
            counts = [sum(len(wanted.get(i, ())) for i in row) for row in part.prompts]
            for group in groups(counts):
                some = part.rows(group)
                self._evaluate(some, wanted)
                parts.append(some)

    def _read_prompts(self, rows: list[list[int]], shared: int, prefix: KeyValues | None) -> _Part:
        b, width = len(rows), max(sum(len(self.prompts[i]) - shared for i in row) for row in rows)
        ids, new = torch.zeros(b, width, dtype=torch.long), _Columns.padding(b, width)
        lasts: list[Place] = []
        for r, row in enumerate(rows):
            start = 0
            for i in row:
                tail = self.prompts[i][shared:]
                end = start + len(tail)
                ids[r, start:end] = torch.tensor(tail)
                new.owner[r, start:end] = i
                new.position[r, start:end] = torch.arange(shared, shared + len(tail))
                lasts.append((r, end - 1, i, 0))
                start = end
        before = torch.arange(shared).expand(b, -1)
        columns = _Columns(torch.full((b, shared), PREFIX), torch.zeros_like(before), before)
        part = _Part(rows, columns, prefix.rows([0] * b) if prefix is not None else self.network.cache())
        self.counts.prompts += ids.numel()
        self._forward(part, ids, new, lasts)
        return part

    def _wanted(self, prompts: list[int]) -> dict[int, list[int]]:
        """Prompt → inner nodes to evaluate next, parents before children; nothing for a finished prompt."""
        if self.tolerance == 0:
            return {i: self.trie.inner for i in prompts if not self.done[i, self.trie.inner].all()}
        bounds, complete = self.bounds[prompts], self.complete[prompts]
        best = np.where(complete, bounds, -math.inf).max(axis=1)
        known = np.isfinite(best)
        least = np.where(known, best - math.log(len(self.trie.labels) / self.tolerance), bounds.max(axis=1) - LIKELY)
        alive = ~complete & (bounds >= least[:, None])
        # towards the first complete label fork by fork; what can still hold probability then goes at once
        at_once = self.tolerance < 1
        found: dict[int, list[int]] = {}
        for place in np.flatnonzero(alive.any(axis=1)):
            i, nodes = prompts[place], set[int]()
            if not known[place] and self._is_flat(i):
                found[i] = self._at_once(i)
                continue
            for label in np.flatnonzero(alive[place]):
                rest = [n for n in self.trie.paths[label][:-1] if not self.done[i, n]]
                nodes.update(rest if at_once and known[place] else self.trie.edge(rest[0]))
            found[i] = sorted(nodes)
        return found

    def _is_flat(self, i: int) -> bool:
        """Whether the search would not pay, for it costs passes, padding and copies: the model thinks little of
        every label (it was not tuned for them), or past the first fork too few are ruled out. Labels that pass
        the second test can hold probability whatever the best label turns out to have."""
        paths = self.trie.paths
        if self.bounds[i].max() < UNSURE:
            return True
        alive = self._promising(i)
        if len({next(n for n in paths[label] if not self.done[i, n]) for label in alive}) == 1:
            return False
        return len({n for label in alive for n in paths[label][:-1]}) > FLAT * len(self.trie.inner)

    def _promising(self, i: int) -> list[int]:
        """Labels within the tolerance of the best bound. The best label may end lower, and bring others back."""
        bounds = self.bounds[i]
        return [int(k) for k in np.flatnonzero(bounds >= bounds.max() - math.log(len(bounds) / self.tolerance))]

    def _at_once(self, i: int) -> list[int]:
        """What promising labels still need; one of them will be complete then, and what is ruled out is certain."""
        nodes = {n for label in self._promising(i) for n in self.trie.paths[label][:-1]}
        return [n for n in self.trie.inner if n in nodes and not self.done[i, n]]

    def _evaluate(self, part: _Part, wanted: dict[int, list[int]]) -> None:
        """One forward pass over the wanted nodes of a part."""
        b = len(part.prompts)
        width = max(sum(len(wanted.get(i, ())) for i in row) for row in part.prompts)
        ids, new = torch.zeros(b, width, dtype=torch.long), _Columns.padding(b, width)
        places: list[Place] = []
        for r, row in enumerate(part.prompts):
            here = [(i, node) for i in row for node in wanted.get(i, ())]
            if not here:
                continue
            ids[r, : len(here)] = torch.tensor([self.trie.tokens[node] for _, node in here])
            new.owner[r, : len(here)] = torch.tensor([i for i, _ in here])
            new.node[r, : len(here)] = torch.tensor([node for _, node in here])
            depths = [len(self.prompts[i]) + self.trie.depths[node] - 1 for i, node in here]
            new.position[r, : len(here)] = torch.tensor(depths)
            places += [(r, column, i, node) for column, (i, node) in enumerate(here)]
        self.counts.labels += ids.numel()
        self.counts.nodes += len(places)
        self._forward(part, ids, new, places)

    def _forward(self, part: _Part, ids: Tensor, new: _Columns, places: list[Place]) -> None:
        part.columns = part.columns.then(new)
        children = [(k, token) for k, (_, _, _, node) in enumerate(places) for token in self.trie.children[node]]
        picked = self.network.next_log_probabilities(
            ids,
            positions_BT=new.position,
            mask=self._mask(new, part.columns),
            cache=part.cache,
            at=(torch.tensor([p[0] for p in places]), torch.tensor([p[1] for p in places])),
            places=torch.tensor([k for k, _ in children]),
            tokens=torch.tensor([t for _, t in children]),
        )
        self.counts.passes += 1
        self._learn(places, picked.double().cpu().numpy())

    def _mask(self, new: _Columns, columns: _Columns) -> Tensor:
        """(B, T, K): a token sees the shared beginning, and of its own prompt what leads to it."""
        own = new.owner[:, :, None] == columns.owner[:, None, :]
        leads = self.sees[new.node[:, :, None], columns.node[:, None, :]]
        before = columns.position[:, None, :] <= new.position[:, :, None]
        return (own & leads & before) | (columns.owner == PREFIX)[:, None, :]

    def _learn(self, places: list[Place], logprobs: np.ndarray) -> None:
        """Extend what is known to the children of each evaluated node, parents first."""
        k = 0
        for _, _, i, node in places:
            self.done[i, node] = True
            for child in self.trie.children[node].values():
                self.reach[i, child] = self.reach[i, node] + logprobs[k]
                labels = self.trie.below[child]
                self.bounds[i, labels] = self.reach[i, child]
                if not self.trie.children[child]:
                    self.complete[i, labels] = True
                k += 1


def groups(counts: Sequence[int]) -> list[list[int]]:
    """Rows to run together, those with nothing to do left out: padding is kept low, but not at the price of
    passes too small to be worth reading the weights for."""
    order = sorted((r for r, n in enumerate(counts) if n), key=lambda r: (-counts[r], r))
    found: list[list[int]] = []
    tokens = 0
    for r in order:
        if found:
            width = counts[found[-1][0]]
            if tokens < PASS or width * (len(found[-1]) + 1) <= PADDED * (tokens + counts[r]):
                found[-1].append(r)
                tokens += counts[r]
                continue
        found.append([r])
        tokens = counts[r]
    return [sorted(group) for group in found]
