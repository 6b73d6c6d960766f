"""A domain task's arms: the base model and the tuned one, each asked how likely it finds every text.

A text is not answered but predicted, so an Answer carries no words: its `logprob` is the text's (nats, every token of
it, the end of sequence not counted), `answer_tokens` how many tokens that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunesmith.core.nouns import Answer, Message
from tunesmith.core.stage import Clock


def as_prompt(text: str) -> tuple[Message, ...]:
    """What the model would have written, as the one turn of a prompt: the form in which arms are asked."""
    return (Message(role="assistant", content=text),)


def predict(
    model: Any, tokenizer: Any, prompts: Sequence[tuple[Message, ...]], *, max_tokens: int, batch_tokens: int
) -> list[Answer]:
    """One Answer a text; `confidence` is exp(mean log-probability of a token), as for written answers."""
    from tunesmith.model.text_scores import score_texts

    clock = Clock()
    texts = [prompt[0].content for prompt in prompts]
    scores = score_texts(model, tokenizer, texts, max_tokens=max_tokens, batch_tokens=batch_tokens)
    share = clock.seconds / max(1, len(texts))
    return [
        Answer(
            text="",
            confidence=math.exp(-s.nats / max(1, s.tokens)),
            logprob=-s.nats,
            answer_tokens=s.tokens,
            seconds=share,
            finish="stop",
        )
        for s in scores
    ]
