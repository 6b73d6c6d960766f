"""Answers to a whole file, in batches, written so that a kill costs at most one batch.

    predict(bundle, prompts)                 an iterator of answers, in order
    predict_file(bundle, source, out, ...)   the same into a CSV beside its input columns; resumes

Row k of the output belongs to row k of the input, so what is finished is counted, not searched. A side
file names the input's hash and the bundle: an output of another input is refused, never mixed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import DataError, InputError, Stopped, StorageError
from tunesmith.core.nouns import Answer, Message
from tunesmith.core.stage import no_progress
from tunesmith.serve.ask import answer_all, too_long
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.table import Table, check_table, csv_line, whole_records

BATCH_ROWS = 32  # answered and written together


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What predict_file did."""

    out: Path
    rows: int
    reused: int  # rows that an earlier, interrupted run had written
    columns: tuple[str, ...]


def predict(
    bundle: LoadedBundle, prompts: Iterable[Sequence[Message]], *, batch_rows: int = BATCH_ROWS
) -> Iterator[Answer]:
    """Answers in the order of the prompts; at most `batch_rows` of them are in memory."""
    rest = iter(prompts)
    while batch := list(islice(rest, batch_rows)):
        yield from answer_all(bundle, batch)


def predict_file(
    bundle: LoadedBundle,
    source: Path,
    out: Path,
    *,
    text: str | None,
    progress: Callable[..., None] = no_progress,
    stop: threading.Event | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Predicted:
    """Answer every row of a CSV, TSV or JSONL file; `text` is its text column (None: told
    from the columns, as for training data).

    The output is CSV (tab-separated where `out` ends in .tsv): the answer, its confidence, then all input
    columns. Raises DataError for the rows that can't be answered, before any work; InputError when `out`
    belongs to another input, bundle or column; Stopped after `stop` is set, with finished rows kept.
    """
    if out.suffix.lower() not in (".csv", ".tsv"):
        raise InputError("the output is a CSV or TSV file", where=str(out), fix=f"name it {out.stem}.csv")
    if out.exists() and out.samefile(source):
        raise InputError("input and output are the same file", where=str(out), fix="give another --out")
    table = check_table(source, text, lambda messages: _why_not(bundle, messages))
    answer_column = "label" if bundle.scores_labels else "answer"
    header = _header(answer_column, table.columns)
    delimiter = "\t" if out.suffix.lower() == ".tsv" else ","
    reused = _resume(out, {"input": table.sha256, "bundle": bundle.id, "text": text, "columns": list(header)})
    if reused < 0:
        _append(out, [csv_line(list(header), delimiter=delimiter)])
        reused = 0
    done = reused
    rows = islice(table.read(), reused, None)
    while batch := list(islice(rows, batch_rows)):
        if stop is not None and stop.is_set():
            raise Stopped(
                f"stopped; {done} of {table.rows} rows are written", fix="run the same command again to go on"
            )
        answers = answer_all(bundle, [row.messages for row in batch])
        _append(
            out,
            [
                csv_line([a.text, _confidence(a), *(row.cells.get(c, "") for c in table.columns)], delimiter=delimiter)
                for row, a in zip(batch, answers, strict=True)
            ],
        )
        done += len(batch)
        progress(done, table.rows, "predict")
    return Predicted(out=out, rows=table.rows, reused=reused, columns=header)


def _why_not(bundle: LoadedBundle, messages: Sequence[Message]) -> str:
    try:
        return too_long(bundle, messages)
    except DataError as e:
        return e.problems[0].what


def _header(answer_column: str, columns: Sequence[str]) -> tuple[str, ...]:
    """An input column with the name of one of ours is renamed: `label` becomes `input_label`."""
    taken = [answer_column, "confidence"]
    for column in columns:
        name = column
        while name in taken:
            name = f"input_{name}"
        taken.append(name)
    return tuple(taken)


def _confidence(answer: Answer) -> str:
    return "" if answer.confidence is None else f"{answer.confidence:.6f}"


def side_file(out: Path) -> Path:
    return out.with_name(out.name + ".tunesmith.json")


def _resume(out: Path, facts: dict[str, Any]) -> int:
    """Finished rows of an earlier run, a torn last line cut off; -1 where the header is still to be written."""
    side = side_file(out)
    if not side.exists():
        if out.exists():
            raise InputError(
                "the file exists and was not written by predict", where=str(out), fix="remove it or give another --out"
            )
        write_atomic(side, canonical_json(facts) + b"\n")
        return -1
    try:
        before = read_json(side)
    except ValueError as e:
        raise InputError("the side file is damaged", where=str(side), fix=f"remove it and {out.name}") from e
    names = {"input": "input file", "bundle": "bundle", "text": "text column", "columns": "columns"}
    changed = [names[k] for k in names if not isinstance(before, dict) or before.get(k) != facts[k]]
    if changed:
        raise InputError(
            f"the answers in it are of another {' and '.join(changed)}",
            where=str(out),
            fix=f"give another --out, or remove {out.name} and {side.name} to begin anew",
        )
    if not out.exists():
        return -1
    records, end = whole_records(out)
    if end < out.stat().st_size:
        with open(out, "r+b") as f:
            f.truncate(end)
            os.fsync(f.fileno())
    return records - 1  # the header is a record


def _append(out: Path, lines: list[bytes]) -> None:
    """On disk when it returns."""
    try:
        with open(out, "ab") as f:
            f.write(b"".join(lines))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise StorageError(
            f"could not write: {e.strerror}", where=str(out), fix="free space and run the same command again"
        ) from e


__all__ = ["Predicted", "Table", "predict", "predict_file", "side_file"]
