"""The formats by name, and the one function that writes them.

A row that a format cannot hold (an earlier turn in Alpaca, a tool call in ShareGPT) is refused with all
others like it, or listed in not_exported.jsonl where the caller says so; it is never bent into the shape.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.canonical import canonical_json, read_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.extras import need
from tunesmith.core.nouns import Row
from tunesmith.export.formats import records
from tunesmith.export.formats.records import Unfit

SPLITS = ("train", "validation", "test")
SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    what: str
    record: Callable[[Row, dict[str, Any]], dict[str, Any]]  # row, dataset.json -> one record; raises Unfit
    files: Literal["jsonl", "json", "parquet"]
    layout: str = "{split}"  # of the file's name, without its ending
    lacks: tuple[str, ...] = ("weights of rows", "origins", "further columns")  # said when the data has them


FORMATS: dict[str, Format] = {
    "openai": Format(what="OpenAI fine-tuning, chat or preference", record=records.openai, files="jsonl"),
    "sharegpt": Format(what="ShareGPT conversations", record=records.sharegpt, files="jsonl"),
    "alpaca": Format(what="Alpaca instructions", record=records.alpaca, files="jsonl"),
    "hf": Format(
        what="a folder for datasets.load_dataset, with its card",
        record=records.flat,
        files="parquet",
        layout="data/{split}-00000-of-00001",
        lacks=(),
    ),
    "parquet": Format(what="Parquet, one file a split", record=records.flat, files="parquet", lacks=()),
    "labelstudio": Format(what="Label Studio tasks with annotations", record=records.label_studio, files="json"),
    "argilla": Format(what="Argilla 2 records", record=records.argilla, files="json"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    folder: Path
    format: str
    rows: dict[str, int]  # by split
    not_exported: dict[str, int] = field(default_factory=dict)  # by reason; listed in not_exported.jsonl
    lacking: tuple[str, ...] = ()  # what the data has and this format no place for

    def __str__(self) -> str:
        counts = ", ".join(f"{n:,} {split}" for split, n in self.rows.items())
        lines = [f"{counts} rows as {FORMATS[self.format].what}, in {self.folder}"]
        if self.not_exported:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.not_exported.items())
            lines.append(f"not exported: {why}; listed in {self.folder / 'not_exported.jsonl'}")
        if self.lacking:
            lines.append(f"{self.format} has no place for {', '.join(self.lacking)}, which this data has")
        return "\n".join(lines)


def export_dataset(dataset: Path, dest: Path, *, to: str, card: str = "", unfit: str = "refuse") -> Exported:
    """Write `dataset` into the new folder `dest`. `card`: README.md of an `hf` folder.

    `unfit` "refuse" raises one DataError for all rows the format cannot hold; "leave_out" lists them.
    Raises InputError for an unknown format and a folder that is there already.
    """
    if to not in FORMATS:
        raise InputError(f"{to!r} is not a format", where="--to", fix=f"one of {', '.join(FORMATS)}")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise InputError("is there already", where=str(dest), fix="name a new folder with --out")
    form, facts = FORMATS[to], read_json(dataset / "dataset.json")
    partial = dest.with_name(f".{dest.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        refused: list[dict[str, Any]] = []
        had: set[str] = set()
        rows = {}
        for split in SPLITS:
            made = _records(dataset / f"{split}.jsonl", form, facts, refused, had, split)
            rows[split] = _write(partial, form, split, made, _columns(facts, dataset / f"{split}.jsonl"))
        if refused and unfit == "refuse":
            raise _refusal(refused, to)
        if refused:
            write_atomic(partial / "not_exported.jsonl", b"".join(canonical_json(r) + b"\n" for r in refused))
        if to == "hf":
            write_atomic(partial / "README.md", card.encode("utf-8"))
        if dest.exists():
            dest.rmdir()
        partial.rename(dest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    reasons = Counter(r["reason"] for r in refused)
    return Exported(
        folder=dest,
        format=to,
        rows=rows,
        not_exported=dict(sorted(reasons.items())),
        lacking=tuple(what for what in form.lacks if what in had),
    )


def _records(
    file: Path, form: Format, facts: dict[str, Any], refused: list[dict[str, Any]], had: set[str], split: str
) -> Iterator[dict[str, Any]]:
    for row in read_lines(file, Row):
        has = {"weights of rows": row.weight != 1, "origins": row.origin, "further columns": row.fields}
        had |= {what for what, there in has.items() if there}
        try:
            yield form.record(row, facts)
        except Unfit as e:
            refused.append({"split": split, "file": row.file, "line": row.line, "reason": e.reason})


def _write(folder: Path, form: Format, split: str, made: Iterator[dict[str, Any]], columns: list[str]) -> int:
    path = folder / f"{form.layout.format(split=split)}.{form.files}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if form.files == "parquet":
        return _write_parquet(path, made, columns)
    n = 0
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("[\n" if form.files == "json" else "")
        for record in made:
            joint = ",\n" if form.files == "json" and n else ""
            f.write(joint + json.dumps(record, ensure_ascii=False) + ("" if form.files == "json" else "\n"))
            n += 1
        f.write("\n]\n" if form.files == "json" else "")
    return n


def _write_parquet(path: Path, made: Iterator[dict[str, Any]], columns: list[str]) -> int:
    """One schema for every split, in pieces, so that no split is held whole."""
    pa = need("pyarrow", extra="tables", why="writing Parquet")
    parquet = need("pyarrow.parquet", extra="tables", why="writing Parquet")
    schema = pa.schema([(name, records.FLAT_TYPES.get(name, records.text_type)(pa)) for name in columns])
    n, batch = 0, []
    with parquet.ParquetWriter(path, schema) as writer:
        for record in made:
            batch.append({name: record.get(name) for name in columns})
            if len(batch) == 10_000:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                n, batch = n + len(batch), []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return n + len(batch)


def _columns(facts: dict[str, Any], file: Path) -> list[str]:
    """Of a Parquet file: the fixed ones, and what the data itself has, the same in every split."""
    further: set[str] = set()
    for split in SPLITS:
        for row in read_lines(file.parent / f"{split}.jsonl", Row):
            further |= {f"field_{name}" for name in row.fields}
    return [*records.FLAT, *sorted(further)]


def _refusal(refused: list[dict[str, Any]], to: str) -> DataError:
    problems = [
        Problem(where=f"{r['file']}:{r['line']}", what=f"does not fit into {to}: {r['reason']}")
        for r in refused[:SHOWN_PROBLEMS]
    ]
    what = f"{len(refused):,} rows do not fit into {to}"
    fix = "choose another format, or list them apart: --unfit leave_out"
    return DataError([*problems, Problem(where="", what=what, fix=fix)])
