"""Which way of computing is right for a model, found by trying it against the plain one.

"tree"    our own mask: several prompts a row, the labels as a tree
"cache"   a padding mask and a cache: one prompt a row, one label after another
"plain"   whole sequences: recurrent models, and sliding windows shorter than the sequence
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from tunesmith.model.forward import Network
from tunesmith.model.plain import score_in_full, score_on_cache
from tunesmith.model.scoring import score_labels
from tunesmith.model.trie import LabelTrie

Route = Literal["tree", "cache", "plain"]
NOISE = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats, summed over a probe label; a leak costs far more
NOISE_BF16 = 0.25
_known: dict[tuple[object, ...], Route] = {}


def label_scores(
    network: Network, prompts: Sequence[Sequence[int]], trie: LabelTrie, *, batch_tokens: int, tolerance: float
) -> np.ndarray:
    """(N, L) float64 log P(label | prompt), nats, by the fastest way that is right for this model."""
    longest = max(len(p) for p in prompts) + max(trie.depths)
    sequences = [[trie.tokens[n] for n in path] for path in trie.paths]
    way = route(network, longest)
    if way == "tree":
        return score_labels(network, prompts, trie, batch_tokens=batch_tokens, tolerance=tolerance)
    score = score_on_cache if way == "cache" else score_in_full
    return score(network, prompts, sequences, batch_tokens=batch_tokens)


def route(network: Network, longest: int) -> Route:
    """For sequences of up to `longest` tokens. Tried once for each architecture and process."""
    if network.window is not None and longest > network.window:
        return "plain"  # our caches keep every column and our masks know no window
    key = (*network.family, network.dtype)
    if key not in _known:
        _known[key] = _try(network)
    return _known[key]


def _try(network: Network) -> Route:
    rng = random.Random(0)
    limit = min(network.vocab_size, 1000)

    def some(count: int) -> list[int]:
        return [rng.randrange(limit) for _ in range(count)]

    start = some(9)
    prompts = [start + some(n) for n in (3, 1, 6)]
    opening = some(2)
    labels = [opening + some(3), opening + some(1), some(4), opening[:1] + some(2)]
    trie = LabelTrie([str(k) for k in range(len(labels))], labels)
    want = score_in_full(network, prompts, labels, batch_tokens=10_000)
    noise = NOISE.get(network.dtype, NOISE_BF16)
    tries: list[tuple[Route, object]] = [
        ("tree", lambda: score_labels(network, prompts, trie, batch_tokens=10_000, tolerance=0.0)),
        ("cache", lambda: score_on_cache(network, prompts, labels, batch_tokens=10_000)),
    ]
    for way, score in tries:
        try:
            got = score()  # type: ignore[operator]
        except Exception:  # noqa: S112 - whatever an architecture raises here means that it cannot be asked this way
            continue
        if float(np.abs(got - want).max()) <= noise * max(1.0, float(np.abs(want).max()) / 50):
            return way
    return "plain"
