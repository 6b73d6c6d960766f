"""A second device on a machine that has none: its tensors say `meta`, hold real numbers inside, and refuse to meet the
CPU's tensors. What runs here without an error puts every tensor where the model is; and its numbers are the CPU's own,
since the same kernels compute them.

Stricter than CUDA: there an index on the CPU is let in, and copied each time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")
MIXERS = {  # what may read from one device and write to the other, as on a real one
    torch.ops.aten.copy_.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten.set_.source_Tensor,
}


class Away(Tensor):
    """Says that it is on DEVICE; `held` is on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Away:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, shape = tree_flatten((args, kwargs))
    away = [a for a in flat if isinstance(a, Away)]
    near = [a for a in flat if isinstance(a, Tensor) and not isinstance(a, Away) and a.dim() > 0]
    said = kwargs.get("device")
    if away and near and func not in MIXERS:
        raise RuntimeError(f"{func}: tensors on {DEVICE} and on the CPU, such as {tuple(near[0].shape)}")
    if near and said is not None and torch.device(said) == DEVICE and func not in MIXERS:
        raise RuntimeError(f"{func}: made on {DEVICE} from the CPU")
    inner_args, inner_kwargs = tree_unflatten([a.held if isinstance(a, Away) else a for a in flat], shape)
    if said is not None:
        inner_kwargs["device"] = torch.device("cpu")
        out_away = torch.device(said) == DEVICE
    else:
        out_away = bool(away)
    if func is torch.ops.aten.copy_.default:
        out_away = isinstance(args[0], Away)
    found = func(*inner_args, **inner_kwargs)
    if not out_away:
        return found
    by_id = {id(a.held): a for a in away}  # what is written in place stays the same tensor
    return tree_map(lambda t: (by_id[id(t)] if id(t) in by_id else Away(t)) if isinstance(t, Tensor) else t, found)


class Creation(TorchDispatchMode):
    """torch.zeros(..., device=DEVICE) and its like, which no tensor leads to."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Literals(TorchFunctionMode):
    """torch.tensor([...], device=DEVICE), which is made below where a dispatch mode looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return Away(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


move = torch.nn.Module.to


def moved_with_ties(model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """A real device fills the parameter that is there; this one puts a new one, and weights that were one must stay one."""
    places: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                places.setdefault(id(p), []).append((module, name))
    move(model, *args, **kwargs)
    for (first, name), *others in places.values():
        for module, other in others:
            module._parameters[other] = first._parameters[name]
    return model


@contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, `exec.device: auto` is DEVICE, and the places where torch lists devices know it."""
    from tunesmith.model import device
    from tunesmith.train import learner

    with monkeypatch.context() as patch:
        for module in (device, learner):
            patch.setattr(module, "device_of", lambda said: DEVICE)
        known = ["cpu", "meta"]
        optimizers = sys.modules["torch.optim.optimizer"]
        patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: known)
        patch.setattr(torch.nn.Module, "to", moved_with_ties)
        with Literals(), Creation():
            yield
