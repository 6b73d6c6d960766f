"""From what a person asks to everything that must go: the rows meant, every version of them, their texts.

A row is followed by its id, and by the place it was read from: cleaning and pseudonyms give it another id and
other words, but not another place. What is found by a name is followed the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.tombstones import is_forgotten
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records_of import delimiter_of, pieces, strings_of
from tunesmith.ledger.redact import Standing, about, redact
from tunesmith.ledger.sought import LONG, Phrase, Sought, folded, phrase, strings_in
from tunesmith.ledger.stock import Stock, Stored

PREFIX = 8  # shortest start of a row's id
WORDS = 3  # fewer, and a text is no text of its own
_SAME = re.compile(r"says the same as (.+):(\d+), which is kept")
_PLACE = re.compile(r"(.+):(\d+)")


def search(
    ledger: Ledger, stock: Stock, rows: tuple[str, ...], places: tuple[str, ...], texts: tuple[str, ...], salt: str,
    tombstones: tuple[str, ...],
) -> Sought:  # fmt: skip
    """Raises InputError for ids and places that mean nothing, all of them at once."""
    sought = Sought(phrases=tuple(phrase(t) for t in texts), salt=salt)
    problems = [*_find_rows(ledger, stock, sought, rows, tombstones), *_find_places(stock, sought, places)]
    if problems:
        raise InputError(problems)
    if sought.ids or sought.places:
        _follow(ledger, stock, Sought(ids=sought.ids, places=sought.places, salt=salt))
        _own_texts(ledger, stock, sought)
    _follow(ledger, stock, sought)
    return sought


def row_records(ledger: Ledger, stock: Stock, sought: Sought) -> Iterator[tuple[Stored, dict[str, Any], Standing]]:
    """Every line of our own JSON-lines files in which a line is a row or says what became of one."""
    decode = msgspec.json.Decoder().decode
    for stored in stock.files:
        if stored.form != "jsonl" or not stored.rows or stored.keeps_lines:
            continue
        standing = stock.standing(stored, sought)
        with open(ledger.objects.file(stored.sha256), "rb") as f:
            for raw in f:
                try:
                    record = decode(raw)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue  # none that a stage of ours wrote
                if isinstance(record, dict):
                    yield stored, record, standing


def _find_rows(
    ledger: Ledger, stock: Stock, sought: Sought, rows: tuple[str, ...], tombstones: tuple[str, ...]
) -> Iterator[Problem]:
    if not rows:
        return
    found: dict[str, set[str]] = {wanted: set() for wanted in rows}
    for stored, record, _ in row_records(ledger, stock, sought):
        id = record.get("id")
        is_gone = "reason" in record and "text" in record and "id" not in record
        key = _key(record) if is_gone else ""
        for wanted in rows:
            if isinstance(id, str) and (id == wanted or (len(wanted) >= PREFIX and id.startswith(wanted))):
                found[wanted].add(id)
                sought.ids.add(id)
            elif key == wanted:
                found[wanted].add(key)
                sought.places |= stock.come_from(stored, str(record["file"]), int(record["line"]))
    for wanted, ids in found.items():
        if len(ids) > 1:
            yield Problem(where=wanted, what=f"is the start of {len(ids)} ids", fix="give more characters")
        elif not ids and not is_forgotten(wanted, tombstones):
            what = "no row has this id, and no row that was left out has this key"
            yield Problem(where=wanted, what=what, fix="tunesmith data removed and data log list them")


def _key(gone: dict[str, Any]) -> str:
    """LeftOut.key of core/nouns, of a line as it is stored."""
    return content_id({"file": gone["file"], "line": gone["line"], "reason": gone["reason"], "text": gone["text"]})[:12]


def _find_places(stock: Stock, sought: Sought, places: tuple[str, ...]) -> Iterator[Problem]:
    for said in places:
        match = _PLACE.fullmatch(said)
        sha256 = stock.newest_source(match.group(1)) if match else None
        if match is None:
            yield Problem(where=said, what="is not a place", fix="write it as FILE:LINE")
        elif sha256 is None:
            yield Problem(where=said, what="the ledger knows no file of this name", fix="tunesmith data log")
        else:
            start = stock.record_start(sha256, int(match.group(2)))
            if start is None:
                yield Problem(where=said, what="the file has no such line", fix="give a line that it has")
            else:
                sought.places.add((sha256, start))


# Every version of the rows


def _follow(ledger: Ledger, stock: Stock, sought: Sought) -> None:
    """Search again and again, until nothing more is found by what was found."""
    known = (-1, -1)
    while known != (len(sought.ids), len(sought.places)):
        known = (len(sought.ids), len(sought.places))
        for stored in stock.files:
            if stored.rows and stored.form != "opaque":
                _look_into(ledger, stock, stored, sought)


def _look_into(ledger: Ledger, stock: Stock, stored: Stored, sought: Sought) -> None:
    standing = stock.standing(stored, sought)
    with open(ledger.objects.file(stored.sha256), "rb") as f:
        if stored.form == "jsonl" and not stored.keeps_lines:
            for record in redact(stored.form, f, None, sought, standing, keep=True).records:
                _learn(stock, stored, record, sought)
        elif stored.keeps_lines and (sought.phrases or sought.wholes):
            firsts = {h.first for h in stored.holders} & stock.read_as_rows
            if firsts:
                for line in redact(stored.form, f, None, sought, standing, keep=True).all_lines:
                    sought.places |= {(first, 1 if standing.is_one_record else line) for first in firsts}


def _learn(stock: Stock, stored: Stored, record: dict[str, Any], sought: Sought) -> None:
    for name in ("id", "row"):
        id = record.get(name)
        if isinstance(id, str) and len(id) >= 12:
            sought.ids.add(id)
    file, line = record.get("file"), record.get("line")
    if isinstance(file, str) and isinstance(line, int):
        sought.places |= stock.come_from(stored, file, line)
    if record.get("reason") == "duplicate" and (same := _SAME.search(str(record.get("detail")))):
        sought.places |= stock.come_from(stored, same.group(1), int(same.group(2)))  # it is the same row


# Their texts


def _own_texts(ledger: Ledger, stock: Stock, sought: Sought) -> None:
    """Sets what the rows asked for say, so that copies without id and place are found too.

    What a person wrote in (the input, before and after cleaning) is sought wherever it stands. Of the rest (the
    answer, other columns, the turns of a longer talk) only what no other row says: a label, a standing instruction
    or a "yes, please" is no one's own.
    """
    certain: set[str] = set()
    others: set[str] = set()
    for _, record, standing in row_records(ledger, stock, sought):
        if about(record, sought, standing):
            for text, is_certain in _texts_of(record):
                (certain if is_certain else others).add(folded(text))
    for stored, strings, is_meant in _raw_records(ledger, stock, sought):
        if is_meant and stored.form != "text":
            others |= {folded(s) for s in strings}
        elif is_meant:
            certain |= {folded(s) for s in strings}
    certain -= {"", "…"}
    shared, answers = _said_elsewhere(ledger, stock, sought, certain | others)
    own = certain | (others - shared)
    long = sorted(t for t in own if len(t) >= LONG and t.count(" ") >= WORDS - 1 and not t.endswith("…"))
    sought.phrases = (*sought.phrases, *(Phrase(t) for t in long))
    sought.wholes = frozenset(certain - set(long) - answers)
    sought.cut = tuple(long)


def _texts_of(record: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(text, whether it is the row's own for certain)"""
    messages = [m for m in record.get("messages") or () if isinstance(m, dict) and m.get("role") != "system"]
    users = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    for i, message in enumerate(messages):
        yield str(message.get("content", "")), len(users) == 1 and i == users[0]
    for name in ("target", "rejected", "completion"):
        if isinstance(record.get(name), str):
            yield record[name], name == "target" and not messages
    if "reason" in record and isinstance(record.get("text"), str):
        yield record["text"], True
    if isinstance(record.get("before"), str):
        is_input = str(record.get("field", "")).startswith("messages")
        yield from ((record[side], is_input) for side in ("before", "after") if isinstance(record.get(side), str))


def _raw_records(ledger: Ledger, stock: Stock, sought: Sought) -> Iterator[tuple[Stored, list[str], bool]]:
    """Records of the user's own files as they stand there, and whether they are at a sought place."""
    for stored in stock.files:
        if (
            not stored.keeps_lines
            or stored.form == "opaque"
            or {h.first for h in stored.holders}.isdisjoint(stock.read_as_rows)
        ):
            continue
        standing = stock.standing(stored, sought)
        with open(ledger.objects.file(stored.sha256), "rb") as f:
            delimiter = delimiter_of(f) if stored.form == "table" else ","
            if standing.is_one_record:
                yield stored, strings_of(stored.form, f.read()), bool(standing.lines)
                continue
            for piece in pieces(stored.form, f):
                meant = not standing.lines.isdisjoint(range(piece.line, piece.line + piece.lines))
                yield stored, strings_of(stored.form, piece.raw, delimiter), meant


def _said_elsewhere(ledger: Ledger, stock: Stock, sought: Sought, texts: set[str]) -> tuple[set[str], set[str]]:
    """Of these texts: those that another row says too, and those that are another row's answer."""
    shared: set[str] = set()
    answers: set[str] = set()
    for _, record, standing in row_records(ledger, stock, sought):
        if not about(record, sought, standing):
            shared |= texts & {folded(s) for s in strings_in(record)}
            answers |= texts & {folded(str(record.get("target", "")))}
    for _, strings, meant in _raw_records(ledger, stock, sought):
        if not meant:
            shared |= texts & {folded(s) for s in strings}
    return shared, answers
