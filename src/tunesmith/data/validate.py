"""What a row must satisfy, when two rows are the same, and how everything wrong is said at once."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from tunesmith.core.canonical import canonical_json
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Message
from tunesmith.data.lines import Fault
from tunesmith.data.shapes.convert import Parts
from tunesmith.data.shapes.known import nearest

SHOWN_PROBLEMS = 50  # of one refusal; the rest is counted by reason


def judge(parts: Parts, labels: frozenset[str], *, label_field: str) -> Fault | None:
    """What is wrong with a well-formed row, by what it says. `labels`: the declared ones; empty: any."""
    if any("\0" in m.content for m in parts.messages) or "\0" in parts.target or "\0" in parts.rejected:
        return Fault(reason="nul", what="a NUL character in a text", fix="remove it")
    if labels and parts.target not in labels:
        near = nearest(parts.target.strip(), labels)
        guess = f"; did you mean {near!r}?" if near else f": {', '.join(map(repr, sorted(labels)[:8]))}"
        return Fault(
            reason="unknown_label",
            field=label_field,
            what=f"{parts.target!r} is not among the {len(labels)} declared labels{guess}",
            fix="correct the label, or add it to task.labels",
        )
    return None


def normalised(text: str) -> str:
    """What a reader would call the same text: NFKC, case folded, runs of white space as one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def input_key(messages: Sequence[Message], target: str, tools: Sequence[dict[str, Any]] = ()) -> bytes:
    """16 bytes, equal for rows that ask the same with the same tools. A row without messages (domain) is its text."""
    turns = [f"{m.role}\x1f{normalised(m.content)}{_calls(m)}" for m in messages] or [normalised(target)]
    if tools:
        turns.append(canonical_json(tools).decode("utf-8"))
    return blake2b("\x1e".join(turns).encode(), digest_size=16).digest()


def answer_key(target: str, rejected: str = "") -> bytes:
    """16 bytes, equal for rows that answer the same, and prefer it to the same."""
    said = f"{normalised(target)}\x1e{normalised(rejected)}" if rejected else normalised(target)
    return blake2b(said.encode(), digest_size=16).digest()


def _calls(m: Message) -> str:
    return "".join(f"\x1f{c.name}\x1f{c.arguments}" for c in m.tool_calls)


def label_variants(labels: Iterable[str]) -> list[list[str]]:
    """Labels that differ only in case, white space or compatibility characters: probably one class."""
    alike: dict[str, list[str]] = {}
    for label in sorted(labels):
        alike.setdefault("".join(normalised(label).split()), []).append(label)
    return [group for group in alike.values() if len(group) > 1]


class Problems:
    """Everything wrong with the data, for one error. Holds the first problems and counts the others."""

    def __init__(self) -> None:
        self.first: list[Problem] = []
        self.whole: list[Problem] = []  # about the data as a whole
        self.reasons: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()

    def add_row(self, where: str, fault: Fault) -> None:
        self.reasons[fault.reason] += 1
        if len(self.first) < SHOWN_PROBLEMS:
            self._shown[fault.reason] += 1
            place = f"{where}: {fault.field}" if fault.field else where
            self.first.append(Problem(where=place, what=fault.what, fix=fault.fix))

    def add(self, problem: Problem) -> None:
        self.whole.append(problem)

    def raise_if_any(self, *, read: int, fix: str = "") -> None:
        """One DataError: the first problems, what is left of each reason, and the way out."""
        if not self.first and not self.whole:
            return
        problems = list(self.first)
        if self.first:
            n = self.reasons.total()
            rest = self.reasons - self._shown
            shown = f"; the first {len(self.first)} are above, the others: {by_reason(rest)}" if rest else ""
            problems.append(
                Problem(
                    where="",
                    what=f"{n:,} of {read:,} rows cannot be used: {by_reason(self.reasons)}{shown}",
                    fix=fix or self._way_out(),
                )
            )
        raise DataError(problems + self.whole)

    def _way_out(self) -> str:
        helps = []
        if set(self.reasons) - {"contradiction", "open_quote"}:
            helps.append("--set data.bad_rows=leave_out")
        if "contradiction" in self.reasons:
            helps.append("--set data.contradictions=leave_out")
        return "correct them" + (f", or leave them out with their reasons: {' '.join(helps)}" if helps else "")


def by_reason(counts: Counter[str]) -> str:
    """ "3 no_label, 1 ragged", the commonest first."""
    return ", ".join(f"{n:,} {reason}" for reason, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
