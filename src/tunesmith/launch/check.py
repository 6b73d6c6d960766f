"""Whether what `exec` asks for can be had here: refused with the reason and the fix before any time is spent."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import InputError, Problem
from tunesmith.core.settings import ExecSettings, TrainSettings
from tunesmith.core.stage import EngineName, Exec

SHARDED = ("fsdp2", "zero2", "zero3")
ELEMENTWISE = {"fsdp2": ("adamw", "lion", "schedule_free"), "zero2": ("adamw",), "zero3": ("adamw",)}


def engine(said: ExecSettings) -> EngineName:
    """`auto` resolved."""
    if said.engine == "auto":
        return "ddp" if said.processes * said.nodes > 1 else "single"
    return said.engine


def check(said: ExecSettings, train: TrainSettings) -> None:
    """Raises InputError with everything that stands in the way."""
    problems = [*_ranks(said), *_nodes(said), *_device(said), *_method(engine(said), train)]
    if problems:
        raise InputError(problems)


def refuse_spec(chosen: EngineName, spec: Any) -> None:
    """What only the finished spec says, `auto` having been measured: before a rank is started. Raises InputError."""
    if chosen in ("zero2", "zero3") and spec.method.kind != "full" and spec.precision != "fp32":
        raise InputError(_bf16_adapter(chosen, spec.method.kind))


def _bf16_adapter(chosen: EngineName, kind: str) -> Problem:
    what = f"{chosen} here takes fp32 weights, and {kind} in bf16 keeps its base in bf16"
    return Problem(where="train.precision", what=what, fix="--set train.precision=fp32, or exec.engine=ddp")


def _ranks(said: ExecSettings) -> list[Problem]:
    found, ranks, chosen = [], said.processes * said.nodes, engine(said)
    if chosen == "single" and ranks > 1:
        what = f"single is one process, and {ranks} are asked for"
        found.append(Problem(where="exec.engine", what=what, fix="--set exec.engine=auto"))
    if chosen != "single" and ranks == 1:
        what = f"{chosen} shares a training among several processes, and there is one"
        found.append(Problem(where="exec.engine", what=what, fix="--set exec.processes=2, or exec.engine=single"))
    here, unit = _devices(said.device)
    if said.processes > 1 and said.processes > here:
        what = f"{said.processes} ranks, and this machine has {here} {unit}"
        found.append(Problem(where="exec.processes", what=what, fix=f"--set exec.processes={here}"))
    if chosen in ("zero2", "zero3") and importlib.util.find_spec("deepspeed") is None:
        what = f"{chosen} is DeepSpeed's, which is not installed"
        found.append(Problem(where="exec.engine", what=what, fix='pip install "tunesmith[deepspeed]", or fsdp2'))
    if said.isolate is False and ranks > 1:
        what = "several ranks are several processes"
        found.append(Problem(where="exec.isolate", what=what, fix="--set exec.isolate=auto"))
    return found


def _device(said: ExecSettings) -> list[Problem]:
    found = []
    if ":" in said.device and said.processes > 1:
        what = f"{said.device} is one device, and {said.processes} ranks need one each"
        found.append(Problem(where="exec.device", what=what, fix="--set exec.device=cuda: each has that of its number"))
    if said.offload_optimizer and engine(said) in SHARDED:
        what = f"what an optimizer remembers is split under {engine(said)}, and is not moved besides"
        found.append(Problem(where="exec.offload_optimizer", what=what, fix="--set exec.offload_optimizer=false"))
    return found


def _devices(device: str) -> tuple[int, str]:
    """What ranks can have one each of: CUDA devices, or else cores."""
    import torch  # late: one process needs no answer

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count(), "CUDA devices"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores, "cores"


def _nodes(said: ExecSettings) -> list[Problem]:
    found = []
    if said.node_rank >= said.nodes:
        what = f"{said.node_rank} is no machine among {said.nodes}: they are counted from 0"
        found.append(Problem(where="exec.node_rank", what=what, fix="--set exec.nodes=..., or a smaller number"))
    if said.nodes > 1 and said.rendezvous is None:
        what = f"{said.nodes} machines need a place to meet"
        fix = "--set exec.rendezvous=HOST:PORT, an address of machine 0 and a free port there"
        found.append(Problem(where="exec.rendezvous", what=what, fix=fix))
    if said.rendezvous is not None and not re.fullmatch(
        r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", said.rendezvous
    ):
        what = f"{said.rendezvous!r} is no HOST:PORT"
        found.append(Problem(where="exec.rendezvous", what=what, fix="such as 10.0.0.1:29500"))
    return found


def _method(chosen: EngineName, train: TrainSettings) -> list[Problem]:
    """What cannot be split among ranks: the other engine, ddp, takes everything."""
    found: list[Problem] = []

    def refuse(where: str, what: str) -> None:
        found.append(Problem(where=where, what=f"{what} under {chosen}", fix="--set exec.engine=ddp"))

    if chosen not in SHARDED:
        return found
    if train.optimizer not in ELEMENTWISE[chosen]:
        refuse("train.optimizer", f"{train.optimizer} looks at whole matrices or packed numbers, which are split")
    if train.method.kind == "qlora":
        refuse("train.method.kind", "quantized weights cannot be split")
    if train.weights == "bf16":
        refuse("train.weights", "fp32 copies of bf16 weights are not split")
    if chosen != "fsdp2" and train.method.kind != "full" and train.precision == "bf16":
        found.append(_bf16_adapter(chosen, train.method.kind))
    if chosen != "fsdp2" and train.averaging != "none":
        refuse("train.averaging", "means of weights are not kept")
    if chosen != "fsdp2" and train.on_spike == "skip":
        refuse("train.on_spike", "a batch cannot be left out once its gradients are split")
    return found


def isolated(said: ExecSettings, needed_mib: Any, free_bytes: int) -> bool:
    """Whether a training gets a process of its own; `needed_mib()` is its estimated memory."""
    if said.isolate == "auto":
        return said.processes * said.nodes > 1 or needed_mib() * 2**20 > free_bytes / 2
    return bool(said.isolate)


def exec_values(said: ExecSettings) -> dict[str, Any]:
    """The part of Exec that says where."""
    return {
        "processes": said.processes,
        "engine": engine(said),
        "nodes": said.nodes,
        "node_rank": said.node_rank,
        "rendezvous": said.rendezvous or "",
    }


def one_process(exec: Exec) -> Exec:
    """For a stage that several ranks would not make faster."""
    return replace(exec, processes=1, engine="single", nodes=1, node_rank=0, rendezvous="", isolate=False)
