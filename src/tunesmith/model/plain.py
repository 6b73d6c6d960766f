"""Label scores for models that cannot take a mask of our own: slower, and right by the model's own rules.

`score_on_cache` needs a cache and a padding mask; `score_in_full` needs nothing and is also what the
faster ways are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.model.forward import LOGITS, KeyValues, Network, log_probabilities
from tunesmith.model.rows import padded_batches, read_rows


def score_in_full(
    network: Network, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, batch_tokens: int
) -> np.ndarray:
    """(N, L) float64: each prompt with each label through the model from the first token, padded on the right."""
    pairs = [(i, k) for i in range(len(prompts)) for k in range(len(labels))]
    pairs.sort(key=lambda p: -(len(prompts[p[0]]) + len(labels[p[1]])))
    scores = np.zeros((len(prompts), len(labels)))
    most = max(1, LOGITS // (network.vocab_size * max(len(label) for label in labels)))
    at = 0
    while at < len(pairs):
        width = len(prompts[pairs[at][0]]) + len(labels[pairs[at][1]]) - 1
        batch = pairs[at : at + max(1, min(batch_tokens // width, most))]
        at += len(batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        rows: list[int] = []
        columns: list[int] = []
        tokens: list[int] = []
        for r, (i, k) in enumerate(batch):
            whole = [*prompts[i], *labels[k][:-1]]
            ids[r, : len(whole)], mask[r, : len(whole)] = torch.tensor(whole), 1
            rows += [r] * len(labels[k])
            columns += range(len(prompts[i]) - 1, len(whole))
            tokens += labels[k]
        logits = network(
            ids,
            positions_BT=torch.arange(width).expand(len(batch), -1),
            mask=mask,
            cache=None,
            at=(torch.tensor(rows), torch.tensor(columns)),
        )
        found = log_probabilities(logits, torch.arange(len(rows)), torch.tensor(tokens))
        sums = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, torch.tensor(rows), found.double().cpu())
        for r, (i, k) in enumerate(batch):
            scores[i, k] = float(sums[r])
    return scores


def score_on_cache(
    network: Network, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, batch_tokens: int
) -> np.ndarray:
    """(N, L) float64: prompts once, then one label after another on their cache."""
    scores = np.zeros((len(prompts), len(labels)))
    for batch in padded_batches(prompts, batch_tokens=batch_tokens, more=max(len(label) for label in labels)):
        state = read_rows(network, [prompts[i] for i in batch])
        first = torch.log_softmax(state.logits_BV.float(), -1).double().cpu()
        read = state.cache.columns
        for k, label in enumerate(labels):
            scores[batch, k] = first[:, label[0]].numpy()
            if len(label) > 1:
                scores[batch, k] += _rest(network, label, state.cache, state.mask_BK, state.lengths)
                state.cache.crop(read)
    return scores


def _rest(
    network: Network, label: Sequence[int], cache: KeyValues, mask_BK: torch.Tensor, lengths: list[int]
) -> np.ndarray:
    """(B,) summed log-probabilities of a label's tokens after the first."""
    b, t = len(lengths), len(label) - 1
    logits = network(
        torch.tensor([label[:-1]]).expand(b, -1),
        positions_BT=torch.tensor(lengths)[:, None] + torch.arange(t),
        mask=torch.cat([mask_BK, mask_BK.new_ones(b, t)], 1),
        cache=cache,
        at=(torch.arange(b).repeat_interleave(t), torch.arange(t).repeat(b)),
    )
    found = log_probabilities(logits, torch.arange(b * t), torch.tensor(label[1:]).repeat(b))
    return found.double().cpu().view(b, t).sum(1).numpy()
