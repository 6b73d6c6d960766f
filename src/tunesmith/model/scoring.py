"""The log-probability of every label after every prompt, computing each shared token once.

Prompts that begin alike share one cache of that beginning; several prompts lie in one row, kept apart by
the mask; the labels lie behind them as a tree, each token seeing its prompt and its ancestors only.
Branches that cannot matter any more are left out (see `score_labels`).

Shapes: B rows, T new tokens, K columns, N prompts, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunesmith.model.forward import KeyValues, Network, log_probabilities
from tunesmith.model.trie import LabelTrie

SHARED = 8  # a common beginning shorter than this is not worth a forward pass of its own
ROW = 192  # tokens that short prompts are gathered up to in a row; longer rows waste attention
LOGITS = 1 << 27  # logits held at once, at most
LIKELY = 2.3  # nats (a factor of ten): while no label is complete, how far behind the best a branch may lie
PREFIX, PADDING = -1, -2  # owners of columns that belong to no one prompt


@dataclass(kw_only=True)
class Counts:
    """What was computed, in tokens, padding included."""

    prefix: int = 0
    prompts: int = 0
    labels: int = 0
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
    """
    counts = counts or Counts()
    unique = sorted({tuple(p) for p in prompts}, key=lambda p: (-len(p), p))
    shared = common_beginning(unique)
    prefix = _prefix(network, unique[0][:shared], counts) if shared else None
    scores: dict[tuple[int, ...], np.ndarray] = {}
    for rows in batches(unique, shared, trie, network.vocab_size, batch_tokens):
        batch = _Batch(network, trie, rows, shared, tolerance, counts)
        batch.run(prefix)
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
    unique: Sequence[tuple[int, ...]], shared: int, trie: LabelTrie, vocab_size: int, batch_tokens: int
) -> list[list[list[tuple[int, ...]]]]:
    """Batches of rows of prompts, longest first, so that rows of a batch are of about one length.

    A batch has at most `batch_tokens` padded tokens (one prompt alone may have more), and few enough prompts
    that the logits of all their labels fit.
    """
    most = max(1, LOGITS // (vocab_size * (len(trie.inner) + 1)))
    found: list[list[list[tuple[int, ...]]]] = []
    rows: list[list[tuple[int, ...]]] = []
    width = held = used = 0
    for prompt in unique:
        length = len(prompt) - shared
        if rows and held < most and used + length <= width:
            rows[-1].append(prompt)
            used, held = used + length, held + 1
            continue
        if not rows or held >= most or (len(rows) + 1) * width > batch_tokens:
            rows, held, width = [], 0, max(length, min(ROW, batch_tokens))
            found.append(rows)
        rows.append([prompt])
        used, held = length, held + 1
    return found


def _prefix(network: Network, ids: Sequence[int], counts: Counts) -> KeyValues:
    cache, none = KeyValues(), torch.zeros(0, dtype=torch.long)
    counts.prefix += len(ids)
    counts.passes += 1
    network(
        torch.tensor([ids]),
        positions_BT=torch.arange(len(ids))[None],
        mask=torch.ones(1, len(ids), dtype=torch.long),
        cache=cache,
        at=(none, none),
    )
    return cache


@dataclass(slots=True)
class _Columns:
    """What each column of each row is. `owner`: the prompt it belongs to, PREFIX or PADDING."""

    owner: Tensor
    node: Tensor  # in the trie; 0 for a prompt's own tokens
    position: Tensor

    def then(self, new: _Columns) -> _Columns:
        return _Columns(
            torch.cat([self.owner, new.owner], 1),
            torch.cat([self.node, new.node], 1),
            torch.cat([self.position, new.position], 1),
        )

    def rows(self, index: Tensor) -> _Columns:
        return _Columns(self.owner[index], self.node[index], self.position[index])


@dataclass
class _Batch:
    """Some prompts in some rows, from their first token to the last label that matters."""

    network: Network
    trie: LabelTrie
    rows: list[list[tuple[int, ...]]]
    shared: int
    tolerance: float
    counts: Counts
    prompts: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = [p for row in self.rows for p in row]
        n = len(self.prompts)
        places = iter(range(n))
        self.row_prompts = [[next(places) for _ in row] for row in self.rows]  # row → prompts
        self.bounds = np.zeros((n, len(self.trie.labels)))  # upper bound of each label, nats
        self.complete = np.zeros((n, len(self.trie.labels)), dtype=bool)
        self.reach = np.zeros((n, len(self.trie.tokens)))  # log P(node's tokens | prompt), where its parent is done
        self.done = np.zeros((n, len(self.trie.tokens)), dtype=bool)  # the node's next-token distribution is known
        size = len(self.trie.tokens)
        self.sees = torch.zeros(size, size, dtype=torch.bool)
        for node in (0, *self.trie.inner):
            self.sees[node, self.trie.ancestors(node)] = True

    def run(self, prefix: KeyValues | None) -> None:
        self._read_prompts(prefix)
        while wanted := self._wanted():
            self._evaluate(wanted)

    def _read_prompts(self, prefix: KeyValues | None) -> None:
        b, width = len(self.rows), max(sum(len(p) - self.shared for p in row) for row in self.rows)
        ids = torch.zeros(b, width, dtype=torch.long)
        new = _Columns(torch.full((b, width), PADDING), torch.zeros_like(ids), torch.zeros_like(ids))
        lasts = []
        for r, row in enumerate(self.row_prompts):
            start = 0
            for i in row:
                tail = self.prompts[i][self.shared :]
                end = start + len(tail)
                ids[r, start:end] = torch.tensor(tail)
                new.owner[r, start:end] = i
                new.position[r, start:end] = torch.arange(self.shared, self.shared + len(tail))
                lasts.append((r, end - 1, i, 0))
                start = end
        before = torch.arange(self.shared).expand(b, -1)
        self.columns = _Columns(torch.full((b, self.shared), PREFIX), torch.zeros_like(before), before)
        self.cache = prefix.rows([0] * b) if prefix is not None else KeyValues()
        self.counts.prompts += ids.numel()
        self._forward(ids, new, lasts)

    def _wanted(self) -> dict[int, list[int]]:
        """Prompt → inner nodes to evaluate next, parents before children."""
        if self.tolerance == 0:
            return {} if self.done[0, self.trie.inner].all() else {i: self.trie.inner for i in range(len(self.prompts))}
        best = np.where(self.complete, self.bounds, -math.inf).max(axis=1)
        least = best - math.log(len(self.trie.labels) / self.tolerance)
        least = np.where(np.isfinite(best), least, self.bounds.max(axis=1) - LIKELY)
        open_ = ~self.complete & (self.bounds >= least[:, None])
        found: dict[int, list[int]] = {}
        for i in np.flatnonzero(open_.any(axis=1)):
            nodes: dict[int, None] = {}
            for label in np.flatnonzero(open_[i]):
                first = next(n for n in self.trie.paths[label] if not self.done[i, n])
                if first not in nodes:
                    nodes.update(dict.fromkeys(self.trie.edge(first)))
            found[int(i)] = list(nodes)
        return found

    def _evaluate(self, wanted: dict[int, list[int]]) -> None:
        """One forward pass over the wanted nodes; rows with nothing left to do are dropped for good."""
        active = [r for r, row in enumerate(self.row_prompts) if any(i in wanted for i in row)]
        if len(active) < len(self.row_prompts):
            self.row_prompts = [self.row_prompts[r] for r in active]
            self.columns = self.columns.rows(torch.tensor(active))
            self.cache = self.cache.rows(active)
        width = max(sum(len(wanted.get(i, ())) for i in row) for row in self.row_prompts)
        shape = (len(active), width)
        ids = torch.zeros(shape, dtype=torch.long)
        new = _Columns(torch.full(shape, PADDING), torch.zeros_like(ids), torch.zeros_like(ids))
        places = []
        for r, row in enumerate(self.row_prompts):
            column = 0
            for i in row:
                for node in wanted.get(i, ()):
                    ids[r, column] = self.trie.tokens[node]
                    new.owner[r, column], new.node[r, column] = i, node
                    new.position[r, column] = len(self.prompts[i]) + self.trie.depths[node] - 1
                    places.append((r, column, i, node))
                    column += 1
        self.counts.labels += ids.numel()
        self._forward(ids, new, places)

    def _forward(self, ids: Tensor, new: _Columns, places: list[tuple[int, int, int, int]]) -> None:
        """Run new tokens; `places` are (row, column, prompt, node) where the next token's distribution is wanted."""
        self.columns = self.columns.then(new)
        rows, columns = torch.tensor([p[0] for p in places]), torch.tensor([p[1] for p in places])
        logits = self.network(
            ids,
            positions_BT=new.position,
            mask=self._mask(new),
            cache=self.cache,
            at=(rows, columns),
        )
        self.counts.passes += 1
        children = [(k, token) for k, (_, _, _, node) in enumerate(places) for token in self.trie.children[node]]
        picked = log_probabilities(
            logits, torch.tensor([k for k, _ in children]), torch.tensor([t for _, t in children])
        )
        self._learn(places, picked.double().numpy())

    def _mask(self, new: _Columns) -> Tensor:
        """(B, T, K): a token sees the shared beginning, and of its own prompt what leads to it."""
        all_ = self.columns
        own = new.owner[:, :, None] == all_.owner[:, None, :]
        leads = self.sees[new.node[:, :, None], all_.node[:, None, :]]
        before = all_.position[:, None, :] <= new.position[:, :, None]
        return (own & leads & before) | (all_.owner == PREFIX)[:, None, :]

    def _learn(self, places: list[tuple[int, int, int, int]], logprobs: np.ndarray) -> None:
        """Extend what is known of the children of each evaluated node, in the order parents first."""
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
