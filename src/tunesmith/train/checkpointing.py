"""Gradient checkpointing: a decoder layer keeps its input alone and is computed again in the backward.

Slower by about a forward pass; the activations kept shrink by about the number of tensors a layer holds.
Gradients are the same: a layer draws no noise but that keyed by example, which is put back for the second time.
Source: Chen et al. 2016, arXiv:1604.06174, a checkpoint at every layer. Selective: what products and attention gave
is kept, and only what is cheap is computed again (Korthikanti et al. 2022, arXiv:2205.05198, turned round: they
computed attention again, which flash kernels do for themselves by now).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.prompts import refuse_recomputing
from tunesmith.train.dropout import Noise
from tunesmith.train.kernels import decoder_layers

KEPT = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm")  # products; linear layers are made of them
ATTENTION = ("_scaled_dot_product_", "_flash_attn", "flex_attention")  # fused kernels, whatever backend


def checkpoint_layers(model: Any, noise: Noise, *, selective: bool = False) -> None:
    """From now on, each decoder layer is computed twice where gradients are made; `selective`: its products and its
    attention once.

    Not transformers' own switch: it works in training mode alone, and that would turn the base's dropout on.
    """
    refuse_recomputing(model)
    layers = decoder_layers(model)
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers to checkpoint",
            where="exec.gradient_checkpointing",
            fix="--set exec.gradient_checkpointing=false",
        )
    for layer in layers:
        layer.forward = partial(_twice, layer.forward, noise, selective)


def _twice(forward: Any, noise: Noise, selective: bool, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    step, documents = noise.step, noise.documents

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        if not selective:
            return nullcontext(), noise.of(step, documents)
        first, second = create_selective_checkpoint_contexts(_policy)
        return first, _both(noise.of(step, documents), second)

    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs)


@contextmanager
def _both(one: AbstractContextManager[Any], other: AbstractContextManager[Any]) -> Iterator[None]:
    with one, other:
        yield


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = getattr(operation, "_overloadpacket", operation).__name__
    kept = name in KEPT or name.startswith(ATTENTION)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
