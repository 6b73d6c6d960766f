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
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tunesmith.data import lines
from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import BOM, BadRecord, Fault, FileFacts, Line, Record, examine, excerpt, too_long

KEY_END = re.compile(rb'"[ \t\r]*:')
KEYS_NOTED = 200  # names of keys that check.json repeats
BLANK = b" \t\r\n"
BLOCK = 1 << 17  # bytes read at a time
MANY_COLONS = 24  # from here on a regular expression counts faster than a loop

Decode = Callable[[bytes], Any]


def read_jsonl(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """One record or refusal for every line that is not blank."""
    decode: Decode = msgspec.json.Decoder().decode
    noted = facts.keys.keys()
    with open_source(path, facts) as f:
        offset = 0
        for block, skipped in _blocks(f):
            split = block.split(b"\n")
            if not split[-1]:
                split.pop()
            first = facts.lines + 1
            facts.lines += len(split)
            facts.read_bytes += len(block) + skipped
            facts.crlf_lines += block.count(b"\r\n")
            suspicious = (
                first == 1 or b"\0" in block or BOM in block or b"\\u0000" in block or len(block) > lines.LINE_LIMIT
            )
            for number, raw in enumerate(split, first):
                if not suspicious:
                    try:
                        value = decode(raw)
                        sound = type(value) is dict and each_key_once(raw, value)
                    except Exception:  # the close look below finds out what it was
                        sound = False
                    if sound:
                        if not value.keys() <= noted:
                            note_keys(value, facts)
                        offset += len(raw) + 1
                        yield Record(line=number, fields=value)
                        continue
                found = _closely(raw, number, offset, facts, decode)
                offset += len(raw) + 1
                if found is not None:
                    yield found
            offset += skipped


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


def each_key_once(raw: bytes, value: Any) -> bool:
    """Whether the text has no more keys than the value decoded from it; False may also mean "cannot tell".

    Every key of the text is followed by a colon of its own, and those among them that the decoder kept are
    counted in `value`: text colons >= keys in the text >= keys in the value. If both ends are equal, no key came
    twice. Where texts hold colons too, those that follow a quote are counted: the same holds for them.
    """
    keys = _keys(value)
    colons = raw.count(b":")
    if colons == keys:
        return True
    if colons > MANY_COLONS:
        return len(KEY_END.findall(raw)) == keys
    ends = 0
    for piece in raw.split(b":")[:-1]:
        last = piece[-1:]
        if last == b'"' or (last in b" \t\r" and piece.rstrip(BLANK)[-1:] == b'"'):
            ends += 1
    return ends == keys


def _keys(value: Any) -> int:
    if type(value) is dict:
        n = len(value)
        for v in value.values():
            if type(v) is dict or type(v) is list:
                n += _keys(v)
        return n
    n = 0
    for v in value:
        if type(v) is dict or type(v) is list:
            n += _keys(v)
    return n


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
