"""What people are asked about: texts to label, labels in doubt, generated pairs to approve."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tunesmith.core.canonical import read_lines
from tunesmith.core.nouns import Message, Row
from tunesmith.review.judgment import Kind


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an item comes from, as far as a person wants to see it."""

    file: str = ""
    line: int = 0  # 1-based; 0: none
    page: int | None = None
    heading: tuple[str, ...] = ()
    passage: str = ""  # the text that a pair was made from


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to judge. Its id says which judgments are about it, so it covers what is judged."""

    id: str
    kind: Kind
    text: str = ""  # of a label item: what is to be labelled
    messages: tuple[Message, ...] = ()  # of a label item from a chat: the turns before `text`
    prompt: str = ""  # of a pair
    completion: str = ""
    given: str = ""  # the label it has now, where that is in doubt
    suggested: str = ""  # the label that a model would give
    confidence: float | None = None  # of the suggestion, 0 to 1
    missing: tuple[str, ...] = ()  # numbers and names of an answer that its passage lacks
    uncertainty: float | None = None  # the higher, the sooner it is asked; None: last
    source: Source = Source()


def least_confidence(probabilities: Iterable[float]) -> float:
    """1 - max p, between 0 (certain) and 1 - 1/K. Source: Settles 2009, Active Learning Literature Survey, 3.1."""
    return 1.0 - max(probabilities)


def label_items(
    rows: Iterable[Row],
    *,
    labels: tuple[str, ...] = (),
    probabilities: Mapping[str, tuple[float, ...]] | None = None,
) -> list[Item]:
    """Rows as items to label. `probabilities`: by row id, over `labels` in their order, for the suggestion."""
    items = []
    for row in rows:
        p = (probabilities or {}).get(row.id, ())
        best = p.index(max(p)) if p else 0
        items.append(
            Item(
                id=row.id,
                kind="label",
                text=row.example.input,
                messages=_before(row),
                suggested=labels[best] if p else "",
                confidence=p[best] if p else None,
                uncertainty=least_confidence(p) if p else None,
                source=Source(file=row.file, line=row.line),
            )
        )
    return items


def doubted_items(examples: Path) -> list[Item]:
    """The probable label errors of a folder (label_errors.jsonl of the stage label), the most suspect first.

    An item has the id that its row had when it came in: judgments are looked up by that one.
    """
    doubts = {d["id"]: d for d in read_lines(examples / "label_errors.jsonl")}
    rows = {row.id: row for row in read_lines(examples / "rows.jsonl", Row) if row.id in doubts}
    return [
        Item(
            id=doubt["row"],
            kind="label",
            text=rows[id].example.input,
            messages=_before(rows[id]),
            given=doubt["given"],
            suggested=doubt["suggested"],
            confidence=doubt["probability_suggested"],
            source=Source(file=rows[id].file, line=rows[id].line),
        )
        for id, doubt in doubts.items()
    ]


def pair_items(pairs: Path, passages: Path | None) -> list[Item]:
    """The pairs of a folder (pairs.jsonl) beside the passages they were made from (passages.jsonl)."""
    text: dict[str, str] = {}
    if passages is not None:
        text = {p["id"]: p["text"] for p in read_lines(passages / "passages.jsonl")}
    items = []
    for pair in read_lines(pairs / "pairs.jsonl"):
        source = pair["source"]
        items.append(
            Item(
                id=pair["id"],
                kind="pair",
                prompt=pair["prompt"],
                completion=pair["completion"],
                missing=tuple(pair.get("support", {}).get("missing", ())),
                source=Source(
                    file=source.get("file", ""),
                    page=source.get("page"),
                    heading=tuple(source.get("heading", ())),
                    passage=text.get(source.get("passage", ""), ""),
                ),
            )
        )
    return items


def _before(row: Row) -> tuple[Message, ...]:
    """The turns before the one that is judged; none for a single question."""
    last = max((n for n, m in enumerate(row.messages) if m.role == "user"), default=0)
    return row.messages[:last]


def place(seed: int, what: str, id: str) -> int:
    """A number below 2^64 that looks random, and stays with the item however many others come and go."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\n{what}\n{id}".encode(), digest_size=8).digest(), "big")
