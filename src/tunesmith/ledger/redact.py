"""A stored text file without what was asked to be forgotten; everything else in it stays byte for byte.

JSON lines of ours     the line goes; in files about a model (answers, reports) only the strings
JSON documents         every string that holds it becomes "[forgotten]"
the user's own files   a record's physical lines become blank, so that every other line keeps its number
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, BinaryIO

from tunesmith.core.canonical import canonical_json
from tunesmith.ledger.records_of import Form, Piece, blanked, delimiter_of, pieces, strings_of, windows
from tunesmith.ledger.sought import GONE, Sought, folded, longest, strings_in, values_in

SHOWN_LINES = 20
HELD = 32 << 20  # bytes of a plain text looked at together
KEPT_FACTS = frozenset({"id", "queue", "annotator", "verb", "at", "kind", "name", "target", "seconds"})
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def nowhere(file: str, line: int) -> bool:
    """Records that refer to no file of the user."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one stored file stands to what is sought."""

    rows: bool = True  # its lines are rows, or say what became of one: a line that holds a text goes whole
    keeps_lines: bool = False  # others refer to its line numbers
    lines: frozenset[int] = frozenset()  # sought places in this very file
    is_one_record: bool = False
    referred: frozenset[int] = frozenset()  # line numbers of sought places in the files its records refer to
    refers: Callable[[str, int], bool] = nowhere  # is (file, line), as a record of this file says it, such a place?


@dataclass(slots=True)
class Result:
    count: int = 0  # records, lines or strings that held it
    lines: list[int] = field(default_factory=list)  # where, as physical lines; the first SHOWN_LINES
    all_lines: list[int] = field(default_factory=list)  # every one of them, where it was asked to keep them
    records: list[dict[str, Any]] = field(default_factory=list)  # the same: those that go whole

    def add(self, line: int, record: Any = None, *, keep: bool = False) -> None:
        self.count += 1
        if len(self.lines) < SHOWN_LINES:
            self.lines.append(line)
        if keep:
            self.all_lines.append(line)
        if keep and isinstance(record, dict):
            self.records.append(record)


def redact(
    form: Form, source: BinaryIO, target: BinaryIO | None, sought: Sought, standing: Standing, *, keep: bool = False
) -> Result:
    """Write `source` to `target` without what is sought; without a target only look. `keep`: return the records
    that go. Not for opaque files. The sources are read twice where records are blanked."""
    if form == "jsonl" and not standing.keeps_lines:
        return _json_lines(source, target, sought, standing, keep)
    if form == "json":
        return _document(source, target, sought, standing, keep)
    found = Result()
    blank: set[int] = set()
    for piece in _hits(form, source, sought, standing):
        if piece.line not in blank:
            found.add(piece.line, keep=keep)
        blank.update(range(piece.line, piece.line + piece.lines))
    if target is not None and blank:
        source.seek(0)
        for number, raw in enumerate(source, 1):
            target.write(blanked(raw) if number in blank else raw)
    return found


def about(value: dict[str, Any], sought: Sought, standing: Standing) -> bool:
    """A record of a forgotten row: by its id, or by the place it says it comes from."""
    ids = (value.get("id"), value.get("item"), value.get("row"))
    if any(isinstance(id, str) and id in sought.ids for id in ids):
        return True
    file, line = value.get("file"), value.get("line")
    return isinstance(file, str) and isinstance(line, int) and line in standing.referred and standing.refers(file, line)


def replaced(value: Any, sought: Sought, standing: Standing) -> tuple[Any, int]:
    """A JSON value with every string that holds it replaced, and how many those were."""
    if isinstance(value, str):
        if value in sought.ids:
            return sought.token(value), 1
        return (GONE, 1) if sought.in_text(value) or sought.is_cut(value) else (value, 0)
    if isinstance(value, list):
        done = [replaced(inner, sought, standing) for inner in value]
        return [v for v, _ in done], sum(n for _, n in done)
    if not isinstance(value, dict):
        return value, 0
    if about(value, sought, standing):
        return wiped(value, sought), 1
    new: dict[str, Any] = {}
    count = 0
    for key, inner in value.items():
        new_value, n = replaced(inner, sought, standing)
        if key in sought.ids:
            key, n = sought.token(key), n + 1
        elif sought.in_text(key):
            key, n = _free(GONE, new), n + 1
        new[key] = new_value
        count += n
    return new, count


def wiped(value: Any, sought: Sought, keep: frozenset[str] = frozenset()) -> Any:
    """The same shape without a word. `keep`: fields that say nothing of the content."""
    if isinstance(value, dict):
        return {k: _kept(v, sought) if k in keep else wiped(v, sought) for k, v in value.items()}
    if isinstance(value, list):
        return [wiped(inner, sought) for inner in value]
    if isinstance(value, str):
        return sought.token(value) if value in sought.ids else GONE
    return value


def wiped_fact(value: dict[str, Any], sought: Sought) -> dict[str, Any]:
    """A judgment of a forgotten row: who judged which item stays, what they wrote goes."""
    return {k: v if k == "id" else w for (k, v), w in zip(value.items(), wiped(value, sought, KEPT_FACTS).values(), strict=True)}  # fmt: skip


def _kept(value: Any, sought: Sought) -> Any:
    return GONE if isinstance(value, str) and sought.in_text(value) else value


def _free(name: str, taken: dict[str, Any]) -> str:
    return next(n for n in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _json_lines(source: BinaryIO, target: BinaryIO | None, sought: Sought, standing: Standing, keep: bool) -> Result:
    found = Result()
    quick = sought.filter(standing.referred)
    for number, raw in enumerate(source, 1):
        if number in standing.lines:
            found.add(number, _parsed(raw), keep=keep)
            continue
        if not quick.may_hold(raw):
            if target is not None:
                target.write(raw)
            continue
        value = _parsed(raw)
        if value is None or (isinstance(value, dict) and about(value, sought, standing)):
            goes = value is not None or sought.in_text(raw.decode("utf-8", "replace"))
        else:
            goes = standing.rows and sought.in_strings([*strings_in(value), *values_in(value)])
        if goes:
            found.add(number, value, keep=keep)
            continue
        new, count = replaced(value, sought, standing) if value is not None else (None, 0)
        if count:
            found.add(number)
        if target is not None:
            target.write(written_like(new, raw) if count else raw)
    return found


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def written_like(value: Any, like: bytes) -> bytes:
    """JSON in the manner of the file it replaces."""
    if b"\n" in like.strip():
        text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        text = canonical_json(value)
    return text + (b"\n" if like.endswith(b"\n") else b"")


def _document(source: BinaryIO, target: BinaryIO | None, sought: Sought, standing: Standing, keep: bool) -> Result:
    raw = source.read()
    found = Result()
    value = _parsed(raw)
    if standing.keeps_lines or value is None:
        text = raw.decode("utf-8", "surrogateescape")
        new_text = _literals(_records(text, sought, standing, found, keep), sought, found, keep)
        new = new_text.encode("utf-8", "surrogateescape")
    else:
        value, found.count = replaced(value, sought, standing)
        new = written_like(value, raw) if found.count else raw
    if target is not None and found.count:
        target.write(new)
    return found


def _records(text: str, sought: Sought, standing: Standing, found: Result, keep: bool) -> str:
    """Records of a list at sought places, or that hold a text across their fields, are emptied."""
    out, done = [], 0
    for start, end, value in _list_items(text):
        line = text.count("\n", 0, start) + 1 if standing.lines or sought.phrases or sought.wholes else 0
        if line in standing.lines or (isinstance(value, dict) and sought.in_strings(values_in(value))):
            found.add(line, keep=keep)
            empty = json.dumps(_emptied(value), ensure_ascii=False)
            out += [text[done:start], empty, "\n" * text.count("\n", start, end)]
            done = end
    return "".join([*out, text[done:]])


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _emptied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_emptied(v) for v in value]
    return GONE if isinstance(value, str) else None


def _list_items(text: str) -> Iterator[tuple[int, int, Any]]:
    """(start, end, value) of the records of the first list in a document."""
    decoder = json.JSONDecoder()
    space = re.compile(r"[\s,]*")
    at = text.find("[")
    first = text.find("{")
    if at < 0 or (0 <= first < at and not re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[', text[first : at + 1])):
        return
    at += 1
    while True:
        at = space.match(text, at).end()  # type: ignore[union-attr]
        if at >= len(text) or text[at] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield at, end, value
        at = end


def _literals(text: str, sought: Sought, found: Result, keep: bool) -> str:
    def put(match: re.Match[str]) -> str:
        try:
            said = json.loads(match.group())
        except ValueError:
            said = match.group()[1:-1]
        if not sought.in_text(said):
            return match.group()
        found.add(text.count("\n", 0, match.start()) + 1, keep=keep)
        return json.dumps(GONE)

    return _LITERAL.sub(put, text)


def _hits(form: Form, source: BinaryIO, sought: Sought, standing: Standing) -> Iterator[Piece]:
    """The records and lines that hold it."""
    if standing.is_one_record and standing.lines:
        yield from pieces("mail", source)
        return
    if form in ("text", "html"):
        yield from (Piece(n, 1, b"") for n in sorted(_text_hits(form, source, sought) | standing.lines))
        return
    delimiter = delimiter_of(source) if form == "table" else ","
    quick = sought.filter(frozenset())
    for piece in pieces(form, source):
        if not standing.lines.isdisjoint(range(piece.line, piece.line + piece.lines)):
            yield piece
        elif form in ("mbox", "mail") or quick.may_hold(piece.raw):
            strings = strings_of(form, piece.raw, delimiter)
            if sought.in_strings(strings) or (form == "jsonl" and not sought.ids.isdisjoint(strings)):
                yield piece


def _text_hits(form: Form, source: BinaryIO, sought: Sought) -> set[int]:
    """Physical lines on which, or across which, a phrase stands."""
    hits: set[int] = set()
    for first, lines, _ in windows(source, bytes_held=max(HELD, 8 * longest(sought.phrases))):
        variants = [strings_of(form, raw) for raw in lines]
        for i in range(max((len(v) for v in variants), default=0)):
            hits |= {first + n for n in _spread([v[i] for v in variants], sought)}
        ids = sought.ids
        if ids:
            hits |= {first + n for n, v in enumerate(variants) if any(w in ids for w in re.findall(r"\w{12,}", v[0]))}
    return hits


def _spread(lines: list[str], sought: Sought) -> set[int]:
    """Indices of the lines that a phrase touches; white space between lines counts as one space."""
    parts = [folded(line) for line in lines]
    hits = {i for i, part in enumerate(parts) if part in sought.wholes}
    starts = list(accumulate((len(p) + 1 if p else 0 for p in parts), initial=0))
    text = " ".join(p for p in parts if p)
    for phrase in sought.phrases:
        for start, end in phrase.spans(text):
            hits.update(range(bisect_right(starts, start) - 1, bisect_right(starts, end - 1)))
    return hits
