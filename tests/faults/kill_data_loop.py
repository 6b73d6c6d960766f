"""Run the data steps of a project in forked children and SIGKILL them at random moments.

Usage: kill_data_loop.py PROJECT KILLS SEED LONGEST_S; prints how many children were killed and how many ended first.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time


def child(project: str) -> None:
    from tunesmith.api import Project

    Project.open(project).data.augment()
    os._exit(0)


def main() -> None:
    project, kills, seed, longest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    import sklearn.linear_model

    import tunesmith.data.audit.audit
    import tunesmith.data.augment.augment
    import tunesmith.data.near.dedup  # noqa: F401

    assert sklearn
    rng = random.Random(seed)
    killed = ended = 0
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            child(project)
        deadline = time.monotonic() + rng.uniform(0.02, longest)
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
                break
            time.sleep(0.005)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            killed += 1
            continue
        ended += 1
    print(killed, ended)


if __name__ == "__main__":
    main()
