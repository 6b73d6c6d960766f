"""How layers are computed: which attention, fused kernels, compiled or not. None of it may change a result.

Each function changes a model in place and says what undoes it. What is allowed where is checked first; whether the
numbers stay is for train/forward.py, which compares logits before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.core.extras import need

Attention = Literal["auto", "eager", "sdpa", "flash", "flex"]
Kernels = Literal["auto", "liger", "none"]
Undo = Callable[[], Any]
NAMES = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention"}  # what transformers calls them
# norms that are x / rms(x) * w in the input's dtype; Gemma's adds 1 to w
LLAMA_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def use_attention(model: Any, said: Attention, device: torch.device, precision: str) -> Undo:
    """Raises InputError for what the device or the architecture lacks."""
    before = model.config._attn_implementation
    name = _flash(device, precision) if said == "flash" else NAMES.get(said, before)
    problem = ""
    if said == "flex" and device.type != "cuda":
        problem = f"flex attention has no backward on a {device.type.upper()}"
    if said == "flash" and device.type == "cuda" and precision != "bf16":
        problem = "flash attention on a GPU computes in bf16 alone"
    if not problem:
        problem = _set(model, name)
    if problem:
        raise InputError(Problem(where=f"exec.attention: {said}", what=problem, fix="--set exec.attention=auto"))
    return partial(_set, model, before)


def attention_context(said: Attention) -> AbstractContextManager[Any]:
    """Around a forward: torch may choose among its kernels, or must take flash."""
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION]) if said == "flash" else nullcontext()


def _flash(device: torch.device, precision: str) -> str:
    """The flash-attn package packs documents; torch's own flash kernel, on every device, does not."""
    packaged = device.type == "cuda" and precision == "bf16" and find_spec("flash_attn") is not None
    return "flash_attention_2" if packaged else "sdpa"


def _set(model: Any, name: str) -> str:
    """Why the architecture cannot; "" if it could."""
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError, AttributeError) as e:
        return (str(e).splitlines() or [type(e).__name__])[0][:200]
    return ""


# -- Liger -------------------------------------------------------------------------------------------------


def has_liger(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("liger_kernel") is not None


def use_liger(model: Any, device: torch.device, *, functions: Any = None) -> Undo:
    """Liger's fused norm and gate in place of this model's own; classes of transformers stay as they are.

    Source: Hsu et al. 2024, arXiv:2410.10989. Deviation: its own patches replace modules of transformers for the
    whole process, and its cross-entropy; ours replace methods of one model, and the loss is train/losses.py.
    `functions` has liger_rms_norm and liger_swiglu; tests give their own.
    """
    if functions is None:
        if device.type != "cuda":
            what = f"Liger's kernels are written for GPUs, and this is a {device.type.upper()}"
            raise InputError(Problem(where="exec.kernels: liger", what=what, fix="--set exec.kernels=auto"))
        functions = need("liger_kernel.transformers.functional", extra="liger", why="exec.kernels=liger")
    changed: list[nn.Module] = []
    for module in model.modules():
        if type(module).__name__ in LLAMA_NORMS:
            module.forward = partial(_norm, functions.liger_rms_norm, module)
            changed.append(module)
        elif _is_gated(module):
            module.forward = partial(_gate, functions.liger_swiglu, module)
            changed.append(module)
    return partial(_restore, changed)


def _is_gated(module: nn.Module) -> bool:
    parts = all(hasattr(module, n) for n in ("gate_proj", "up_proj", "down_proj", "act_fn"))
    return parts and type(module.act_fn).__name__ in ("SiLU", "SiLUActivation")


def _norm(fused: Callable[..., Tensor], module: Any, x: Tensor) -> Tensor:
    # in_place=False: the gradient that comes in belongs to others too
    return fused(x, module.weight, module.variance_epsilon, 0.0, "llama", False)


def _gate(fused: Callable[..., Tensor], module: Any, x: Tensor) -> Tensor:
    return module.down_proj(fused(module.gate_proj(x), module.up_proj(x)))


# -- compiled ----------------------------------------------------------------------------------------------


def compile_layers(model: Any) -> Undo:
    """Decoder layers through torch.compile, lengths left open so that a new one compiles nothing new."""
    layers = decoder_layers(model)
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers to compile",
            where="exec.compile",
            fix="--set exec.compile=false",
        )
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    return partial(_restore, layers)


def decoder_layers(model: Any) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def _restore(modules: list[nn.Module]) -> None:
    """Their class's own forward again."""
    for module in modules:
        module.__dict__.pop("forward", None)


# -- activations in the CPU's memory -------------------------------------------------------------------------

LEAST_BYTES = 1 << 20  # smaller ones are not worth a copy


@contextmanager
def activations_on_cpu(device: torch.device, *, least: int = LEAST_BYTES) -> Iterator[None]:
    """What the backward keeps waits in the CPU's memory, but for weights and small tensors. Exact: copies."""

    def away(t: Tensor) -> Any:
        if t.device.type == "cpu" or t.numel() * t.element_size() < least or isinstance(t, nn.Parameter):
            return t
        if t._base is not None and isinstance(t._base, nn.Parameter):  # a weight seen from another side
            return t
        if t.device.type != "cuda":
            return t.device, t.cpu()
        held = torch.empty(t.shape, dtype=t.dtype, pin_memory=True)
        return t.device, held.copy_(t, non_blocking=True)

    def back(held: Any) -> Tensor:
        return held if isinstance(held, Tensor) else held[1].to(held[0], non_blocking=True)

    with torch.autograd.graph.saved_tensors_hooks(away, back) if device.type != "cpu" else nullcontext():
        yield
