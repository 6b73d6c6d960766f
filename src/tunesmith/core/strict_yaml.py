"""A small, strict YAML: what a settings file needs, every value with its line and column.

YAML 1.2 core schema (`1e-4` is a number, `no` is text). Refused, because they surprise or hide
things: duplicate keys, tags, anchors and aliases, several documents, directives, dates and numbers
with underscores that are not quoted, leading zeros, NaN and infinity, control characters, and
anything that is not UTF-8. A byte-order mark and CRLF line ends are accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from tunesmith.core.errors import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12  # the scanner is quadratic in nesting, and no settings file needs more
LARGEST_INT = 2**53  # beyond it other programs read another number

NULL = {"", "~", "null", "Null", "NULL"}
BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INT = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
OTHER_BASE = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+")  # what is more than digits is text: an id may begin with 0b
UNDERSCORED = re.compile(r"[-+]?[0-9][0-9.]*_[0-9_.]*([eE][-+]?[0-9]+)?")
DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
# line feed and tab are fine; next line, line and paragraph separator would be read as line ends
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value stands: a file with 1-based line and column, or a command-line argument."""

    file: str
    line: int = 0  # 0: not in a file
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def origin(self) -> str:
        return f"{self.file}:{self.line}" if self.line else "--set"


@dataclass(slots=True, kw_only=True)
class Node:
    """A value with its place. `value` is None, bool, int, float, str, list[Node] or dict[str, Node]."""

    value: Any
    place: Place  # where the value starts
    key: Place | None = None  # where its key starts, in a mapping
    refused: bool = False  # a problem was reported for it: `value` means nothing

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {k: v.plain() for k, v in self.value.items()}
        if isinstance(self.value, list):
            return [v.plain() for v in self.value]
        return self.value

    def walk(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        yield path, self
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list):
            for i, node in enumerate(self.value):
                yield from node.walk((*path, i))


def read(data: bytes, file: str) -> tuple[Node | None, list[Problem]]:
    """The document as a tree, with every problem; None where its syntax is broken or it is empty."""
    if len(data) > MAX_BYTES:
        what = f"is {len(data):,} bytes long; a settings file may have {MAX_BYTES:,}"
        return None, [Problem(where=file, what=what, fix="put data into data files")]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        before = data[: e.start].decode("utf-8", "replace")
        what = f"byte 0x{data[e.start]:02x} is not UTF-8"
        return None, [Problem(where=str(_place(file, before)), what=what, fix="save the file as UTF-8")]
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if found := CONTROL.search(text):
        what = f"control character U+{ord(found.group()):04X} is not allowed"
        return None, [Problem(where=str(_place(file, text[: found.start()])), what=what, fix="remove it")]
    return _Reader(text, file).document()


def read_value(text: str, argument: str) -> tuple[Node | None, list[Problem]]:
    """One value from the command line; its place is the argument itself."""
    reader = _Reader(text, argument, on_command_line=True)
    if found := UNPRINTABLE.search(text):
        reader.refuse(reader.whole, f"character U+{ord(found.group()):04X} is not allowed in a value")
        return None, reader.problems
    return reader.document()


def _place(file: str, before: str) -> Place:
    before = before.replace("\r\n", "\n")
    line = before.count("\n") + 1
    return Place(file=file, line=line, column=len(before) - (before.rfind("\n") + 1) + 1)


class _Broken(Exception):
    """The syntax is broken: nothing after this point can be trusted. Its problem is already noted."""


@dataclass
class _Reader:
    text: str
    file: str
    on_command_line: bool = False
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events: Iterator[Event] = YAML(typ="safe", pure=True).parse(self.text)
        self.whole = Place(file=self.file)

    def document(self) -> tuple[Node | None, list[Problem]]:
        try:
            self.next()  # stream start
            event = self.next()
            if isinstance(event, StreamEndEvent):
                return None, self.problems
            if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
                self.refuse(self.place(event), "directives (%YAML, %TAG) are not allowed", fix="remove the line")
            node = self.node(self.next(), depth=0)
            while isinstance(event := self.next(), DocumentEndEvent):
                pass
            if not isinstance(event, StreamEndEvent):
                self.refuse(self.place(event), "a second document starts here; one is allowed", fix="remove `---`")
            return node, self.problems
        except _Broken:
            return None, self.problems

    def next(self) -> Event:
        try:
            return next(self.events)
        except MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            self.broken(self.at(mark), e.problem or e.context or "cannot be read")
        except ReaderError as e:
            self.broken(_place(self.file, self.text[: e.position]), "a character that YAML does not allow")
        except (YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError) as e:
            # ruamel lets plain Python errors out for some malformed escapes, tags and directives
            self.broken(self.whole, f"cannot be read ({type(e).__name__})")
        raise _Broken

    def node(self, event: Event, *, depth: int) -> Node:
        place = self.place(event)
        if depth > MAX_DEPTH:
            self.broken(place, f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, AliasEvent):
            self.refuse(place, f"alias *{event.anchor} is not allowed", fix="write the value out, or use extends:")
            return Node(value=None, place=place, refused=True)
        refused = False
        if (tag := getattr(event, "tag", None)) is not None:
            short = str(tag).replace("tag:yaml.org,2002:", "!!")
            self.refuse(place, f"tag {short} is not allowed", fix="quote text, write numbers plainly")
            refused = True
        if (anchor := getattr(event, "anchor", None)) is not None:
            self.refuse(place, f"anchor &{anchor} is not allowed", fix="write the value out where it is needed")
        if isinstance(event, ScalarEvent):
            value, why, fix = resolve(event.value, plain=event.style is None)
            if why and not refused:
                self.refuse(place, why, fix=fix)
            return Node(value=value, place=place, refused=refused or bool(why))
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(event := self.next(), SequenceEndEvent):
                items.append(self.node(event, depth=depth + 1))
            return Node(value=items, place=place, refused=refused)
        if isinstance(event, MappingStartEvent):
            return Node(value=self.mapping(depth), place=place, refused=refused)
        self.broken(place, "a value is expected here")
        raise _Broken

    def mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := self.next(), MappingEndEvent):
            place = self.place(event)
            key = self.node(event, depth=depth + 1)
            value = self.node(self.next(), depth=depth + 1)
            value.key = place
            if not isinstance(event, ScalarEvent):
                if not key.refused:
                    self.refuse(place, "a key must be plain text, not a list or a mapping")
                continue
            name = event.value
            if key.refused:
                continue
            if not name.strip() or "\n" in name or "\t" in name:
                self.refuse(place, f"{name[:100]!r} cannot be a key")
            elif name in found:
                first = found[name].key or found[name].place
                self.refuse(place, f"{name[:100]} is set twice; first on line {first.line}", fix="keep one of the two")
            else:
                found[name] = value
        return found

    def place(self, event: Event) -> Place:
        return self.at(event.start_mark)

    def at(self, mark: Any) -> Place:
        if mark is None or self.on_command_line:
            return self.whole
        return Place(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def refuse(self, place: Place, what: str, *, fix: str = "") -> None:
        self.problems.append(Problem(where=str(place), what=what, fix=fix))

    def broken(self, place: Place, what: str) -> None:
        fix = ""
        if "'\\t'" in what or "tab" in what:
            fix = "indent with spaces"
        elif "mapping values are not allowed" in what:
            fix = "quote a value that contains `: `, and line keys of one section up"
        self.refuse(place, f"not valid YAML: {what}", fix=fix)
        raise _Broken


def resolve(text: str, *, plain: bool) -> tuple[Any, str, str]:
    """A scalar's value by the YAML 1.2 core schema; a reason and a fix where it is refused."""
    if found := UNPRINTABLE.search(text):
        return None, f"character U+{ord(found.group()):04X} is not allowed in a value", "remove it"
    if not plain:
        return text, "", ""
    if text in NULL:
        return None, "", ""
    if text in BOOL:
        return BOOL[text], "", ""
    if INT.fullmatch(text):
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            return (
                None,
                f"{text[:40]} has a leading zero",
                f'write {digits.lstrip("0")[:40] or 0}, or "{text[:40]}" for text',
            )
        if len(digits) > 16 or abs(int(text)) > LARGEST_INT:
            return None, f"{text[:40]} is too large a whole number", f'write "{text[:40]}" for text'
        return int(text), "", ""
    if NOT_FINITE.fullmatch(text) or (FLOAT.fullmatch(text) and not math.isfinite(float(text))):
        return None, f"{text[:40]} is not a finite number", "write a finite number, or quote it for text"
    if FLOAT.fullmatch(text):
        return float(text), "", ""
    if UNDERSCORED.fullmatch(text):
        return None, f"{text} looks like a number", f'write {text.replace("_", "")}, or "{text}" for text'
    if OTHER_BASE.fullmatch(text):
        return None, f"{text} looks like a number", f'write it in decimal, or "{text}" for text'
    if DATE.fullmatch(text):
        return None, f"{text} looks like a date, which no setting is", f'write "{text}" for text'
    return text, "", ""
