"""What a worker is told and what it says at its end: canonical JSON files in the workspace, decoded strictly.

<workspace>/launch/job.json          written by the parent
<workspace>/launch/ended.json        by the first rank of the machine: outputs and summary, or that it was stopped
<workspace>/launch/error-<rank>.json by a rank that failed
<workspace>/launch/ranks.json        by the launcher of several ranks: their exit codes, where one failed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core import errors
from tunesmith.core.canonical import canonical_json, plain, write_atomic
from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.core.stage import Exec, Stage
from tunesmith.train.domain_stages import DOMAIN
from tunesmith.train.stages import SFT

STAGES: dict[str, Stage] = {s.name: s for s in (SFT, DOMAIN)}  # those that a worker may perform
FOLDER = "launch"  # in a workspace
JOB, ENDED, RANKS, LOG = "job.json", "ended.json", "ranks.json", "worker.log"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage for one workspace."""

    stage: str
    spec: Any
    inputs: Mapping[str, Any]  # folders by input name
    exec: Exec
    root: str  # of the workspace


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a stage ended well, or at a stop that was asked for."""

    outputs: Mapping[str, Any] = field(
        default_factory=dict
    )  # folders, and families of them, under the workspace's scratch
    summary: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a rank failed."""

    rank: int
    at: float  # seconds since the epoch
    error: str  # the name of a class in core/errors.py; "" for a mistake of ours
    problems: tuple[Problem, ...]
    traceback: str
    out_of_memory: bool = False


def write_job(path: Path, stage: Stage, spec: Any, folders: Any, exec: Exec, root: Path) -> None:
    inputs = {f.name: plain(getattr(folders, f.name)) for f in fields(stage.inputs)}
    job = Job(stage=stage.name, spec=plain(spec), inputs=inputs, exec=exec, root=str(root))
    write_atomic(path, canonical_json(job))


def read_job(path: Path) -> tuple[Stage, Any, Any, Exec, Path]:
    """(stage, spec, folders, exec, workspace). Raises ValueError where something would be read otherwise than it
    was written: a worker must train what its parent's key says."""
    job = msgspec.json.decode(path.read_bytes(), type=Job)
    stage = STAGES[job.stage]
    spec: Any = msgspec.convert(job.spec, type=stage.spec)
    if canonical_json(spec) != canonical_json(job.spec):
        raise ValueError(f"{path}: the spec of {stage.name} does not survive being written down")
    if set(job.inputs) != {f.name for f in fields(stage.inputs)}:
        raise ValueError(f"{path}: {stage.name} wants other inputs than {sorted(job.inputs)}")
    folders = stage.inputs(**{name: _folder(value) for name, value in job.inputs.items()})
    return stage, spec, folders, job.exec, Path(job.root)


def _folder(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: Path(folder) for name, folder in value.items()}
    return None if value is None else Path(value)


def error_of(failure: Failure) -> TunesmithError:
    """The error as it was raised in the rank."""
    kind = getattr(errors, failure.error)
    assert issubclass(kind, TunesmithError)
    return kind(failure.problems)


def error_name(error: BaseException) -> str:
    """The class in core/errors.py that an error is, or is a kind of; "" for a mistake of ours."""
    return next((c.__name__ for c in type(error).__mro__ if c.__module__ == errors.__name__), "")
