"""Run a stage once: the same stage, version, spec and inputs are answered from the ledger.

key → finished? → lock of the key → finished meanwhile? → workspace → stage → outputs into the
store → one transaction with artifacts, run and edges → workspace removed
"""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id, plain
from tunesmith.core.errors import InputError, Stopped, TunesmithError
from tunesmith.core.nouns import Artifact, Run
from tunesmith.core.stage import Clock, Exec, Stage, Workspace, no_progress
from tunesmith.ledger.environment import environment
from tunesmith.ledger.explain import DISK_ERRORS, disk_error, explained
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.objects import files_of
from tunesmith.ledger.records import now, run_fact, run_id

Inputs = Mapping[str, str | Mapping[str, str] | None]  # names of the stage's inputs → artifact ids
Perform = Callable[[Stage, Any, Any, Workspace], Any]  # (stage, spec, folders, work) -> outputs
ANNOUNCE_S = 5.0  # between two lines about a lock that is held elsewhere
NO_STOP = threading.Event()  # never set


def here(stage: Stage, spec: Any, folders: Any, work: Workspace) -> Any:
    """Perform a stage in this process."""
    return stage.resolve()(spec, folders, work)


def key_of(stage: Stage, spec: Any, inputs: Inputs) -> str:
    """What makes two runs the same work. Neither Exec nor the environment is part of it."""
    _check_names(stage, spec, inputs)
    return content_id({"stage": stage.name, "version": stage.version, "spec": spec, "inputs": inputs})


def execute(
    ledger: Ledger,
    stage: Stage,
    spec: Any,
    inputs: Inputs,
    *,
    exec: Exec | None = None,
    progress: Callable[..., None] = no_progress,
    stop: threading.Event = NO_STOP,
    perform: Perform = here,
) -> Run:
    """The finished run of this stage, spec and inputs; `reused` says that nothing had to be done.

    `perform` calls the stage function, in this process or in others; its outputs are under the workspace's scratch.

    Where another process makes the same result, waits for it, saying who that is, and reuses it.
    A stage that fails or is stopped leaves a run that says so, and its workspace, from which the
    next execution goes on. Raises what the stage raises; StorageError for any fault of the disk.
    """
    key = key_of(stage, spec, inputs)
    done = ledger.finished(key)
    if done is not None:
        return replace(done, reused=True)
    _check_known(ledger, inputs)
    lock = FileLock(ledger.locks / key, waiting=_waiting(stage, progress, stop))
    with lock:
        lock.sign()
        try:
            done = ledger.finished(key)
            if done is not None:
                return replace(done, reused=True)
            work = _workspace(ledger.work / key, exec, progress, stop)
            run = _perform(ledger, stage, spec, inputs, key, work, perform)
            shutil.rmtree(ledger.work / key, ignore_errors=True)  # what stays goes when the ledger is opened again
            return run
        finally:
            lock.release(remove=True)


def _check_names(stage: Stage, spec: Any, inputs: Inputs) -> None:
    if not isinstance(spec, stage.spec):
        raise TypeError(f"{stage.name} wants a {stage.spec.__name__}, not a {type(spec).__name__}")
    wanted = {f.name for f in fields(stage.inputs)}
    if set(inputs) != wanted:
        raise TypeError(f"{stage.name} wants the inputs {sorted(wanted)}, not {sorted(inputs)}")


def _check_known(ledger: Ledger, inputs: Inputs) -> None:
    for name, value in inputs.items():
        for id in value.values() if isinstance(value, Mapping) else [value]:
            if id is not None and ledger.records.artifact(id) is None:  # whole ids: a short one would be another key
                raise InputError(f"there is no artifact with the id {id}", where=name, fix="give the whole id")


def _waiting(stage: Stage, progress: Callable[..., None], stop: threading.Event) -> Callable[[dict[str, Any]], None]:
    """Called while another process holds the key's lock."""
    said = float("-inf")

    def say(holder: dict[str, Any]) -> None:
        nonlocal said
        if stop.is_set():
            raise Stopped(f"stopped while waiting for another process to finish {stage.name}")
        if holder and time.monotonic() - said > ANNOUNCE_S:
            said = time.monotonic()
            who = "process {pid} on {host} ({command}) is making it since {since}".format_map(
                {k: holder.get(k, "?") for k in ("pid", "host", "command", "since")}
            )
            progress(0.0, 1.0, f"waiting for {stage.name}: {who}", holder=holder)

    return say


def _workspace(root: Path, exec: Exec | None, progress: Callable[..., None], stop: threading.Event) -> Workspace:
    """What an earlier, killed execution saved is kept; what it had half-written is not."""
    with explained(root):
        if (root / "out").exists():
            shutil.rmtree(root / "out")
        work = Workspace(root=root, exec=exec or Exec(), progress=progress, stop=stop)
        if any(work.state.iterdir()):
            work.keep_log_until(lambda record: True)  # a torn last line; the stage cuts further back
        else:
            work.metrics_file.unlink(missing_ok=True)
    return work


def _perform(
    ledger: Ledger, stage: Stage, spec: Any, inputs: Inputs, key: str, work: Workspace, perform: Perform
) -> Run:
    clock = Clock()
    resumed = any(work.state.iterdir())
    begun = Run(
        id="",
        key=key,
        stage=stage.name,
        version=stage.version,
        spec=plain(spec),
        inputs=plain(inputs),
        outputs={},
        status="finished",
        started=now(),
        seconds=0.0,
        environment={**environment(), "seed": getattr(spec, "seed", None), "resumed": resumed},
    )

    def ended(**changes: Any) -> Run:
        whole = replace(begun, seconds=round(clock.seconds, 3), metrics=work.summary, **changes)
        return replace(whole, id=run_id(whole))

    try:
        with _disk_errors_explained(work.root):
            outputs = perform(stage, spec, stage.inputs(**_folders(ledger, inputs)), work)
            with ledger.objects.session() as session:
                made = {
                    name: ledger.store(session, kind, files_of(folder), move=True)
                    for name, (kind, folder) in _outputs(stage, outputs, work).items()
                }
                made |= _metrics(ledger, session, work)
                run = ended(outputs={name: artifact.id for name, artifact in made.items()})
                ledger.append_new(list(made.values()), run_fact(run))
    except (Stopped, KeyboardInterrupt):
        _record_end(ledger, ended(status="stopped"))
        raise
    except Exception as e:
        _record_end(ledger, ended(status="failed", error=summary_of(e)))
        raise
    return run


def _folders(ledger: Ledger, inputs: Inputs) -> dict[str, Any]:
    """The inputs as the stage sees them: verified folders."""

    def folder(value: str | Mapping[str, str] | None) -> Any:
        if isinstance(value, Mapping):
            return {name: ledger.path(id) for name, id in value.items()}
        return None if value is None else ledger.path(value)

    return {name: folder(value) for name, value in inputs.items()}


def _outputs(stage: Stage, outputs: Any, work: Workspace) -> dict[str, tuple[str, Path]]:
    """Name → (kind, folder). An output that is None was not made and is left out; one that is a family is its members."""
    if not isinstance(outputs, stage.outputs):
        raise TypeError(f"{stage.name} returned a {type(outputs).__name__}, not a {stage.outputs.__name__}")
    found: dict[str, tuple[str, Path]] = {}
    for f in fields(stage.outputs):
        made = getattr(outputs, f.name)
        family = {f"{f.name}-{key}": folder for key, folder in made.items()} if isinstance(made, Mapping) else {}
        for name, folder in family.items() if isinstance(made, Mapping) else [(f.name, made)]:
            if folder is None:
                continue
            if name == "metrics" or not folder.resolve().is_relative_to(work.scratch.resolve()):
                raise TypeError(f"{stage.name}: the output {name} is not a folder of its own under work.scratch")
            found[name] = (f.metadata["kind"], folder)
    return found


def _metrics(ledger: Ledger, session: Any, work: Workspace) -> dict[str, Artifact]:
    log = work.metrics_file
    if not log.exists() or not log.stat().st_size:
        return {}
    # copied: if what follows fails, the stage resumes, and its log must be whole
    return {"metrics": ledger.store(session, "metrics", {log.name: log}, move=False)}


@contextmanager
def _disk_errors_explained(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno in DISK_ERRORS:
            raise disk_error(e, where) from e
        raise


def _record_end(ledger: Ledger, run: Run) -> None:
    with suppress(TunesmithError):  # if the disk is the problem, what the stage raised says so, and is raised on
        ledger.append_new([], run_fact(run))


def summary_of(error: Exception) -> str:
    """What went wrong, without a word of the user's data: the ledger outlives it.

    Messages about rows and files quote them, so of those only the place is kept; of a mistake of
    ours the kind and the line of code.
    """
    name = type(error).__name__
    if isinstance(error, InputError):
        places = [p.where for p in error.problems if p.where]
        more = f" (+{len(places) - 10} more)" if len(places) > 10 else ""
        return f"{name}: {len(error.problems)} problems: {', '.join(places[:10])}{more}"
    if isinstance(error, TunesmithError):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else name
