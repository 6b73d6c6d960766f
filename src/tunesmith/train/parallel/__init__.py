"""One training on several ranks: each takes whole examples of every batch, and the sum of all is one process's.

In comes an Exec and the variables that torchrun sets; out goes a World, whose methods a recipe calls where ranks must
agree. Read world.py first (one process, and what every engine must do), then ddp.py, fsdp2.py and zero.py.
"""

from __future__ import annotations

from tunesmith.core.stage import Exec
from tunesmith.train.parallel.world import ALONE, World

__all__ = ["ALONE", "World", "join"]


def join(exec: Exec) -> World:
    """This rank's place among all of them. Raises RuntimeError where they were not started as `exec` says."""
    if exec.engine == "single":
        return ALONE
    from tunesmith.train.parallel.ranks import connect

    connect(exec)
    if exec.engine == "ddp":
        from tunesmith.train.parallel.ddp import Ddp

        return Ddp(exec)
    if exec.engine == "fsdp2":
        from tunesmith.train.parallel.fsdp2 import Fsdp2

        return Fsdp2(exec)
    from tunesmith.train.parallel.zero import Zero

    return Zero(exec)
