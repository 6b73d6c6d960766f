"""The largest micro-batch that a GPU's memory holds, from two measured ones.

A CPU's is found in train/precision.py. What a GPU's memory holds of a step is a fixed part (weights, gradients, what
the optimizer remembers) and a part for each token; the peak of two sizes gives both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tunesmith.model.methods.spec import MethodSpec

SPARE = 0.9  # of the free memory: the allocator's fragments and other processes take the rest
LEAST, MOST = 512, 1 << 17  # tokens; above it products are as large as they need to be


def largest_micro_batch(peak_of: Callable[[int], int], *, free: int, longest: int) -> int:
    """The largest power of two of tokens, at least `longest`, whose step fits into `free` bytes.

    `peak_of(tokens)` runs a step of so many tokens, whole documents, and gives the bytes at its peak.
    """
    small = max(LEAST, longest)
    low, high = peak_of(small), peak_of(4 * small)
    each = max(1.0, (high - low) / (3 * small))
    fitting = int(small + (free * SPARE - low) / each)
    return max(longest, min(MOST, 1 << max(0, fitting.bit_length() - 1)) if fitting > 0 else longest)


def cuda_micro_batch(
    base: Path,
    longest: int,
    method: MethodSpec,
    precision: Any,
    device: torch.device,
    *,
    checkpointing: Any = False,
) -> int:
    """By torch's own count of a forward and backward on made-up documents of `longest` tokens, every one trained."""
    from tunesmith.model.flat_layout import Document
    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog as methods
    from tunesmith.train.forward import choose_forward

    full = method.kind == "full"
    model = methods.wrap(load_base(base, dtype="fp32" if full else precision), method, seed=0).to(device)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def documents(tokens: int) -> list[Any]:
        count = max(2, tokens // longest)
        return [
            Document(ids=tuple((7 * i + 13 * t) % vocabulary for t in range(longest)), trained=(True,) * longest)
            for i in range(count)
        ]

    forward = choose_forward(model, documents(2 * longest), precision, full=full, seed=0, twice=checkpointing)

    def peak_of(tokens: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        forward.nll_sum(documents(tokens), step=0).backward()
        model.zero_grad(set_to_none=True)
        return int(torch.cuda.max_memory_allocated(device)) + 8 * trained  # AdamW's moments are not there yet

    try:
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return largest_micro_batch(peak_of, free=free, longest=longest)
    except torch.OutOfMemoryError:
        return longest  # training halves, checkpoints and explains from there
    finally:
        torch.cuda.empty_cache()
