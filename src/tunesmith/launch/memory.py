"""Memory that ran out in a worker: what can be known of it, what takes it by part, and the next smaller micro-batch.

A system without memory kills a process without a word. The parent sees SIGKILL, which nobody here sends; where the
kernel counts such kills (cgroup memory.events, memory.oom_control, vmstat), a count that rose makes it nearly certain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import Problem, TunesmithError

LEAST = 64  # tokens of a micro-batch, as in core/settings.py
COUNTERS = ("memory.events", "memory.oom_control")  # of cgroup v2 and v1


@dataclass(frozen=True, kw_only=True)
class Death:
    """The end of a rank for want of memory."""

    rank: int
    certain: bool  # else the signal is all that is known
    by_system: bool  # killed; else the process noticed by itself

    @property
    def words(self) -> str:
        if not self.by_system:
            return f"out of memory in rank {self.rank}"
        if self.certain:
            return f"the system killed rank {self.rank} for memory"
        return f"rank {self.rank} was killed, most likely by the system for want of memory"


def killed_here(rank: int, counted: int) -> Death:
    """A rank that SIGKILL ended; `counted`: how far the system's own count rose meanwhile."""
    return Death(rank=rank, certain=counted > 0, by_system=True)


def oom_kills() -> int:
    """How many processes the kernel has killed for memory, of this process's group or of the machine; 0: unknown."""
    found = [_count(p) for p in _counters()]
    return max(found, default=0)


def _counters() -> list[Path]:
    paths = [Path("/proc/vmstat")]
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return paths
    for line in groups:
        _, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup") / ("memory" if controllers == "memory" else "")
        paths += [root / path.lstrip("/") / name for name in COUNTERS] + [root / name for name in COUNTERS]
    return paths


def _count(path: Path) -> int:
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def halved(tokens: int, spec: Any, folders: Any) -> int | None:
    """Half the micro-batch, or None where a single example already fills it: it cannot be split."""
    return None if tokens <= _longest(spec, folders) else max(LEAST, tokens // 2)


def _longest(spec: Any, folders: Any) -> int:
    """Tokens of the longest example, as far as the data set says; at least what a micro-batch may be set to."""
    said = _dataset(folders).get("tokens", {}).get("longest", 0)
    return max(LEAST, min(int(said), int(spec.max_tokens)))


def _dataset(folders: Any) -> dict[str, Any]:
    path = folders.dataset / "dataset.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def explained(death: Death, tokens: int, spec: Any, folders: Any) -> TunesmithError:
    """For a micro-batch that cannot be halved: what takes the memory, by part."""
    parts = by_part(spec, folders)
    listed = ", ".join(f"{name} {size:.0f} MiB" for name, size in parts.items())
    what = (
        f"{death.words}, and micro-batches of {tokens} tokens cannot be halved:"
        f" one example fills them. Each rank needs about: {listed}"
    )
    fix = (
        "--set exec.gradient_checkpointing=true, a smaller train.max_tokens with data.over_long=leave_out,"
        " train.method.kind=lora or qlora, a smaller model, or exec.engine=fsdp2 over more devices"
    )
    return TunesmithError(Problem(where="memory", what=what, fix=fix))


def by_part(spec: Any, folders: Any) -> dict[str, float]:
    """MiB by part, estimated from the model's shape."""
    from tunesmith.train.precision import estimate

    dataset = {"counts": {"train": 1}, "tokens": {"total": 1, "longest": _longest(spec, folders)}, **_dataset(folders)}
    found: dict[str, float] = estimate(read_json(folders.base / "config.json"), dataset, spec, 1.0)["memory"]
    return found


def note(tokens: int) -> str:
    return f"Memory ran out: training went on from its last state with micro-batches of {tokens} tokens."
