"""JSON lines: one object a line, decoded by msgspec, and refused where msgspec would keep quiet.

msgspec already refuses NaN, 1e999, lone surrogates and broken UTF-8. It keeps the last of duplicate
keys, as every JSON library does; which of them the author meant is unknown, so such a line is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.data.lines import BadRecord, Fault, FileFacts, Line, Record, excerpt, open_file, physical_lines

KEY_END = re.compile(rb'"[ \t\r]*:')
KEYS_NOTED = 200  # names of keys that check.json repeats
BLANK = b" \t\r\n"


def read_jsonl(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """One record or refusal for every line that is not blank."""
    decode = msgspec.json.Decoder().decode
    with open_file(path) as f:
        for line in physical_lines(f, facts, keep_ends=False):
            if line.fault is None and not line.raw.strip(BLANK):
                facts.blank_lines += 1
                continue
            value = line.fault or _value(line, decode)
            if isinstance(value, Fault):
                yield BadRecord(line=line.number, fault=value, text=excerpt(line.text))
            else:
                if not value.keys() <= facts.keys.keys():
                    _note_keys(value, facts)
                yield Record(line=line.number, fields=value)


def _note_keys(value: dict[str, Any], facts: FileFacts) -> None:
    """Keys for check.json; a file that uses keys as values is cut short here, with a note, not in its rows."""
    for key in value:
        if len(facts.keys) == KEYS_NOTED:
            return
        facts.keys.setdefault(key)


def _value(line: Line, decode: Any) -> dict[str, Any] | Fault:
    try:
        value = decode(line.raw)
    except RecursionError:
        return Fault(reason="not_json", what="nested too deeply to be a record", fix="one flat object a line")
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        return _why_not_json(line.text, str(e))
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"a {type(value).__name__}"
        return Fault(
            reason="not_an_object",
            what=f"{kind} where an object is needed",
            fix='one {"name": value} object a line; from a JSON list: jq -c ".[]" in.json > out.jsonl',
        )
    # Each key ends in `":`; as many of these as keys means that no key came twice. Texts may hold more.
    if len(KEY_END.findall(line.raw)) != _keys(value) and (key := _duplicate_key(line.text)) is not None:
        return Fault(
            reason="duplicate_key", field=excerpt(key), what="the key comes twice in one object", fix="keep one of them"
        )
    if b"\\u0000" in line.raw and _has_nul(value):
        return Fault(reason="nul", what="a NUL character (\\u0000) in a text", fix="remove it")
    return value


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_keys(v) for v in value.values() if isinstance(v, (dict, list)))
    return sum(_keys(v) for v in value if isinstance(v, (dict, list)))


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
