"""Noise on the embeddings while training, whose draw belongs to an example and not to its place in a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.train.dropout import Noise, generator


def add_noise(model: Any, alpha: float, noise: Noise) -> None:
    """From now on, each example's embeddings get uniform noise in [-1, 1] times alpha / sqrt(T M), T its tokens and
    M the hidden size, in steps in which `noise` is on.

    Source: Jain et al. 2023, arXiv:2310.05914, algorithm 1. Deviation: T is the example's own length, not that of
    the padded batch, so that the batch's make-up changes nothing.
    """

    def noisy(module: nn.Module, inputs: Any, embedded_BTM: Tensor) -> Tensor | None:
        if noise.step is None:
            return None
        added_BTM = torch.zeros_like(embedded_BTM)  # drawn on the CPU: the same numbers on every device
        for row_TM, document in zip(added_BTM, noise.documents, strict=True):
            n, width = len(document.ids), row_TM.shape[-1]
            drawn = torch.rand(n, width, generator=generator(noise, document.key, "neftune")) * 2 - 1
            row_TM[:n] = drawn.to(row_TM) * (alpha / math.sqrt(n * width))
        return embedded_BTM + added_BTM

    model.get_input_embeddings().register_forward_hook(noisy)
