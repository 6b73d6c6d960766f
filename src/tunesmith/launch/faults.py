"""A fault for tests: TUNESMITH_FAULT="rank=1 step=3 above=256" kills rank 1 after step 3, as the system does where
memory runs out, while micro-batches have more than 256 tokens. Without the variable nothing of this runs.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "TUNESMITH_FAULT"
_armed: dict[str, int] = {}


def arm(rank: int, micro_batch_tokens: int) -> None:
    said = os.environ.get(VARIABLE, "")
    asked = {name: int(value) for name, _, value in (part.partition("=") for part in said.split())}
    if asked and asked["rank"] == rank and micro_batch_tokens > asked["above"]:
        _armed["step"] = asked["step"]


def meet(done: float, label: str) -> None:
    """Called with each line of progress."""
    if _armed and label == "train" and done == _armed["step"]:
        os.kill(os.getpid(), signal.SIGKILL)
