"""Parquet, Arrow and Feather, and the folders that Hugging Face `datasets` writes of them: row after row.

A row's line is its number in the file, from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.extras import need
from tunesmith.data.formats.packed import whole_file
from tunesmith.data.formats.values import plain_value
from tunesmith.data.lines import BadRecord, FileFacts, Record

ROWS = 512  # turned into Python values at a time


def read_columns(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Raises DataError when the file is damaged, cut short, or lacks a shard that belongs to it."""
    pa = need("pyarrow", extra="tables", why=f"reading {facts.file}")
    _refuse_missing_shards(path, facts)
    with whole_file(path, facts) as whole:
        number = 0
        classes: dict[str, list[str]] = {}
        try:
            for batch in _batches(whole, facts):
                batch.validate(full=True)  # damaged offsets would otherwise be followed out of the file's memory
                names = batch.schema.names
                if not facts.columns:
                    _refuse_twice(names, facts)
                    facts.columns = [*names, *(["split"] if facts.split and "split" not in names else [])]
                    classes = _class_names(batch.schema, facts)
                for start in range(0, batch.num_rows, ROWS):
                    piece = batch.slice(start, ROWS)
                    columns = [
                        _values(pa, column, classes.get(n)) for n, column in zip(names, piece.columns, strict=True)
                    ]
                    for cells in zip(*columns, strict=True):
                        number += 1
                        fields = dict(zip(names, cells, strict=True))
                        if facts.split:
                            fields.setdefault("split", facts.split)
                        yield Record(line=number, fields=fields)
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as e:
            if isinstance(e, DataError):
                raise
            raise DataError(
                f"cannot be read: {_first_line(e)}", where=facts.file, fix="write or copy the file again"
            ) from e
        facts.lines, facts.read_bytes = number, facts.bytes


def _batches(path: Path, facts: FileFacts) -> Iterator[Any]:
    """Record batches; also of a file without rows, one empty batch that tells its columns."""
    pa = need("pyarrow", extra="tables")
    if facts.format == "parquet":
        parquet = need("pyarrow.parquet", extra="tables")
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
            yield from file.iter_batches(batch_size=ROWS)
        return
    ipc = need("pyarrow.ipc", extra="tables")
    with pa.memory_map(str(path)) as source:
        head = source.read(6)
        source.seek(0)
        if head[:4] == b"FEA1":
            raise DataError("is Feather of version 1", where=facts.file, fix="write it again with a newer pyarrow")
        if head == b"ARROW1":
            reader = ipc.open_file(source)
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
        else:
            stream = ipc.open_stream(source)
            yield pa.RecordBatch.from_pylist([], schema=stream.schema)
            yield from stream


def _values(pa: Any, column: Any, names: list[str] | None) -> list[Any]:
    kind = column.type
    if (pa.types.is_timestamp(kind) or pa.types.is_duration(kind)) and kind.unit == "ns":
        column = column.cast(pa.string() if pa.types.is_timestamp(kind) else pa.int64())  # finer than Python's own
    values = column.to_pylist()
    if names is not None:
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in values]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return values
    return [plain_value(v) for v in values]


def _refuse_twice(names: list[str], facts: FileFacts) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        what = f"has columns of one name: {', '.join(map(repr, twice))}"
        raise DataError(what, where=facts.file, fix="give every column a name of its own")


def _class_names(schema: Any, facts: FileFacts) -> dict[str, list[str]]:
    """The names that a `datasets` ClassLabel column declares for its numbers."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {
            column: [str(n) for n in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    facts.notes += [f"column {c!r} is read as the class names that the file declares for its numbers" for c in found]
    return found


def _refuse_missing_shards(path: Path, facts: FileFacts) -> None:
    """state.json lists the files that make up one saved table."""
    state = path.parent / "state.json"
    if facts.format != "arrow" or not state.is_file():
        return
    try:
        wanted = [f["filename"] for f in json.loads(state.read_bytes())["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return
    gone = [name for name in wanted if isinstance(name, str) and not (path.parent / Path(name).name).is_file()]
    if gone:
        raise DataError(
            f"{len(gone)} of the {len(wanted)} files of this data set are missing: {', '.join(gone[:5])}",
            where=facts.file,
            fix="name the whole folder under data.files",
        )


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]
