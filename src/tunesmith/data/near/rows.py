"""The rows of an examples folder as near-duplicates see them: what is compared, and numbers; texts stay on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tunesmith.core.canonical import read_lines
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.near.shingles import Ints, Shingles, shingles
from tunesmith.data.step import EVERY
from tunesmith.data.times import when
from tunesmith.data.validate import answer_key, input_key

ONE_ANSWER = ("classify", "extract")  # kinds in which two answers to one question contradict each other


def asked(row: Row) -> str:
    """What a row asks: its turns but for the system prompt. A row without messages (domain) is its text."""
    return "\n".join(m.content for m in row.messages if m.role != "system") or row.target


def said(row: Row, kind: str) -> str:
    """What dedup compares: what a row asks, and the answer too where one question may have several."""
    return asked(row) if kind in ONE_ANSWER or not row.messages else f"{asked(row)}\n{row.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Of each of N rows, in order: numbers alone."""

    ask: Ints  # hash of the question, after normalisation
    answer: Ints  # hash of the answer
    file: Ints  # index into `files`
    line: Ints
    rank: Ints  # 0 is kept before 1, and so on
    files: tuple[str, ...]  # ascending
    at: Ints  # where the row's line starts in rows.jsonl
    path: Path

    def __len__(self) -> int:
        return len(self.line)

    def where(self, i: int) -> str:
        return f"{self.files[self.file[i]]}:{self.line[i]}"

    def rows(self, chosen: Ints) -> Iterator[Row]:
        """Some rows, read again from disk."""
        decode = msgspec.json.Decoder(Row).decode
        with open(self.path, "rb") as f:
            for i in chosen.tolist():
                f.seek(int(self.at[i]))
                yield decode(f.readline())


def survey(
    rows_file: Path,
    work: Workspace,
    *,
    kind: str,
    keep: str,
    newest_by: str | None,
    previous: Path | None = None,
) -> tuple[Known, Shingles]:
    """One pass over the rows: what is known of them, and their shingles. `keep` is the policy that ranks them; rows of the `previous` data set come before
    others, those of its test set first: a new copy must not take the place of a sealed row."""
    tiers = _tiers(previous)
    ask, answer, line, file, at = (array("q") for _ in range(5))
    merit = array("d")
    tier = array("b")
    names: dict[str, int] = {}
    total = max(rows_file.stat().st_size, 1)

    def texts() -> Iterator[str]:
        decode = msgspec.json.Decoder(Row).decode
        seen = 0
        with open(rows_file, "rb") as f:
            for n, raw in enumerate(f):
                row = decode(raw)
                if n % EVERY == 0:
                    work.stop_if_asked()
                    work.progress(seen, total, "near-duplicates: reading", rows=n)
                at.append(seen)
                seen += len(raw)
                ask.append(_number(input_key(row.messages, row.target)))
                answer.append(_number(answer_key(row.target)))
                line.append(row.line)
                file.append(names.setdefault(row.file, len(names)))
                text = said(row, kind)
                merit.append(_merit(row, text, keep, newest_by))
                tier.append(min(tiers.get(row.id, NEW), tiers.get(f"{row.file}:{row.line}", NEW)))
                yield text

    sets = shingles(texts())
    files = tuple(sorted(names))
    code = np.array([files.index(name) for name in names], np.int64)[np.array(file, np.int64)] if names else _ints(file)
    lines = _ints(line)
    order = np.lexsort((lines, code, -np.array(merit), np.array(tier, np.int8)))
    rank = np.empty(len(lines), np.int64)
    rank[order] = np.arange(len(lines))
    known = Known(ask=_ints(ask), answer=_ints(answer), file=code, line=lines, rank=rank, files=files, at=_ints(at),
                  path=rows_file)  # fmt: skip
    return known, sets


NEW = 2


def _tiers(previous: Path | None) -> dict[str, int]:
    """By id and by place, since later steps may have changed what a row says: 0 for the test set, 1 for the rest."""
    found: dict[str, int] = {}
    if previous is not None:
        for name, tier in (("train", 1), ("validation", 1), ("test", 0)):
            for row in read_lines(previous / f"{name}.jsonl", Row):
                found[row.id] = found[f"{row.file}:{row.line}"] = tier
    return found


def _ints(numbers: array[Any]) -> Ints:
    return np.array(numbers, np.int64)


def _number(digest: bytes) -> int:
    return int.from_bytes(blake2b(digest, digest_size=8).digest(), "big", signed=True)


def _merit(row: Row, text: str, keep: str, newest_by: str | None) -> float:
    """The higher, the sooner it is kept; what is equal is kept in order of file and line."""
    if keep == "longest":
        return len(text)
    if keep == "newest":
        moment = when(row.fields.get(newest_by or ""))
        return -np.inf if moment is None else moment
    if keep == "most_complete":
        return sum(value not in (None, "", [], {}) for value in row.fields.values())
    return 0.0
