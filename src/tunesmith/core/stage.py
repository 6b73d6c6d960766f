"""What a stage is, and the one live handle it gets.

A stage is a function `stage(spec, inputs, work) -> outputs`. `spec` is a frozen dataclass of values
that change the result, `inputs` and `outputs` are frozen dataclasses of folders (`Path`, or
`dict[str, Path]` for a named family: the output `kept` of {"40": folder} is recorded as `kept-40`). The function is named, not imported, so that planning loads
no torch.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.canonical import canonical_json, plain
from tunesmith.core.errors import Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    version: int  # raise it when the same spec and inputs would give another result
    function: str  # "tunesmith.train.recipes.sft:sft"
    spec: type
    inputs: type
    outputs: type  # its field names are the outputs; a field's metadata {"kind": ...} is the artifact kind

    def resolve(self) -> Callable[[Any, Any, Workspace], Any]:
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


EngineName = Literal["single", "ddp", "fsdp2", "zero2", "zero3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """What must not change a result: every field here has an invariant test."""

    micro_batch_tokens: int = 4096  # padded tokens in one forward pass
    threads: int = 0  # 0: what torch chooses
    save_every_s: float = 60.0  # seconds between resumable states
    log_every: int = 1  # optimizer steps between metric lines
    packing: bool = False  # off the flat path: documents in one row where a probe allows; on a CPU it is slower
    gradient_checkpointing: bool | Literal["selective"] = False  # layers computed twice: equal but for rounding
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    attention: Literal["auto", "eager", "sdpa", "flash", "flex"] = "auto"
    compile: bool = False  # decoder layers through torch.compile, where a probe allows
    kernels: Literal["auto", "liger", "none"] = "auto"  # fused norms and gates on a GPU, where a probe allows
    activation_offload: bool = False  # a GPU's activations wait for the backward in the CPU's memory
    offload_optimizer: bool = False  # a GPU's optimizer remembers in the CPU's memory
    processes: int = 1  # ranks of a training on this machine
    engine: EngineName = "single"  # how several ranks share a training
    nodes: int = 1  # machines, each with as many ranks
    node_rank: int = 0  # of this machine, 0 to nodes - 1
    rendezvous: str = ""  # host:port of machine 0, where there are several
    isolate: bool = False  # a training gets a process of its own, also where it is one rank

    @property
    def ranks(self) -> int:
        """Processes that train together, on all machines."""
        return self.processes * self.nodes


def no_progress(done: float, total: float, label: str, **facts: Any) -> None:
    """The progress sink of tests and of library use without a terminal."""


@dataclass(kw_only=True)
class Workspace:
    """A stage's only live handle. It survives a kill: the next execution of the same key gets it again.

    scratch   where outputs are written; emptied whenever a stage starts
    state     resumable state; survives until the stage finishes
    """

    root: Path
    exec: Exec = field(default_factory=Exec)
    progress: Callable[..., None] = no_progress  # progress(done, total, label, **facts)
    stop: threading.Event = field(default_factory=threading.Event)
    summary: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)

    @property
    def scratch(self) -> Path:
        return self.root / "out"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    def log(self, **values: Any) -> None:
        """Append one line to the metric log: `work.log(step=3, loss=1.2)`. Times are left out, so that a
        resumed run logs what an uninterrupted one would; a resumed stage truncates to its state first."""
        line = json.dumps(plain(values), allow_nan=False)
        with open(self.metrics_file, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    def keep_log_until(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """After a resume: drop lines that the resumed stage will write again, and a torn last line."""
        if not self.metrics_file.exists():
            return
        kept = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # torn by a kill; its step is repeated
            if predicate(record):
                kept.append(line + "\n")
        temporary = self.metrics_file.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.metrics_file)

    def summarize(self, **values: Any) -> None:
        """Facts of the run that people look for first; stored with it. Raises ValueError for NaN and infinity,
        here rather than when the finished run is recorded."""
        canonical_json(values)
        self.summary.update(plain(values))

    def stop_if_asked(self) -> None:
        """Call where the state is saved or cheap to lose."""
        if self.stop.is_set():
            raise Stopped("stopped; what was done is saved", fix="run the same command again to go on")


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
