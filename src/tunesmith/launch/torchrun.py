"""torchrun for one machine's ranks: `python -m tunesmith.launch.torchrun <job.json>`.

It is torch's own launcher with two things added: it ends with its parent, and it writes down how ranks ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.launch import lifeline
from tunesmith.launch.job import RANKS, read_job


def main(job: Path) -> int:
    lifeline.watch(lambda: None)
    *_, exec, _ = read_job(job)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    where = ["--standalone", "--local-addr", "127.0.0.1"]
    if exec.nodes > 1:
        where = ["--rdzv-backend", "static", "--rdzv-endpoint", exec.rendezvous, "--node-rank", str(exec.node_rank)]
    ranks = ["--nnodes", str(exec.nodes), "--nproc-per-node", str(exec.processes), "--max-restarts", "0"]
    try:
        run.main([*where, *ranks, "-m", "tunesmith.launch.worker", str(job)])
    except ChildFailedError as e:
        write_atomic(job.parent / RANKS, canonical_json({str(rank): f.exitcode for rank, f in e.failures.items()}))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
