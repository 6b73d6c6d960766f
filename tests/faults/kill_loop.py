"""Run a project in forked children and SIGKILL them at random moments, then let one finish.

Forked after the heavy imports, so that a kill falls on the work and not on loading libraries.
Usage: kill_loop.py PROJECT KILLS SEED LONGEST_S; prints how many children were killed and how many ended first.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time


def child(project: str) -> None:
    from tunesmith.api import Project

    Project.open(project).run()
    os._exit(0)


def main() -> None:
    project, kills, seed, longest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    import peft
    import sklearn.linear_model
    import torch
    import transformers

    import tunesmith.evaluate.arms
    import tunesmith.train.recipes.sft  # noqa: F401

    assert peft and sklearn and transformers
    torch.set_num_threads(1)  # a forked child must not need threads that the parent had
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
