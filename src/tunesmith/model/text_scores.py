"""How well a model predicts texts: nats and tokens of each, through the model's own forward.

    score_texts(model, tokenizer, texts, max_tokens=1024, batch_tokens=4096)

Works for any causal model; windows of similar length share a padded batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.model.flat_layout import Document
from tunesmith.model.forward import Network, log_probabilities
from tunesmith.model.windows import text_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    nats: float  # sum of -log P(token | the window before it)
    tokens: int  # predicted


def score_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], *, max_tokens: int, batch_tokens: int
) -> list[TextScore]:
    """One score a text. `max_tokens` of a window change the result, `batch_tokens` (padded tokens in one forward
    pass) do not. Raises ModelError where the model's probabilities are not numbers."""
    plain = [1.0] * len(texts)
    windows = text_windows(
        tokenizer, texts, size=max_tokens, keys=[str(i) for i in range(len(texts))], weights=plain, end=False
    )
    flat = [(i, w) for i, of_text in enumerate(windows) for w in of_text]
    nats, tokens = [0.0] * len(texts), [0] * len(texts)
    network = Network(model)
    with network.evaluating():
        for batch in _batches([w for _, w in flat], min(batch_tokens, network.places_at_once(batch_tokens))):
            for k, value in zip(batch, _nats(network, [flat[k][1] for k in batch]), strict=True):
                text, window = flat[k]
                nats[text] += value
                tokens[text] += sum(window.trained)
    if not all(math.isfinite(n) for n in nats):
        where = next(i for i, n in enumerate(nats) if not math.isfinite(n))
        raise ModelError(
            f"its probabilities of text {where + 1} are not numbers", fix="try precision fp32, or train at a lower rate"
        )
    return [TextScore(nats=n, tokens=t) for n, t in zip(nats, tokens, strict=True)]


def _batches(windows: Sequence[Document], batch_tokens: int) -> list[list[int]]:
    """Indices by length; at most `batch_tokens` padded tokens together, or one window that is longer."""
    found: list[list[int]] = []
    for i in sorted(range(len(windows)), key=lambda i: (len(windows[i].ids), i)):
        if found and (len(found[-1]) + 1) * len(windows[i].ids) <= batch_tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _nats(network: Network, windows: Sequence[Document]) -> list[float]:
    longest = max(len(w.ids) for w in windows)
    ids, mask = (
        torch.zeros(len(windows), longest, dtype=torch.long),
        torch.zeros(len(windows), longest, dtype=torch.long),
    )
    rows: list[int] = []
    columns: list[int] = []
    labels: list[int] = []
    for b, w in enumerate(windows):
        ids[b, : len(w.ids)] = torch.tensor(w.ids)
        mask[b, : len(w.ids)] = 1
        places = [t for t in range(1, len(w.ids)) if w.trained[t]]
        rows += [b] * len(places)
        columns += [t - 1 for t in places]
        labels += [w.ids[t] for t in places]
    totals = torch.zeros(len(windows), dtype=torch.float64)
    if labels:
        at = (torch.tensor(rows), torch.tensor(columns))
        positions = torch.arange(longest).expand(len(windows), -1)
        logits_NV = network(ids, positions_BT=positions, mask=mask, cache=None, at=at)
        chosen = log_probabilities(logits_NV, torch.arange(len(labels)), torch.tensor(labels))
        totals.index_add_(0, at[0], -chosen.double().cpu())
    return [float(t) for t in totals]
