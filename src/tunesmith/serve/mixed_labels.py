"""The labels of several tasks scored in one batch: each row has its own adapter, prompt and labels.

The prompts in one pass, then the labels behind them as trees, each token seeing its prompt and its ancestors only,
as in model/scoring.py but without its search: every label is scored exactly. Shapes: B rows, T nodes, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith.model.forward import Network
from tunesmith.model.trie import LabelTrie
from tunesmith.serve.slots import Prefix, Under, block, read


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, with what goes before it, and the labels to choose from."""

    prefix: Prefix
    prompt: tuple[int, ...]
    trie: LabelTrie


def score(network: Network, asked: Sequence[Asked], under: Under, *, batch_tokens: int) -> list[np.ndarray]:
    """For each, (labels,) float64: log P(label | prompt), nats, stop token included."""
    found: list[np.ndarray] = []
    for batch in _batches(network, asked, batch_tokens):
        found += _score(network, batch, under)
    return found


def _batches(network: Network, asked: Sequence[Asked], batch_tokens: int) -> Iterator[list[Asked]]:
    """In their order, as many as fit: padded prompt tokens, and places whose next token is asked for."""
    batch: list[Asked] = []
    for one in asked:
        more = [*batch, one]
        tokens = len(more) * max(len(a.prompt) for a in more)
        places = sum(len(a.trie.inner) + 1 for a in more)
        if batch and (tokens > batch_tokens or places > network.places_at_once(batch_tokens)):
            yield batch
            more = [one]
        batch = more
    if batch:
        yield batch


def _score(network: Network, asked: list[Asked], under: Under) -> list[np.ndarray]:
    b = len(asked)
    rows = read(network, [(a.prefix, a.prompt) for a in asked], under)
    reach = [np.zeros(len(a.trie.tokens)) for a in asked]
    for r, (_, _, logits_V) in enumerate(rows):
        _learn(asked[r].trie, reach[r], 0, torch.log_softmax(logits_V, -1))
    width = max(len(a.trie.inner) for a in asked)
    if width:
        lengths = [n for _, n, _ in rows]
        columns = max(lengths)
        ids, positions = torch.zeros(b, width, dtype=torch.long), torch.zeros(b, width, dtype=torch.long)
        mask = torch.zeros(b, width, columns + width, dtype=torch.bool)
        mask[:, :, columns:] = torch.eye(width, dtype=torch.bool)  # padding sees itself: a row of nothing is NaN
        for r, a in enumerate(asked):
            place = {node: t for t, node in enumerate(a.trie.inner)}
            for node, t in place.items():
                ids[r, t], positions[r, t] = a.trie.tokens[node], lengths[r] + a.trie.depths[node] - 1
                mask[r, t, columns - lengths[r] : columns] = True
                mask[r, t, [columns + place[n] for n in a.trie.ancestors(node) if n]] = True
        wanted = [(r, t) for r, a in enumerate(asked) for t in range(len(a.trie.inner))]
        at = (torch.tensor([r for r, _ in wanted]), torch.tensor([t for _, t in wanted]))
        with under([a.prefix.adapter for a in asked]):
            logits_NV = network(ids, positions_BT=positions, mask=mask, cache=block(rows), at=at)
        for (r, t), logits_V in zip(wanted, logits_NV, strict=True):  # parents before children
            trie = asked[r].trie
            _learn(trie, reach[r], trie.inner[t], torch.log_softmax(logits_V.float(), -1))
    return [reach[r][a.trie.leaves] for r, a in enumerate(asked)]


def _learn(trie: LabelTrie, reach: np.ndarray, node: int, logprobs_V: torch.Tensor) -> None:
    for token, child in trie.children[node].items():
        reach[child] = reach[node] + float(logprobs_V[token])
