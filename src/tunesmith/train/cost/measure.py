"""Ask probe.py, in a process of its own, what a training really takes. Loads no torch.

A question names the stage, its Spec, its Exec and the folders of its inputs. If the system kills the process, it
ran out of memory: that is an answer too, and costs the caller nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.core.errors import TunesmithError
from tunesmith.core.stage import Exec

ERROR_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What three steps at the longest batch took, and three of the first batches."""

    peak_mib: float
    tokens_per_s: float  # of the first batches, which are like all others
    longest_tokens: int  # in the longest batch
    longest_tokens_per_s: float
    trained_weights: int
    path: str
    watts: float | None  # mean draw of the processors, where the system says
    device: str  # cpu, or the GPU whose memory peak_mib is of
    free_mib: int  # of that memory, before


def measure(
    stage: str, spec: Any, exec: Exec, *, dataset: Path, base: Path, start: Path | None, general: Path | None
) -> Measured | str:
    """What was measured, or why the steps could not be taken: the process was killed or memory was refused.

    Raises TunesmithError with the last lines of the process where it failed otherwise, as training would.
    """
    question = {
        "stage": stage,
        "spec": plain(spec),
        "exec": plain(exec),
        "dataset": str(dataset),
        "base": str(base),
        "start": str(start) if start else None,
        "general": str(general) if general else None,
    }
    done = subprocess.run(  # our own module, by this very interpreter
        [sys.executable, "-m", "tunesmith.train.cost.probe"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},  # from wherever we are
    )
    if done.returncode == -signal.SIGKILL:
        return "the system killed it: memory does not suffice"
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-ERROR_LINES:])
        if "allocate memory" in said or "out of memory" in said.lower():
            return f"memory was refused: {said.splitlines()[-1]}"
        raise TunesmithError(f"the steps could not be taken: {said}", where="plan", fix="tunesmith plan --no-probe")
    return read(json.loads(done.stdout.splitlines()[-1]))


def read(found: dict[str, Any]) -> Measured:
    typical = found["typical"] or found["longest"]
    return Measured(
        peak_mib=found["peak_mib"],
        tokens_per_s=typical["tokens_per_s"],
        longest_tokens=found["longest"]["tokens"],
        longest_tokens_per_s=found["longest"]["tokens_per_s"],
        trained_weights=found["trained_weights"],
        path=found["path"],
        watts=found["watts"],
        device=found["device"],
        free_mib=found["free_mib"],
    )
