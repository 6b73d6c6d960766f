"""What `forget` looks for: ids and places of rows, their texts, and strings that name a person.

Texts are compared after NFKC, case folding, and with white space and invisible characters made one, so that
"Jane  DOE" is found as "jane doe". A string matches whole words only: "Ann" is not found in "annual" nor in
"Hannah"; an asterisk at an end ("Schmidt*") lets the word go on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import InputError
from tunesmith.core.tombstones import tombstone

GONE = "[forgotten]"
LONG = 24  # characters; a shorter text of a row is sought only as a whole string, never inside another
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_WORD = re.compile(r"[^\W_]+")
_ID = re.compile(rb'"([0-9a-f]{64})"')  # only as a whole string: see redact.replaced
FEW = 8  # ids that are sooner looked for one by one
_LINE = re.compile(rb'"line": ?(\d+)')


def folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        text = unicodedata.normalize("NFKC", text.casefold())
    else:
        text = text.lower()
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Phrase:
    text: str  # folded
    open_start: bool = False
    open_end: bool = False

    def is_in(self, text: str) -> bool:
        return next(self.spans(text), None) is not None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it stands in a folded text."""
        start = text.find(self.text)
        while start >= 0:
            end = start + len(self.text)
            inside = (not self.open_start and start and _goes_on(text[start - 1], text[start])) or (
                not self.open_end and end < len(text) and _goes_on(text[end - 1], text[end])
            )
            if not inside:
                yield start, end
            start = text.find(self.text, start + 1)


def _goes_on(a: str, b: str) -> bool:
    """Two letters of one word. Scripts without capitals may write no spaces, so there every place is an end."""
    return all(c.isdigit() or c.lower() != c.upper() for c in (a, b))


def phrase(said: str) -> Phrase:
    """Raises InputError for a string so short that it would be found everywhere."""
    text = folded(said.strip().strip("*"))
    least = 3 if text.isascii() else 2
    if len(text) < least or not _WORD.search(text):
        raise InputError(
            f"a text to forget needs at least {least} characters, or it is found everywhere",
            where="--text",
            fix="give the whole name, or the row's id",
        )
    return Phrase(text, said.strip().startswith("*"), said.strip().endswith("*"))


@dataclass(slots=True, kw_only=True)
class Sought:
    """All that is looked for. Grows while the ledger is searched: a row found by a name is then sought by its id."""

    ids: set[str] = field(default_factory=set)
    places: set[tuple[str, int]] = field(default_factory=set)  # (SHA-256 of the file the row was read from, line)
    phrases: tuple[Phrase, ...] = ()
    wholes: frozenset[str] = frozenset()  # folded; a string that is exactly this
    cut: tuple[str, ...] = ()  # folded texts of which a page may show the beginning, ending in "…"
    salt: str = ""

    def in_text(self, text: str) -> bool:
        found = folded(text)
        return found in self.wholes or any(p.is_in(found) for p in self.phrases)

    def in_strings(self, strings: list[str]) -> bool:
        """In one of them, or across them: a first name and a surname in two columns."""
        return any(self.in_text(s) for s in strings) or (len(strings) > 1 and self.in_text(" ".join(strings)))

    def is_cut(self, text: str) -> bool:
        """The beginning of a text that is sought, as left_out.jsonl and pages show it."""
        if not self.cut or not text.endswith("…"):
            return False
        start = folded(text[:-1])
        return len(start) >= LONG and any(whole.startswith(start) for whole in self.cut)

    def token(self, id: str) -> str:
        """What stands for the id of a forgotten row in a record about something else, such as a group."""
        return "forgotten-" + tombstone(id, self.salt).partition(":")[2][:16]

    def filter(self, lines: frozenset[int]) -> Filter:
        return Filter(self, lines)


class Filter:
    """Tells quickly that a piece of a file holds nothing: most do not."""

    def __init__(self, sought: Sought, lines: frozenset[int]) -> None:
        self._lines = lines
        self._words = {_longest_word(t) for t in (*(p.text for p in sought.phrases), *sought.wholes)}
        self._cut = bool(sought.cut)
        self._plain = tuple(w.encode() for w in self._words if w.isascii())
        ids = [id.encode() for id in sorted(sought.ids)]
        self._few = tuple(id for id in ids if len(ids) <= FEW or len(id) != 64)
        self._many = set(ids) - set(self._few)

    def may_hold(self, raw: bytes) -> bool:
        if self._many and any(id in self._many for id in _ID.findall(raw)):
            return True
        if any(id in raw for id in self._few):
            return True
        if self._lines and any(int(n) in self._lines for n in _LINE.findall(raw)):
            return True
        if not self._words and not self._cut:
            return False
        if raw.isascii() and b"\\u" not in raw:  # else a letter may be written in another way
            low = raw.lower()
            return any(word in low for word in self._plain)
        if b"\\u" in raw:
            return True
        text = raw.decode("utf-8", "replace")
        if self._cut and "…" in text:
            return True
        text = folded(text)
        return any(word in text for word in self._words)


def _longest_word(text: str) -> str:
    return max(_WORD.findall(text), key=len, default=text)


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def values_in(value: Any) -> list[str]:
    """The same without the names of fields; numbers as they are written."""
    if isinstance(value, dict):
        return [s for inner in value.values() for s in values_in(inner)]
    if isinstance(value, list):
        return [s for inner in value for s in values_in(inner)]
    return [value] if isinstance(value, str) else [str(value)] if isinstance(value, int | float) else []


def longest(phrases: Iterable[Phrase]) -> int:
    return max((len(p.text) for p in phrases), default=0)
