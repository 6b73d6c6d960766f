"""Which label a model in training finds likeliest, without scoring every label.

A label's score is the summed log-probability of its tokens, stop token included, as in
model/answer.py. Reading one label after a prompt gives its score, and an upper bound for every other
label: the score of their common beginning and its own next token. Labels are read best bound first,
until the best one has been read whole; no other can beat it then. The first guess is the row's own
target, so a model that has learnt it needs one forward pass a row, through training's own fast path.
The answer does not depend on the guess. A model that has learnt nothing, or has lost its way, would be asked for one
label after another: prompts that are open after ROUNDS reads are left to a scorer of all labels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tunesmith.model.flat_layout import Document, shared_prefix
from tunesmith.train.batches import split
from tunesmith.train.forward import Forward

ROUNDS = 3  # reads of a prompt, each about as dear as scoring all labels behind it at once
READ_TOKENS = 1024  # of one forward pass: the logits of all answers in it are held at once


def likeliest_labels(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    guesses: Sequence[int],
    *,
    max_tokens: int,
    score_rest: Callable[[list[int]], list[int]] | None = None,
) -> list[int]:
    """Index of the likeliest label for each prompt. `labels` are token ids, stop token last, so that none
    begins another; `guesses` are label indices, one a prompt. `score_rest`: the label of each of some places of
    `prompts`, in another way; None: there is none."""
    branches = [_branches(labels, k) for k in range(len(labels))]
    bounds = np.zeros((len(prompts), len(labels)))  # upper bound of each label's score, nats
    read = np.zeros((len(prompts), len(labels)), dtype=bool)
    waiting = dict(enumerate(guesses))  # prompt -> label to read next
    rounds = ROUNDS if score_rest is not None else len(labels)
    for _ in range(rounds):
        documents = [_document(prompts[i], labels[k], key=i) for i, k in waiting.items()]
        shared = shared_prefix(documents) if forward.shares_prefix else 0
        for group in split(documents, min(max_tokens, READ_TOKENS), shared=shared):
            log_p_NV = forward.logits(group).log_softmax(-1).cpu()
            start = 0
            for i in (int(d.key) for d in group):
                k = waiting[i]
                own = log_p_NV[start : start + len(labels[k])]
                start += len(labels[k])
                path = own[torch.arange(len(labels[k])), torch.tensor(labels[k])].double().cumsum(0)
                before = torch.cat((torch.zeros(1, dtype=torch.float64), path))
                depths, tokens = branches[k]
                bound = (before[depths] + own[depths, tokens]).numpy()
                bounds[i] = np.where(read[i], bounds[i], np.minimum(bounds[i], bound))
                bounds[i, k], read[i, k] = float(path[-1]), True
        best = bounds.argmax(1)
        waiting = {i: int(best[i]) for i in waiting if not read[i, best[i]]}
        if not waiting:
            break
    found = [int(k) for k in bounds.argmax(1)]
    if waiting and score_rest is not None:
        for place, k in zip(waiting, score_rest(list(waiting)), strict=True):
            found[place] = k
    return found


def _branches(labels: Sequence[Sequence[int]], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each label: how many tokens it shares with label k, and its token after those."""
    depths, tokens = [], []
    for other in labels:
        shared = next((j for j, (a, b) in enumerate(zip(labels[k], other, strict=False)) if a != b), len(other) - 1)
        depths.append(shared)
        tokens.append(other[shared])
    return torch.tensor(depths), torch.tensor(tokens)


def _document(prompt: Sequence[int], label: Sequence[int], *, key: int) -> Document:
    return Document(ids=(*prompt, *label), trained=(False,) * len(prompt) + (True,) * len(label), key=f"{key:09}")
