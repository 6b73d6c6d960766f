"""Which way of computing is right for a model, found by trying it against the plain one.

"tree"    our own mask: several prompts a row, the labels as a tree; for Llama-like models through fused.py,
          once that has given a model the plain scores
"cache"   a padding mask and a cache: one prompt a row, one label after another
"plain"   whole sequences: recurrent models, and sliding windows shorter than the sequence
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from tunesmith.model import fused
from tunesmith.model.forward import Network
from tunesmith.model.plain import score_in_full, score_on_cache
from tunesmith.model.scoring import score_labels
from tunesmith.model.trie import LabelTrie

Route = Literal["tree", "cache", "plain"]
NOISE = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats, summed over a probe label; a leak costs far more
NOISE_BF16 = 0.25
_known: dict[tuple[object, ...], Route] = {}
_proved: weakref.WeakKeyDictionary[torch.nn.Module, dict[torch.dtype, bool]] = weakref.WeakKeyDictionary()


def label_scores(
    network: Network, prompts: Sequence[Sequence[int]], trie: LabelTrie, *, batch_tokens: int, tolerance: float
) -> np.ndarray:
    """(N, L) float64 log P(label | prompt), nats, by the fastest way that is right for this model."""
    longest = max(len(p) for p in prompts) + max(trie.depths)
    sequences = [[trie.tokens[n] for n in path] for path in trie.paths]
    way = route(network, longest)
    if way == "tree":
        return score_labels(fastest(network), prompts, trie, batch_tokens=batch_tokens, tolerance=tolerance)
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


def fastest(network: Network) -> Network:
    """The fused network where this very model's scores are the plain ones; `network` itself elsewhere.

    Tried once for each model in memory and dtype: what a class promises, hooks or patched modules may break.
    """
    if fused.refusal(network.inner):
        return network
    known = _proved.setdefault(network.inner, {})
    quick = fused.FusedNetwork(network.inner)
    if network.dtype not in known:
        prompts, labels = _trial(network)
        want = score_in_full(network, prompts, labels, batch_tokens=10_000)
        known[network.dtype] = _agrees(network, want, lambda: _tree(quick, prompts, labels))
    return quick if known[network.dtype] else network


def _try(network: Network) -> Route:
    prompts, labels = _trial(network)
    want = score_in_full(network, prompts, labels, batch_tokens=10_000)
    if _agrees(network, want, lambda: _tree(network, prompts, labels)):
        return "tree"
    if _agrees(network, want, lambda: score_on_cache(network, prompts, labels, batch_tokens=10_000)):
        return "cache"
    return "plain"


def _trial(network: Network) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts that begin alike, and labels that do."""
    rng = random.Random(0)
    limit = min(network.vocab_size, 1000)

    def some(count: int) -> list[int]:
        return [rng.randrange(limit) for _ in range(count)]

    start = some(9)
    prompts = [start + some(n) for n in (3, 1, 6)]
    opening = some(2)
    return prompts, [opening + some(3), opening + some(1), some(4), opening[:1] + some(2)]


def _tree(network: Network, prompts: list[list[int]], labels: list[list[int]]) -> np.ndarray:
    trie = LabelTrie([str(k) for k in range(len(labels))], labels)
    return score_labels(network, prompts, trie, batch_tokens=10_000, tolerance=0.0)


def _agrees(network: Network, want: np.ndarray, score: Callable[[], np.ndarray]) -> bool:
    try:
        got = score()
    except Exception:  # whatever an architecture raises here means that it cannot be asked this way
        return False
    noise = NOISE.get(network.dtype, NOISE_BF16) * max(1.0, float(np.abs(want).max()) / 50)
    off = np.abs(got - want)
    # bf16 rounds single scores of a right way by up to half a nat; a leak moves all of them by far more
    return float(off.mean() if network.dtype is torch.bfloat16 else off.max()) <= noise
