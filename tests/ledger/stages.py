"""A small real stage and the ways tests call it: by hand, in a forked process, killed half-way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.nouns import Run
from tunesmith.core.stage import Stage, Workspace
from tunesmith.ledger.backup import backup
from tunesmith.ledger.execute import execute
from tunesmith.ledger.ledger import Ledger

hook: Callable[[Any, Any, Workspace], None] = lambda spec, inputs, work: None  # noqa: E731  (tests replace it)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatSpec:
    text: str
    times: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatInputs:
    source: Path
    hint: Path | None
    family: dict[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatOutputs:
    rows: Path = field(metadata={"kind": "dataset"})
    report: Path | None = field(metadata={"kind": "report"})


def repeat(spec: RepeatSpec, inputs: RepeatInputs, work: Workspace) -> RepeatOutputs:
    """Writes the source's text `times` times, one step each, saving its state after each step."""
    saved = work.state / "steps.json"
    steps = json.loads(saved.read_bytes()) if saved.exists() else 0
    work.keep_log_until(lambda record: record["step"] <= steps)
    hook(spec, inputs, work)
    for step in range(steps + 1, spec.times + 1):
        work.stop_if_asked()
        work.log(step=step)
        write(saved.with_suffix(".tmp"), str(step))
        saved.with_suffix(".tmp").replace(saved)
    source = (inputs.source / "rows.csv").read_text(encoding="utf-8")
    rows, report = work.scratch / "rows", work.scratch / "report"
    (rows / "parts").mkdir(parents=True)
    report.mkdir()
    write(rows / "parts" / "one.txt", (source + spec.text) * spec.times)
    write(rows / "two.txt", spec.text)
    write(report / "report.json", "{}")
    work.summarize(rows=spec.times)
    return RepeatOutputs(rows=rows, report=report if spec.seed >= 0 else None)


def write(path: Path, text: str) -> None:
    """Through `os`, where the fault tests make calls fail."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        left = memoryview(text.encode("utf-8"))
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


REPEAT = Stage(
    name="repeat",
    version=1,
    function="tests.ledger.stages:repeat",
    spec=RepeatSpec,
    inputs=RepeatInputs,
    outputs=RepeatOutputs,
)


def add_source(ledger: Ledger, text: str = "a,b\n1,2\n") -> str:
    folder = ledger.state.parent / "data"
    if not folder.exists():
        folder.mkdir()
    (folder / "rows.csv").write_text(text, encoding="utf-8")
    return ledger.add("source", folder, move=False).id


def run_repeat(ledger: Ledger, source: str, *, text: str = "x", times: int = 2, seed: int = 0, **options: Any) -> Run:
    spec = RepeatSpec(text=text, times=times, seed=seed)
    return execute(ledger, REPEAT, spec, {"source": source, "hint": None, "family": {"again": source}}, **options)


def journey(state: Path) -> Run:
    """A bit of everything the ledger does, ending in a backup beside it."""
    with Ledger.open(state) as ledger:
        run = run_repeat(ledger, add_source(ledger))
        ledger.path(run.outputs["rows"])
        ledger.note("look", {"n": 1})
        ledger.move_reference("prod", run.outputs["rows"], "passed")
        copy = state.parent / "backup"
        shutil.rmtree(copy, ignore_errors=True)
        backup(ledger, copy)
        return run


def in_child(action: Callable[[int], None]) -> tuple[int, int]:
    """Fork; the child runs `action(pipe)` and leaves. Returns its process id and the reading end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            action(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


def read_all(fd: int) -> str:
    with os.fdopen(fd, "rb") as f:
        return f.read().decode("utf-8", "replace")
