"""JSON: a list of objects, one object, objects one after another, or {"data": [...]}; streamed, each with its line.

The standard decoder finds where an element ends; what the element says is then judged as a JSON line is.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data import lines
from tunesmith.data.formats.packed import open_source
from tunesmith.data.jsonl import judged, note_keys
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Line, Record, broken_utf8, excerpt

CHUNK = 1 << 18  # bytes read at a time
SPACE = re.compile(r"[ \t\r\n]*")
# Numbers stay text here: only the end of an element is wanted, and its value is judged by msgspec.
ENDS = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)


class _Broken(Exception):
    """No element begins here, or none ends within what one record may hold."""


class _Window:
    """The text from some place of the file on; grows as it is asked to."""

    def __init__(self, f: BinaryIO, facts: FileFacts) -> None:
        self._f = f
        self._facts = facts
        # broken bytes become lone surrogates and are turned back before an element is judged
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.at = 0
        self.line = 1
        self._ended = False
        while not self.text and self.grow(CHUNK):
            pass
        if self.text.startswith("\ufeff"):
            facts.bom = True
            self.at = 1

    def grow(self, n: int) -> bool:
        if self._ended:
            return False
        piece = self._f.read(n)
        self._facts.read_bytes += len(piece)
        self._ended = not piece
        self.text = self.text[self.at :] + self._decoder.decode(piece, final=self._ended)
        self.at = 0
        return not self._ended

    def peek(self) -> str:
        """The next character that is not white space; "" at the end of the file."""
        while True:
            end = _skip_space(self.text, self.at)
            self.move(end)
            if end < len(self.text) or not self.grow(CHUNK):
                return self.text[end : end + 1] if end < len(self.text) else ""

    def move(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def take(self, character: str) -> None:
        if self.peek() != character:
            raise _Broken(f"{character!r} is expected here")
        self.move(self.at + 1)

    def element(self) -> str:
        """The text of the next value, which is then behind. Raises _Broken."""
        self.peek()
        more = CHUNK
        while True:
            try:
                _, end = ENDS.raw_decode(self.text, self.at)
            except json.JSONDecodeError as e:
                trouble = e.msg
            except RecursionError:
                raise _Broken("nested too deeply to be a record") from None
            else:
                if end < len(self.text) or self._ended:
                    said = self.text[self.at : end]
                    self.move(end)
                    return said
                trouble = "the file ends within a value"
            if len(self.text) - self.at > lines.LINE_LIMIT:
                raise _Broken(f"{trouble}; one record may have {lines.LINE_LIMIT >> 20} MiB")
            more *= 2
            if not self.grow(more) and trouble != "the file ends within a value":
                raise _Broken(trouble)


def read_json(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Raises DataError for UTF-16 and for a file that is no list and no object. Where the text stops being JSON,
    the rest of the file is one bad record that loses the place."""
    decode = msgspec.json.Decoder().decode
    with open_source(path, facts) as f:
        head = f.peek(2)[:2] if hasattr(f, "peek") else b""
        if head in lines.WIDE_BOMS:
            lines.examine(head, 1, 0, facts)
        window = _Window(f, facts)
        first = window.peek()
        if first not in ("[", "{"):
            raise DataError(
                f"begins with {first!r}: neither a list nor an object" if first else "the file is empty",
                where=f"{facts.file}:{window.line}",
                fix='write [{"name": value}, ...]',
            )
        try:
            for line, said in _values(window, facts):
                yield _record(said, line, facts, decode)
        except _Broken as e:
            fault = Fault(
                reason="not_json",
                what=f"not JSON from here on: {e}",
                fix="write the file again; data.bad_rows cannot help here",
            )
            text = excerpt(window.text[window.at : window.at + 400].encode("utf-8", "replace").decode())
            yield BadRecord(line=window.line, fault=fault, text=text, loses_place=True)
        facts.lines = window.line


def _values(window: _Window, facts: FileFacts) -> Iterator[tuple[int, str]]:
    """(line, text) of every record."""
    n = 0
    while opening := window.peek():
        n += 1
        if n == 2:
            facts.notes.append("holds several JSON values one after another; each is read")
        if opening == "[":
            yield from _list(window)
        else:
            line = window.line
            said = _object(window, facts)
            if isinstance(said, str):
                yield line, said
            else:
                yield from _list(window)
                _rest_of_object(window, facts, said)


def _list(window: _Window) -> Iterator[tuple[int, str]]:
    window.take("[")
    if window.peek() == "]":
        window.take("]")
        return
    while True:
        window.peek()
        line = window.line
        yield line, window.element()
        if window.peek() == "]":
            window.take("]")
            return
        window.take(",")


def _object(window: _Window, facts: FileFacts) -> str | list[str]:
    """The text of a whole object; or, when its key "data" begins a list of objects, the keys met before, with
    the window at that list."""
    more = CHUNK
    while True:
        found = _find_data(window.text, window.at + 1)
        if found is None and len(window.text) - window.at <= lines.LINE_LIMIT and window.grow(more):
            more *= 2
            continue
        if not found:
            return window.element()
        place, before = found
        window.move(place)
        facts.notes.append('the records are the list under "data"')
        return before


def _find_data(text: str, at: int) -> tuple[int, list[str]] | tuple[()] | None:
    """Where the list of objects under "data" begins, in the object whose first key is at `at`, and the keys before
    it; () if there is none; None if the text ends too early to tell."""
    before: list[str] = []
    while True:
        at = _skip_space(text, at)
        try:
            key, at = ENDS.raw_decode(text, at)
            at = _skip_space(text, at)
            if at == len(text):
                return None
            if not isinstance(key, str) or text[at] != ":":
                return ()
            at = _skip_space(text, at + 1)
            if key == "data":
                opening = re.compile(r"\[[ \t\r\n]*+(.)?", re.DOTALL).match(text, at)
                if at == len(text) or (opening and opening[1] is None):
                    return None
                return (at, before) if opening and opening[1] == "{" else ()
            before.append(key)
            _, at = ENDS.raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        except RecursionError:
            return ()
        at = _skip_space(text, at)
        if at == len(text):
            return None
        if text[at] != ",":
            return ()
        at += 1


def _skip_space(text: str, at: int) -> int:
    return SPACE.match(text, at).end()  # type: ignore[union-attr]


def _rest_of_object(window: _Window, facts: FileFacts, keys: list[str]) -> None:
    while window.peek() == ",":
        window.take(",")
        keys.append(window.element().strip('"'))
        window.take(":")
        window.element()
    window.take("}")
    if keys:
        facts.notes.append(f'keys beside "data" that are not read: {", ".join(map(repr, keys[:12]))}')


def _record(said: str, line: int, facts: FileFacts, decode: Any) -> Record | BadRecord:
    raw = said.encode("utf-8", "surrogateescape")
    spans = said.count("\n") + 1
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        fault = broken_utf8(e, raw, 0)
        fault = Fault(reason=fault.reason, what=fault.what.replace("of the file", "of the record"), fix=fault.fix)
        return BadRecord(line=line, fault=fault, text=excerpt(raw.decode("utf-8", "replace")), lines=spans)
    value = judged(Line(line, text, raw, None), decode)
    if isinstance(value, Fault):
        return BadRecord(line=line, fault=value, text=excerpt(text), lines=spans)
    if not value.keys() <= facts.keys.keys():
        note_keys(value, facts)
    return Record(line=line, fields=value, lines=spans)
