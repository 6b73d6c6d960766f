"""Where a model computes: `exec.device` resolved on this machine, and what that device can and cannot do.

Everything else in the package asks a model for its device and puts its tensors there.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from tunesmith.core.errors import InputError, Problem

Precision = Literal["fp32", "bf16"]
BF16_SINCE = (8, 0)  # compute capability of Ampere: earlier ones have no bf16 matrix units


def device_of(said: str) -> torch.device:
    """`auto` is the first GPU that torch sees, else the CPU; of several ranks, each has the GPU of its own number.
    Raises InputError for a GPU that is not there."""
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = int(os.environ.get("LOCAL_RANK", "0"))  # set by torchrun
    if said == "cpu" or (said == "auto" and not seen):
        return torch.device("cpu")
    index = int(said.partition(":")[2] or own)
    if index >= seen:
        built = "" if torch.version.cuda else " (this build of torch is for CPUs alone)"
        what = f"{said} is asked for, and torch sees {seen or 'no'} GPU{'s' if seen > 1 else ''} here{built}"
        fix = f"--set exec.device={f'cuda:{seen - 1}' if seen else 'cpu'}"
        raise InputError(Problem(where="exec.device", what=what, fix=fix))
    return torch.device("cuda", index)


def refuse_precision(device: torch.device, precision: str, *, where: str = "train.precision") -> None:
    """Raises InputError where the device computes `precision` in no units of its own."""
    if precision == "bf16" and not has_bf16(device):
        name = torch.cuda.get_device_name(device)
        what = f"{name} has no bf16 units: they came with compute capability {BF16_SINCE[0]}.{BF16_SINCE[1]}"
        raise InputError(Problem(where=where, what=what, fix=f"--set {where}=fp32"))


def has_bf16(device: torch.device) -> bool:
    """On a CPU always: without units of its own it is slower there, and right."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= BF16_SINCE


def autocast(device: torch.device, enabled: bool) -> AbstractContextManager[Any]:
    """bf16 products of fp32 weights."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else nullcontext()


def facts(device: torch.device) -> dict[str, Any]:
    """What a run's numbers may depend on, for its summary. Empty on a CPU, which the environment describes."""
    if device.type != "cuda":
        return {}
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "capability": f"{major}.{minor}",
        "cuda": str(torch.version.cuda),
        "tf32": torch.backends.cuda.matmul.allow_tf32,  # torch's own choice is off: fp32 means fp32
        "gpu_peak_mib": round(torch.cuda.max_memory_allocated(device) / 2**20),
    }
