"""Which engine shares this training among ranks."""

from __future__ import annotations

from tunesmith.core.stage import Exec
from tunesmith.train.parallel.world import ALONE, World


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
