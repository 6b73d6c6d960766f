"""A rank: `python -m tunesmith.launch.worker <job.json>`, alone or under torchrun.

Progress goes to the parent as lines on what was the standard output; everything that libraries print there goes to
the log. The first rank of a machine writes files, the others write none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, plain, write_atomic
from tunesmith.core.errors import Stopped, TunesmithError
from tunesmith.core.stage import Stage, Workspace
from tunesmith.launch import faults, lifeline
from tunesmith.launch.job import ENDED, FOLDER, Ended, Failure, error_name, read_job

MARK = "\x1e"  # begins a line of progress
EVERY_S = 0.1  # between two lines of one label


class Follower(Workspace):
    """The workspace of a rank that writes no files: what it would say, the first rank says."""

    def log(self, **values: Any) -> None:
        """Nothing."""

    def keep_log_until(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Nothing."""


class Reports:
    """The progress sink of a worker."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._label, self._said = "", 0.0

    def __call__(self, done: float, total: float, label: str, **facts: Any) -> None:
        faults.meet(done, label)
        if label == self._label and time.monotonic() - self._said < EVERY_S and done < total:
            return
        self._label, self._said = label, time.monotonic()
        print(MARK + json.dumps(plain([done, total, label, facts])), file=self._pipe, flush=True)


def quiet(done: float, total: float, label: str, **facts: Any) -> None:
    faults.meet(done, label)


def main(job: Path) -> int:
    stop = threading.Event()
    lifeline.watch(stop.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    reports = Reports()
    folder = job.parent
    try:
        stage, spec, folders, exec, root = read_job(job)
        faults.arm(rank, exec.micro_batch_tokens)
        if local:
            work: Workspace = Follower(root=root, exec=exec, progress=quiet, stop=stop)
        else:
            work = Workspace(root=root, exec=exec, progress=reports, stop=stop)
        outputs = stage.resolve()(spec, folders, work)
    except Stopped:
        ended = Ended(stopped=True)
    except BaseException as e:
        _write_failure(folder, rank, e)
        return 1
    else:
        ended = Ended(outputs=_named(stage, outputs, work), summary=work.summary)
    if not local:
        write_atomic(folder / ENDED, canonical_json(ended))
    _leave()
    return 0


def _named(stage: Stage, outputs: Any, work: Workspace) -> dict[str, Any]:
    def said(made: Any) -> Any:
        if isinstance(made, Mapping):
            return {key: said(folder) for key, folder in made.items()}
        return None if made is None else str(made.relative_to(work.scratch))

    return {f.name: said(getattr(outputs, f.name)) for f in fields(stage.outputs)}


def _write_failure(folder: Path, rank: int, error: BaseException) -> None:
    failure = Failure(
        rank=rank,
        at=time.time(),
        error=error_name(error),
        problems=error.problems if isinstance(error, TunesmithError) else (),
        traceback="".join(traceback.format_exception(error)),
        out_of_memory=_is_out_of_memory(error),
    )
    traceback.print_exception(error)
    write_atomic(folder / f"error-{rank}.json", canonical_json(failure))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    from tunesmith.train.memory import is_out_of_memory  # late: it loads torch

    return is_out_of_memory(error)


def _leave() -> None:
    """Ranks that end together do not call each other dead."""
    if "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


if __name__ == "__main__":
    assert Path(sys.argv[1]).parent.name == FOLDER
    raise SystemExit(main(Path(sys.argv[1])))
