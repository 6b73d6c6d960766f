"""Dropout whose noise belongs to an example, not to its place in a batch.

A mask is drawn from a generator seeded by seed, step, example and module, so micro-batch size, order
and resuming do not change it. Only the method's own dropout is on: a base model's stays off, as in
evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.model.flat_layout import Document


class Noise:
    """Which documents are in flight, in which step; no step: no noise."""

    def __init__(self, seed: int):
        self.seed = seed
        self.step: int | None = None
        self.documents: Sequence[Document] = ()

    @contextmanager
    def of(self, step: int | None, documents: Sequence[Document]) -> Iterator[None]:
        self.step, self.documents = step, documents
        try:
            yield
        finally:
            self.step, self.documents = None, ()


class KeyedDropout(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, p: float, name: str, noise: Noise):
        super().__init__()
        self.p, self._name, self._noise = p, name, noise

    def forward(self, x_BTM: Tensor) -> Tensor:
        if self._noise.step is None:
            return x_BTM
        keep_BTM = torch.zeros_like(x_BTM)
        rows = keep_BTM.view(len(self._noise.documents), -1, x_BTM.shape[-1])  # OPT flattens rows and tokens
        for row, document in zip(rows, self._noise.documents, strict=True):
            n = len(document.ids)
            drawn = torch.rand(n, x_BTM.shape[-1], generator=generator(self._noise, document.key, self._name))
            row[:n] = (drawn >= self.p).to(row)  # drawn on the CPU: the same noise on every device
        return x_BTM * keep_BTM / (1 - self.p)


def generator(noise: Noise, key: str, name: str) -> torch.Generator:
    """Seeded by seed, step, example and the place in the model that draws."""
    text = f"{noise.seed}:{noise.step}:{key}:{name}"
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1)


def key_dropout(model: Any, noise: Noise) -> None:
    """Put keyed dropout in place of the adapters' own."""
    for name, module in model.named_modules():
        for kind in ("lora_dropout", "bottleneck_dropout"):
            held: Any = module._modules.get(kind, {})
            for adapter, dropout in held.items():
                if getattr(dropout, "p", 0.0):
                    held[adapter] = KeyedDropout(dropout.p, name, noise)
