"""People's judgments as facts: append-only, each on disk before it is acknowledged, each kept once.

A judgment is {id, queue, item, annotator, verb, value, reason, seconds, at}. Its id is made by whoever
sends it, so that sending it again after a lost answer changes nothing. Who was asked is kept beside
them: an annotator is a name, a role and the hash of the token in the personal link, never the token.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, plain, write_lines
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Artifact
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import Fact

FIELDS = frozenset({"id", "queue", "item", "annotator", "verb", "value", "reason", "seconds", "at"})
JUDGMENT = "judgment"
ANNOTATOR = "annotator"
PAGE = 10_000  # facts read at a time


class Judgments:
    """The judgments of one project."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._database = ledger.records.database

    def append(self, judgment: Mapping[str, Any]) -> dict[str, Any]:
        """Keep one judgment; when this returns it survives a power cut. Returns it as it is kept.

        The same id again is not kept again: what was kept first is returned, whatever `at` and `seconds`
        say now. Raises InputError if that id was used for another judgment or a field is missing or
        unknown, StorageError if the disk refuses.
        """
        new = plain(judgment)
        if set(new) != FIELDS:
            odd = sorted(set(new) ^ FIELDS)
            raise InputError(f"a judgment has exactly the fields {', '.join(sorted(FIELDS))}; see {', '.join(odd)}")
        try:
            canonical_json(new)  # in here, where it can still be refused
        except ValueError as e:
            raise InputError(f"the judgment can't be written as JSON: {e}") from e
        kept = new

        def facts() -> list[Fact]:
            nonlocal kept
            before = self.find(new["id"])
            if before is None:
                return [Fact("note", {"kind": JUDGMENT, "body": new})]
            kept = before
            return []

        self._ledger.records.append(facts)
        if _said(kept) != _said(new):
            raise InputError(f"another judgment has the id {new['id']}", fix="give each judgment an id of its own")
        return kept

    def find(self, id: str) -> dict[str, Any] | None:
        rows = self._database.read("SELECT body FROM judgments JOIN facts USING (seq) WHERE id = ?", (id,))
        return json.loads(rows[0][0])["body"] if rows else None

    def list(self, queue: str | None = None) -> Iterator[dict[str, Any]]:
        """Oldest first, in the order they were kept; of one queue, or of all."""
        decode = msgspec.json.Decoder().decode
        where = "queue = ? AND " if queue is not None else ""
        query = (
            f"SELECT judgments.seq, body FROM judgments JOIN facts USING (seq) WHERE {where}judgments.seq > ? "  # noqa: S608
            f"ORDER BY judgments.seq LIMIT {PAGE}"
        )
        seq = 0
        while rows := self._database.read(query, (seq,) if queue is None else (queue, seq)):
            for seq, body in rows:  # noqa: B007 (the last one is where the next page starts)
                yield decode(body)["body"]

    def snapshot(self, queue: str | None = None) -> Artifact:
        """The judgments so far as an artifact of kind "judgments". Its id depends only on what was judged
        and in which order, not on what else the ledger holds or when the snapshot is taken."""
        with self._ledger.objects.session() as session:  # nobody sweeps the half-written file away
            file = self._ledger.objects.temporary / f"{uuid.uuid4().hex}.judgments"
            write_lines(file, self.list(queue))
            artifact = self._ledger.store(session, "judgments", {"judgments.jsonl": file}, move=True)
            self._ledger.append_new([artifact])
            file.unlink(missing_ok=True)  # it is still here where the store had its content already
        return artifact

    def add_annotator(self, annotator: Mapping[str, Any]) -> None:
        """Keep who may judge: {name, role, token_sha256}. The newest fact about a name counts."""
        self._ledger.note(ANNOTATOR, dict(annotator))

    def annotators(self) -> Sequence[dict[str, Any]]:
        """Oldest first; a name that got a new link comes again."""
        return [{k: v for k, v in note.items() if k != "at"} for note in self._ledger.notes(ANNOTATOR)]


def _said(judgment: Mapping[str, Any]) -> dict[str, Any]:
    """What makes it that judgment: not when it arrived and how long it took."""
    return {k: v for k, v in judgment.items() if k not in ("at", "seconds")}
