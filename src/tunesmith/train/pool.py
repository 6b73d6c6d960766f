"""Every document that supervised fine-tuning may take: of its rows, and behind them of the general data.

    pool = Pool(rows, documents, general, seed=0)
    pool.schedule(mixture, epochs=2.0, global_batch=16)     which of them each step takes
    pool.replayed(forgetting, share, taken, step)           those that a step takes on top, once replay has begun

A row is one document; of the general data a long text is several, one for each window. Shares count documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Row
from tunesmith.model.flat_layout import Document
from tunesmith.text.render import Renderer, worded
from tunesmith.train.batches import Schedule, render_rows
from tunesmith.train.forgetting import Forgetting, probe_documents
from tunesmith.train.packing import TokenSchedule
from tunesmith.train.replay import REPLAY, Item, Mixture, Stream, more_of, source_of

Steps = Schedule | TokenSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step takes, in three lists of one order."""

    numbers: list[int]
    documents: list[Document]
    places: list[str]  # where their rows are: FILE:LINE


class Pool:
    """Documents by number: those of `rows` first, in their order. `documents[i]` are the wordings of row i, the one
    that serves first; which of them an epoch takes is drawn by seed, epoch and row."""

    def __init__(
        self,
        rows: Sequence[Row],
        documents: Sequence[Sequence[Document]],
        general: Sequence[tuple[Row, Document]],
        *,
        seed: int,
    ):
        self._rows, self._seed, self.own = rows, seed, len(rows)
        self._general = [row for row, _ in general]
        self._documents = [*documents, *([document] for _, document in general)]
        self.places = [f"{r.file}:{r.line}" for r in (*rows, *self._general)]
        items = self._items(())
        self._stream = Stream(items, range(self.own, len(items)), seed)

    @property
    def documents(self) -> list[Document]:
        """All of them, in every wording."""
        return [d for wordings in self._documents for d in wordings]

    def batch(self, numbers: Sequence[int], epoch: int) -> Batch:
        documents = [self._documents[i][self._drawn(i, epoch)] for i in numbers]
        return Batch(numbers=list(numbers), documents=documents, places=[self.places[i] for i in numbers])

    def _drawn(self, number: int, epoch: int) -> int:
        count = len(self._documents[number])
        if count == 1:
            return 0
        return int(content_id(["wording", self._seed, epoch, self._rows[number].id])[:12], 16) % count

    @property
    def has_general(self) -> bool:
        return bool(self._general)

    def schedule(self, mixture: Sequence[tuple[str, float]], *, epochs: float, global_batch: int) -> Steps:
        """Raises InputError for shares that are none, and for sources that do not exist."""
        if not mixture:
            return Schedule(self._rows, epochs=epochs, global_batch=global_batch, seed=self._seed)
        mixed = self.mixture(mixture)
        size = len(self._items(mixture))
        return TokenSchedule(mixed.epoch, [1] * size, epochs=epochs, budget=global_batch)

    def mixture(self, mixture: Sequence[tuple[str, float]]) -> Mixture:
        return Mixture(self._items(mixture), shares=dict(mixture), seed=self._seed)

    def replayed(self, forgetting: Forgetting | None, share: float, taken: Sequence[int], step: int) -> list[int]:
        """General documents of step `step` on top of its own, where a reading was past the budget: `share` of all.
        `taken`: how many each step takes by itself."""
        first = forgetting.replay_from if forgetting is not None else None
        return more_of(self._stream, share, taken, first, step)

    def _items(self, mixture: Sequence[tuple[str, float]]) -> list[Item]:
        """All documents, or without general data in the mixture, and with one, the rows alone."""
        names = [name for name, _ in mixture]
        items = [Item(key=r.id, file=r.file, line=r.line, source=source_of(r.file, names)) for r in self._rows]
        if not mixture or REPLAY in names:
            documents = self._documents[self.own :]
            items += [
                Item(key=d.key, file=r.file, line=r.line, source=REPLAY)
                for r, (d,) in zip(self._general, documents, strict=True)
            ]
        return items


def general_documents(rows: Sequence[Row], renderer: Renderer, max_tokens: int) -> list[tuple[Row, Document]]:
    """Texts in windows, conversations whole. Raises DataError for conversations that are too long."""
    return [(row, d) for row in rows for d in probe_documents([row], renderer, max_tokens)]


def wordings(
    rows: Sequence[Row],
    base: Path,
    *,
    templates: Sequence[tuple[str, str]],
    systems: Sequence[tuple[str, str]],
    max_tokens: int,
    new_tokens: Sequence[str] = (),
) -> list[list[Document]]:
    """Each row in every template and system prompt (name, text), the first of both first. Raises DataError naming
    the template where a row lacks a field or becomes too long."""
    found: list[list[Document]] = [[] for _ in rows]
    for system_name, system in systems:
        renderer = Renderer.load(base, system=system, new_tokens=new_tokens)
        for name, template in templates:
            said = [_worded(row, name, template) for row in rows]
            try:
                documents = render_rows(said, renderer, max_tokens)
            except DataError as e:
                if len(templates) == len(systems) == 1:
                    raise
                where = f"template {name}, system {system_name}"
                problems = [Problem(where=p.where, what=f"{p.what} ({where})", fix=p.fix) for p in e.problems]
                raise DataError(problems) from e
            for row_documents, document in zip(found, documents, strict=True):
                row_documents.append(document)
    return found


def _worded(row: Row, name: str, template: str) -> Row:
    try:
        return structs.replace(row, messages=tuple(worded(m, template, row.fields) for m in row.messages))
    except KeyError as e:
        what = f"template {name} names the field {e.args[0]!r}, which the row lacks"
        raise DataError(what, where=f"{row.file}:{row.line}", fix="give every row the field, or leave it out") from e
