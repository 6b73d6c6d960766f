"""Raw files, specs and stages for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.check import check
from tunesmith.data.lines import BadRecord, FileFacts, Record
from tunesmith.data.prepare import prepare
from tunesmith.data.read import facts_of, read_file
from tunesmith.data.stages import CheckInputs, CheckSpec, PrepareInputs, PrepareSpec


def check_spec(**changes: Any) -> CheckSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "text": None,
        "label": None,
        "group": None,
        "shape": None,
        "query": None,
        "sheet": None,
        "keep": (),
        "labels": (),
        "weight": None,
        "variants": {},
        "unlabelled": "refuse",
        "forgotten": (),
        "bad_rows": "refuse",
        "duplicates": "leave_out",
        "contradictions": "refuse",
        "min_class_rows": 1,
        "restored": (),
    }
    return CheckSpec(**{**usual, **changes})


def prepare_spec(**changes: Any) -> PrepareSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "labels": (),
        "train": 0.8,
        "validation": 0.1,
        "test": 0.1,
        "by": "random",
        "near": 0.0,
        "time_field": None,
        "field": None,
        "test_values": (),
        "folds": 5,
        "fold": 0,
        "restored": (),
        "salt": "",
        "max_deviation": 0.05,
        "small_classes": "refuse",
        "min_class_rows": 1,
        "limit": None,
        "seed": 0,
        "max_tokens": 512,
        "over_long": "refuse",
        "system": "Answer.",
    }
    return PrepareSpec(**{**usual, **changes})


def source(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body if isinstance(body, bytes) else body.encode("utf-8"))
    return folder


class Checked:
    """What the stage check wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_json(folder / "check.json")
        self.rows: list[Row] = list(read_lines(folder / "rows.jsonl", Row))
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))

    @property
    def findings(self) -> str:
        return "\n".join(f"{f['where']}: {f['what']}" for f in self.facts["findings"])


def run_check(root: Path, files: dict[str, bytes | str], **changes: Any) -> Checked:
    inputs = CheckInputs(source=source(root / "source", files))
    return Checked(check(check_spec(**changes), inputs, Workspace(root=root / "work")).examples)


class Prepared:
    """What the stage prepare wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_json(folder / "dataset.json")
        self.splits: dict[str, list[Row]] = {
            name: list(read_lines(folder / f"{name}.jsonl", Row)) for name in ("train", "validation", "test")
        }
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))


def run_prepare(root: Path, examples: Path, base: Path, *, previous: Path | None = None, **changes: Any) -> Prepared:
    inputs = PrepareInputs(examples=examples, base=base, previous=previous)
    return Prepared(prepare(prepare_spec(**changes), inputs, Workspace(root=root)).dataset)


def read_all(path: Path) -> tuple[list[Record], list[BadRecord], FileFacts]:
    facts = facts_of(path)
    good: list[Record] = []
    bad: list[BadRecord] = []
    for record in read_file(path, facts):
        if isinstance(record, Record):
            good.append(record)
        else:
            bad.append(record)
    return good, bad, facts


def table(rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> str:
    return "".join("\t".join(row) + "\n" for row in (header, *rows))


def jsonl(records: Iterable[Any]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


def two_classes(n: int) -> list[tuple[str, str]]:
    return [(f"text number {i}", "odd" if i % 2 else "even") for i in range(n)]
