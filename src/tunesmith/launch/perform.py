"""The parent's side: who performs a stage, and what is said when that process dies.

    here        the usual case: this process
    a worker    exec.isolate: a process of its own, which the system may kill without taking the parent along
    ranks       exec.ranks > 1: torchrun starts them

Where memory ran out, the worker goes on from its last saved state with half the micro-batch, which changes no result.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import Stopped, TunesmithError
from tunesmith.core.stage import Stage, Workspace
from tunesmith.launch.check import refuse_spec
from tunesmith.launch.job import ENDED, FOLDER, JOB, LOG, RANKS, STAGES, Ended, Failure, error_of, write_job
from tunesmith.launch.memory import Death, explained, halved, killed_here, note, oom_kills
from tunesmith.launch.worker import MARK

POLL_S = 0.1  # how soon a wish to stop is passed on
GRACE_S = 20.0  # for processes to end whose parent has let go of them
TAIL = 2000  # characters of the log that an unexplained death shows
FITTING = "fitting.json"  # the micro-batch that memory was found to hold, for the next execution


@dataclass(frozen=True, kw_only=True)
class End:
    """How a worker, or the launcher of several, ended."""

    code: int  # its exit code; negative: the signal that killed it
    ended: Ended | None
    failures: tuple[Failure, ...]
    killed: dict[int, int]  # rank -> signal
    oom_kills: int  # processes that the system killed for memory meanwhile, as far as it says


def perform(stage: Stage, spec: Any, folders: Any, work: Workspace) -> Any:
    """The stage's outputs. Raises what the stage raises, wherever it ran."""
    if stage.name not in STAGES or not (work.exec.isolate or work.exec.ranks > 1):
        return stage.resolve()(spec, folders, work)
    refuse_spec(work.exec.engine, spec)
    exec, deaths = replace(work.exec, micro_batch_tokens=_fitting(work)), 0
    while True:
        end = _watched(stage, spec, folders, _with_exec(work, exec))
        if end.ended is not None and not end.ended.stopped and end.code == 0:
            return _outputs(stage, end.ended, work, deaths=deaths)
        if work.stop.is_set() or (end.ended is not None and end.ended.stopped):
            raise Stopped("stopped; what was done is saved", fix="run the same command again to go on")
        death = _death(end)
        if death is None:
            raise _error(end, work)
        smaller = halved(exec.micro_batch_tokens, spec, folders)
        if smaller is None:
            raise explained(death, exec.micro_batch_tokens, spec, folders)
        deaths += 1
        exec = replace(exec, micro_batch_tokens=smaller)
        _remember(work, smaller)
        work.progress(0, 1, f"{death.words}: smaller micro-batches", micro_batch_tokens=smaller)


def _with_exec(work: Workspace, exec: Any) -> Workspace:
    return Workspace(root=work.root, exec=exec, progress=work.progress, stop=work.stop, summary=work.summary)


def _watched(stage: Stage, spec: Any, folders: Any, work: Workspace) -> End:
    """Start the processes, pass on what they say and what is asked of them, and see them all gone."""
    folder = work.root / FOLDER
    for old in folder.glob("*.json"):
        if old.name != FITTING:
            old.unlink()
    shutil.rmtree(work.scratch, ignore_errors=True)  # what a killed worker had half-written
    work.scratch.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    write_job(folder / JOB, stage, spec, folders, work.exec, work.root)
    module = "worker" if work.exec.ranks == 1 else "torchrun"
    if work.exec.nodes > 1:  # until all are there nobody else says anything
        where = f"{work.exec.nodes} machines at {work.exec.rendezvous}"
        work.progress(0, 1, f"waiting for {where} (this is {work.exec.node_rank})")
    before = oom_kills()
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own module, arguments of ours)
            [sys.executable, "-m", f"tunesmith.launch.{module}", str(folder / JOB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is the parent's to pass on
            env=_environment(work),
        )
    try:
        _listen(process, work)
    finally:
        _let_go(process)
    return _end(process.returncode, folder, oom_kills() - before)


def _environment(work: Workspace) -> dict[str, str]:
    source = str(Path(__file__).parents[2])
    paths = [source, *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    if work.exec.nodes == 1 and work.exec.ranks > 1 and sys.platform == "linux":
        found.setdefault("GLOO_SOCKET_IFNAME", "lo")  # ranks of one machine talk over nothing that others can reach
    return found


def _listen(process: subprocess.Popen[bytes], work: Workspace) -> None:
    """Until the process has ended and said all, or was asked to stop before there was anything to save: while it waits
    for other machines."""
    assert process.stdin is not None and process.stdout is not None
    held, asked, begun = b"", False, work.exec.nodes == 1
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if work.stop.is_set() and not asked:
                if not begun:
                    return
                asked = True
                _write(process, b"s")
            if selector.select(POLL_S):
                some = os.read(process.stdout.fileno(), 1 << 16)
                if not some:
                    return _wait(process)
                *lines, held = (held + some).split(b"\n")
                for line in lines:
                    begun = _say(line, work) or begun
            elif process.poll() is not None:
                return  # ended, and silent: a process of its own that still holds the pipe is let go of


def _wait(process: subprocess.Popen[bytes]) -> None:
    """It has said its last; let it end by itself."""
    with suppress(subprocess.TimeoutExpired):  # then it is made to
        process.wait(GRACE_S)


def _say(line: bytes, work: Workspace) -> bool:
    """Pass on a line of progress; False for any other."""
    if not line.startswith(MARK.encode()):
        return False
    done, total, label, facts = json.loads(line[len(MARK.encode()) :])
    work.progress(done, total, label, **facts)
    return True


def _write(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended by itself
        os.write(process.stdin.fileno(), word)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the lifeline: whoever still holds its other end ends, and so no rank is left behind."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session, so nobody else's
        process.wait()
    process.stdout.close()


def _end(code: int, folder: Path, oom_kills: int) -> End:
    failures = [read_json(p, Failure) for p in folder.glob("error-*.json")]
    ranks = read_json(folder / RANKS, dict[int, int]) if (folder / RANKS).exists() else {}
    killed = {rank: -c for rank, c in ranks.items() if c < 0}
    if code < 0 and not killed:
        killed = {0: -code}
    return End(
        code=code,
        ended=read_json(folder / ENDED, Ended) if (folder / ENDED).exists() else None,
        failures=tuple(sorted(failures, key=lambda f: (not f.error, f.at))),
        killed=killed,
        oom_kills=oom_kills,
    )


def _death(end: End) -> Death | None:
    """A death for want of memory, certain or likely; None: the worker ended for another reason."""
    said = next((f for f in end.failures if f.out_of_memory), None)
    if said is not None:
        return Death(rank=said.rank, certain=True, by_system=False)
    rank = next((r for r, number in sorted(end.killed.items()) if number == signal.SIGKILL), None)
    return None if rank is None else killed_here(rank, end.oom_kills)


def _error(end: End, work: Workspace) -> Exception:
    """What to raise: the user's error as the stage raised it, or what is known of a death."""
    if end.failures and end.failures[0].error:
        return error_of(end.failures[0])
    log = work.root / FOLDER / LOG
    if end.failures:
        return WorkerFailed(f"rank {end.failures[0].rank} of the training failed:\n{end.failures[0].traceback}")
    tail = log.read_bytes()[-TAIL:].decode("utf-8", "replace") if log.exists() else ""
    if end.killed:
        rank, number = min(end.killed.items())
        what = f"rank {rank} of the training was ended by {signal.Signals(number).name}; what was done is saved"
        return TunesmithError(what, where=str(log), fix="run the same command again to go on; the log's end says more")
    return WorkerFailed(f"the training process ended with code {end.code} and said:\n{tail}")


class WorkerFailed(RuntimeError):
    """A mistake of ours in another process; the message holds its traceback."""


def _outputs(stage: Stage, ended: Ended, work: Workspace, *, deaths: int) -> Any:
    work.summary.update(ended.summary)
    if deaths or (work.root / FOLDER / FITTING).exists():
        notes = [*work.summary.get("notes", ()), note(_fitting(work))]
        work.summarize(notes=notes)

    def folder(at: Any) -> Any:
        if isinstance(at, Mapping):
            return {key: folder(one) for key, one in at.items()}
        return None if at is None else work.scratch / at

    return stage.outputs(**{name: folder(at) for name, at in ended.outputs.items()})


def _remember(work: Workspace, tokens: int) -> None:
    write_atomic(work.root / FOLDER / FITTING, canonical_json({"micro_batch_tokens": tokens}))


def _fitting(work: Workspace) -> int:
    """The micro-batch that is asked for, or the smaller one that memory was found to hold before."""
    try:
        found: int = read_json(work.root / FOLDER / FITTING, dict[str, int])["micro_batch_tokens"]
    except (OSError, msgspec.DecodeError, KeyError):
        return work.exec.micro_batch_tokens
    return min(found, work.exec.micro_batch_tokens)
