"""A cell in a process of its own, so that its peak memory is its own and its end is not everybody's.

A kernel that is out of memory kills the child, and the matrix goes on with the next cell. Killed itself, the parent
leaves a child whose stdin has ended: it saves its state and goes.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from tunesmith.core.errors import Problem, Stopped, StorageError
from tunesmith.data.stages import SubsetSpec
from tunesmith.flows.context import Context
from tunesmith.flows.matrix.cell import CellRuns, order_of

PROGRAM = (sys.executable, "-m", "tunesmith.flows.matrix.cell")
LOOK_EVERY_S = 0.2  # for a wish to stop
TAIL = 2000  # characters of the child's stderr that are worth showing

Say = Callable[..., None]


class CellFailed(Exception):
    """One cell's end. The text is for the table: what, and what to do."""


def measured_apart(context: Context, subset: SubsetSpec | None, say: Say) -> CellRuns:
    """Raises CellFailed, Stopped, or StorageError, which would meet every other cell as well."""
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 (our own module, named here)
            PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
        )
        assert child.stdin and child.stdout
        try:
            last = _talk(child, child.stdin, child.stdout, order_of(context, subset), context.stop, say)
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            child.stdout.close()
        if "done" in last:
            ids = last["done"]
            return CellRuns(train=context.ledger.run(ids["train"]), answer=context.ledger.run(ids["answer"]))
        if "stopped" in last:
            raise Stopped("stopped; what was done is saved", fix="run the same command again to go on")
        if "failed" in last:
            problems = [Problem(**p) for p in last["failed"]]
            if last["fatal"]:
                raise StorageError(problems)
            raise CellFailed("; ".join(f"{p.what}{f' ({p.fix})' if p.fix else ''}" for p in problems))
        raise CellFailed(_silent_end(code, errors))


def _talk(
    child: subprocess.Popen[str],
    to: IO[str],
    from_: IO[str],
    order: dict[str, Any],
    stop: threading.Event,
    say: Say,
) -> dict[str, Any]:
    """Pass on progress until the child says its last word, and the wish to stop when there is one."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in from_:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    last: dict[str, Any] = {}
    try:
        to.write(json.dumps(order) + "\n")
        to.flush()
    except BrokenPipeError:
        stop_asked = True  # it has ended already; what it said tells why
    else:
        stop_asked = False
    while True:
        if stop.is_set() and not stop_asked:
            stop_asked = True
            _end_input(to)
        try:
            line = lines.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            continue
        if line is None:
            break
        try:
            message = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if "progress" in message:
            done, total, label, facts = message["progress"]
            say(done, total, label, **facts)
        else:
            last = message
    reader.join()
    _end_input(to)
    return last


def _end_input(to: IO[str]) -> None:
    try:
        to.close()
    except BrokenPipeError:
        return  # the child was faster


def _silent_end(code: int, errors: IO[bytes]) -> str:
    """What to say of a child that could not say anything."""
    if code == -signal.SIGKILL:
        return (
            "killed from outside, most likely by a system out of memory; it goes on from its last state"
            " (--set exec.micro_batch_tokens=1024 or exec.gradient_checkpointing=true needs less)"
        )
    errors.seek(0)
    tail = errors.read()[-TAIL:].decode("utf-8", errors="replace").strip().splitlines()
    why = f": {tail[-1]}" if tail else ""
    return f"ended with code {code} without a word{why}"
