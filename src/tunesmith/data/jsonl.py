"""JSON lines: one object a line, decoded by msgspec, and refused where msgspec would keep quiet.

msgspec already refuses NaN, 1e999, lone surrogates and broken UTF-8. It keeps the last of duplicate
keys, as every JSON library does; which of them the author meant is unknown, so such a line is refused.

A line is first taken for sound, and what a block of lines cannot hide (a NUL, a byte-order mark) is looked
for once a block; only what fails there is looked at closely. How fast that is: benchmarks/reading.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tunesmith.data import lines
from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Line, Record, examine, excerpt, too_long

KEY_END = re.compile(rb'"[ \t\r]*:')
SPOILING = re.compile(rb"\\u00[02][02]")  # a NUL or a quote, written as an escape
KEYS_NOTED = 200  # names of keys that check.json repeats
BLANK = b" \t\r\n"
BLOCK = 1 << 16  # bytes read at a time

Decode = Callable[[bytes], Any]


def read_jsonl(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """One record or refusal for every line that is not blank."""
    decode: Decode = msgspec.json.Decoder().decode
    noted = facts.keys.keys()
    start = 0
    with open_source(path, facts) as f:
        for block, skipped in _blocks(f):
            split = block.split(b"\n")
            if not split[-1]:
                split.pop()
            first = facts.lines + 1
            facts.lines += len(split)
            facts.read_bytes += len(block) + skipped
            if b"\r" in block:
                facts.crlf_lines += block.count(b"\r\n")
            escapes = b"\\" in block and SPOILING.search(block) is not None
            suspicious = b"\0" in block or len(block) > lines.LINE_LIMIT or (escapes and b"\\u0000" in block)
            starts: list[int] | None = None  # of the lines; only a fault needs them
            if first == 1:  # the only line that may begin with a byte-order mark
                found = _closely(split[0], 1, 0, facts, decode)
                if found is not None:
                    yield found
            for number, raw in enumerate(split[1:] if first == 1 else split, max(first, 2)):
                if not suspicious:
                    try:
                        value = decode(raw)
                        sound = type(value) is dict and each_key_once(raw, value, escapes)
                    except Exception:  # the close look below finds out what it was
                        sound = False
                    if sound:
                        if not value.keys() <= noted:
                            note_keys(value, facts)
                        yield Record(line=number, fields=value)
                        continue
                starts = starts or list(accumulate((len(line) + 1 for line in split), initial=start))
                found = _closely(raw, number, starts[number - first], facts, decode)
                if found is not None:
                    yield found
            start += len(block) + skipped


def _blocks(f: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Whole lines, and how many bytes after them were skipped because the last line is too long to hold."""
    while block := f.read(BLOCK):
        skipped = 0
        if not block.endswith(b"\n"):
            rest = f.readline(lines.LINE_LIMIT + 1)
            block += rest
            if len(rest) > lines.LINE_LIMIT and not rest.endswith(b"\n"):
                skipped = lines.skip_line(f)
        yield block, skipped


def _closely(raw: bytes, number: int, start: int, facts: FileFacts, decode: Decode) -> Record | BadRecord | None:
    """None for a blank line."""
    if len(raw) > lines.LINE_LIMIT:
        return BadRecord(line=number, fault=too_long())
    line = examine(raw, number, start, facts)
    if line.fault is None and not line.raw.strip(BLANK):
        facts.blank_lines += 1
        return None
    value = line.fault or judged(line, decode)
    if isinstance(value, Fault):
        return BadRecord(line=number, fault=value, text=excerpt(line.text))
    note_keys(value, facts)
    return Record(line=number, fields=value)


def note_keys(value: dict[str, Any], facts: FileFacts) -> None:
    """Keys for check.json; a file that uses keys as values is cut short here, with a note, not in its rows."""
    for key in value:
        if len(facts.keys) == KEYS_NOTED:
            return
        facts.keys.setdefault(key)


def judged(line: Line, decode: Decode) -> dict[str, Any] | Fault:
    """The object of one line, or everything that JSON lets pass and a data set must not."""
    try:
        return _judged(line, decode)
    except RecursionError:
        return Fault(reason="not_json", what="nested too deeply to be a record", fix="one flat object a line")


def _judged(line: Line, decode: Decode) -> dict[str, Any] | Fault:
    try:
        value = decode(line.raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        return _why_not_json(line.text, str(e))
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"a {type(value).__name__}"
        return Fault(
            reason="not_an_object",
            what=f"{kind} where an object is needed",
            fix='one {"name": value} object a line; from a JSON list: jq -c ".[]" in.json > out.jsonl',
        )
    if not each_key_once(line.raw, value) and (key := _duplicate_key(line.text)) is not None:
        return Fault(
            reason="duplicate_key", field=excerpt(key), what="the key comes twice in one object", fix="keep one of them"
        )
    if b"\\u0000" in line.raw and _has_nul(value):
        return Fault(reason="nul", what="a NUL character (\\u0000) in a text", fix="remove it")
    return value


def each_key_once(raw: bytes, value: Any, escapes: bool = True) -> bool:
    """Whether the text has no more keys than the value decoded from it; False may also mean "cannot tell".

    Every key and every text stands between two quotes of its own, and JSON has no others but those within them,
    escaped: quotes = 2 (keys + texts) + escaped. The decoder drops a key that comes twice, with its value, so what
    it kept has at most as many of each; if the numbers agree, nothing was dropped. A quote that is written \\u0022
    would spoil the count; `escapes` says whether one may be there. In such a line the quotes that a colon follows
    are counted: each key has one.
    """
    quotes, kept = raw.count(b'"'), 2 * _quoted(value)
    if quotes == kept:
        return True
    if quotes == kept + _escaped(value) and not (escapes and b"\\u0022" in raw):
        return True
    return len(KEY_END.findall(raw)) == _keys(value)


def _quoted(value: Any) -> int:
    """Keys and texts. Written out for a dict, a list and the dicts in it: a chat's row is no deeper."""
    n = 0
    if type(value) is dict:
        n = len(value)
        value = value.values()
    for v in value:
        kind = type(v)
        if kind is str:
            n += 1
        elif kind is list:
            for part in v:
                kind = type(part)
                if kind is dict:
                    n += len(part)
                    for x in part.values():
                        kind = type(x)
                        if kind is str:
                            n += 1
                        elif kind is dict or kind is list:
                            n += _quoted(x)
                elif kind is str:
                    n += 1
                elif kind is list:
                    n += _quoted(part)
        elif kind is dict:
            n += _quoted(v)
    return n


def _escaped(value: Any) -> int:
    """Quotes within texts; a key with quotes in it is too rare to look for."""
    n = 0
    for v in value.values() if type(value) is dict else value:
        kind = type(v)
        if kind is str:
            n += v.count('"')
        elif kind is dict or kind is list:
            n += _escaped(v)
    return n


def _keys(value: Any) -> int:
    n = 0
    if type(value) is dict:
        n = len(value)
        value = value.values()
    return n + sum(_keys(v) for v in value if type(v) is dict or type(v) is list)


def _duplicate_key(text: str) -> str | None:
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    json.loads(text, object_pairs_hook=collect)
    return found[0] if found else None


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in k or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _why_not_json(text: str, message: str) -> Fault:
    """msgspec's message, and the reason behind the commonest ones."""
    if re.search(r"[:\[,]\s*-?(NaN|Infinity)\b", text):
        return Fault(reason="not_finite", what="NaN or Infinity is not JSON", fix="write null, or leave the key out")
    if "out of range" in message:
        return Fault(reason="not_finite", what=f"a number no computer can hold: {message}", fix="write it as a text")
    if re.search(r"\\u[dD][89a-fA-F]", text) and ("surrogate" in message or "truncated" in message):
        return Fault(
            reason="lone_surrogate",
            what="half a surrogate pair (\\uD800 to \\uDFFF) stands for no character",
            fix="write the file again from its source with UTF-8 throughout",
        )
    if "truncated" in message:
        return Fault(
            reason="not_json", what="the object is not closed", fix="one whole object a line, none over several"
        )
    return Fault(reason="not_json", what=f"not JSON: {message}", fix="one JSON object a line, names in double quotes")
