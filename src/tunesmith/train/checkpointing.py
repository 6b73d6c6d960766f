"""Gradient checkpointing: a decoder layer keeps its input alone and is computed again in the backward.

Slower by about a forward pass; the activations kept shrink by about the number of tensors a layer holds.
Gradients are the same: a layer draws no noise but that keyed by example, which is put back for the second time.
Source: Chen et al. 2016, arXiv:1604.06174, a checkpoint at every layer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.prompts import refuse_recomputing
from tunesmith.train.dropout import Noise


def checkpoint_layers(model: Any, noise: Noise) -> None:
    """From now on, each decoder layer is computed twice where gradients are made.

    Not transformers' own switch: it works in training mode alone, and that would turn the base's dropout on.
    """
    refuse_recomputing(model)
    layers = _decoder_layers(model)
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers to checkpoint",
            where="exec.gradient_checkpointing",
            fix="--set exec.gradient_checkpointing=false",
        )
    for layer in layers:
        layer.forward = partial(_twice, layer.forward, noise)


def _twice(forward: Any, noise: Noise, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    step, documents = noise.step, noise.documents

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), noise.of(step, documents)

    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs)


def _decoder_layers(model: Any) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
