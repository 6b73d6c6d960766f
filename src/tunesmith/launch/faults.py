"""Faults for tests. Without the variable nothing of this runs.

TUNESMITH_FAULT="rank=1 step=3 above=256"           kills rank 1 after step 3, as the system does where memory runs out,
                                                    while micro-batches have more than 256 tokens
TUNESMITH_FAULT="rank=1 step=3 above=0 room=200"    from then on its address space may grow by 200 MiB: a real limit
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

VARIABLE = "TUNESMITH_FAULT"
_armed: dict[str, int] = {}


def arm(rank: int, micro_batch_tokens: int) -> None:
    said = os.environ.get(VARIABLE, "")
    asked = {name: int(value) for name, _, value in (part.partition("=") for part in said.split())}
    if asked and asked["rank"] == rank and micro_batch_tokens > asked["above"]:
        _armed.update(asked)


def meet(done: float, label: str) -> None:
    """Called with each line of progress."""
    if not _armed or label != "train" or done != _armed["step"]:
        return
    if "room" not in _armed:
        os.kill(os.getpid(), signal.SIGKILL)
    _limit(_armed["room"])


def _limit(room: int) -> None:
    """MiB by which the address space may still grow."""
    import resource  # late: Windows has none

    taken = re.search(r"^VmSize:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert taken is not None
    limit = (int(taken[1]) << 10) + (room << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
