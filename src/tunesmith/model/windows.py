"""Texts as a model reads them: whole where they fit, else in windows of token positions.

A window is the half-open span first..end of a text's tokens. Each window after the first begins with the last token
of the one before, as context only, so every token is predicted exactly once: none lost, none twice. A text begins
with the tokenizer's begin-of-sequence tokens, or with the end-of-sequence token where it has none (what a model saw
before every document when it was made), so that the text's first token is predicted too.

Same borders as EleutherAI's lm-evaluation-harness, `loglikelihood_rolling` with a context of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.core.errors import InputError, Problem, require
from tunesmith.model.flat_layout import Document


def borders(length: int, size: int, *, context: int = 1) -> list[tuple[int, int]]:
    """(first, end) of each window of at most `size` tokens over `length` tokens; `context` of them open every
    window and are not predicted in it.

    The predicted spans first+context..end are disjoint and cover context..length.
    """
    require(size > context, "max_tokens", size, f"above {context}")
    found = [(0, min(size, length))]
    while found[-1][1] < length:
        first = found[-1][1] - context
        found.append((first, min(first + size, length)))
    return found


def text_windows(
    tokenizer: Any, texts: Sequence[str], *, size: int, keys: Sequence[str], weights: Sequence[float], end: bool
) -> list[list[Document]]:
    """The windows of each text. `end`: the end of sequence is predicted, too (in training, so that the model learns
    to end; scores are of the text alone).

    A window's key is its text's key, a colon and the token position of its first token.
    """
    before = tuple(tokenizer.bos_ids) or (tokenizer.eos_id,)
    after = (tokenizer.eos_id,) if end else ()
    found = []
    for ids, key, weight in zip(tokenizer.encode_many(list(texts)), keys, weights, strict=True):
        whole = (*before, *ids, *after)
        documents = []
        for first, stop in borders(len(whole), size):
            given = max(len(before) if first == 0 else 1, 1)
            trained = (False,) * min(given, stop - first) + (True,) * max(0, stop - first - given)
            documents.append(Document(ids=whole[first:stop], trained=trained, weight=weight, key=f"{key}:{first}"))
        found.append(documents)
    return found


def refuse_beyond_context(config: dict[str, Any], size: int) -> None:
    """Raises InputError where windows would be longer than the model can read. `config`: its config.json."""
    limit = next(
        (config[n] for n in ("max_position_embeddings", "n_positions") if isinstance(config.get(n), int)), None
    )
    if limit is not None and size > limit:
        what = f"{size} tokens in a window, and the model reads {limit}"
        raise InputError(Problem(where="train.max_tokens", what=what, fix=f"--set train.max_tokens={limit}"))
