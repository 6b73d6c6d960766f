"""Rows and the stage clean, for the tests of this package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, read_json, read_lines, write_lines
from tunesmith.core.nouns import Change, Example, LeftOut, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.clean.clean import clean
from tunesmith.data.clean.stages import CleanInputs, CleanSpec


def clean_spec(*steps: Any, **changes: Any) -> CleanSpec:
    usual: dict[str, Any] = {
        "kind": "instruct",
        "steps": steps,
        "fields": ("input",),
        "boilerplate_rows": 3,
        "boilerplate_share": 0.0,
        "boilerplate_unit": "line",
        "restored": (),
    }
    return CleanSpec(**{**usual, **changes})


def row(line: int, *turns: str, target: str = "answer", roles: Iterable[str] = ()) -> Row:
    names = list(roles) or ["user"] * len(turns)
    messages = tuple(Message(role=r, content=t) for r, t in zip(names, turns, strict=True))  # type: ignore[arg-type]
    id = Example(messages=messages, target=target).id
    return Row(id=id, messages=messages, target=target, file="rows.jsonl", line=line, group=id)


def examples(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir(parents=True)
    write_lines(folder / "rows.jsonl", rows)
    write_lines(folder / "left_out.jsonl", [LeftOut(file="rows.jsonl", line=999, reason="ragged")])
    (folder / "check.json").write_bytes(canonical_json({"kept": len(rows)}) + b"\n")
    return folder


class Cleaned:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = list(read_lines(folder / "rows.jsonl", Row))
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))
        self.changes: list[Change] = list(read_lines(folder / "changes.jsonl", Change))
        self.facts = read_json(folder / "clean.json")
        self.steps = {s["name"]: s for s in self.facts["steps"]}

    @property
    def texts(self) -> list[str]:
        return [r.example.input for r in self.rows]


def run_clean(root: Path, rows: list[Row] | Path, spec: CleanSpec) -> Cleaned:
    folder = rows if isinstance(rows, Path) else examples(root / "examples", rows)
    return Cleaned(clean(spec, CleanInputs(examples=folder), Workspace(root=root / "work")).examples)
