"""A tiny model whose answers differ clearly between prompts, and a stand-in for the renderer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.tiny import make_tiny
from tunesmith.core.nouns import Message
from tunesmith.model.load import load_base

STOP = 2


def sharp_model(folder: Path, family: str = "llama", *, logits: float = 1, **overrides: object) -> Any:
    """Random weights six times as large as usual: log-probabilities spread over tens of nats. `logits` scales them."""
    model = load_base(make_tiny(folder, family, **overrides), dtype="fp32")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
        model.get_output_embeddings().weight.mul_(logits)
    return model


class Numbers:
    """Prompts and labels are written as token numbers: "17 40 99"."""

    stop_ids = frozenset({STOP})

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return [int(n) for m in messages for n in m.content.split()]

    def answer(self, target: str) -> list[int]:
        return [*(int(n) for n in target.split()), STOP]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(i) for i in ids if i != STOP)


def message(ids: Sequence[int]) -> list[Message]:
    return [Message(role="user", content=" ".join(map(str, ids)))]
