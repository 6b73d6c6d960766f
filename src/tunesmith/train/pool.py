"""Every document that supervised fine-tuning may take: of its rows, and behind them of the general data.

    pool = Pool(rows, documents, general, seed=0)
    pool.schedule(mixture, epochs=2.0, global_batch=16)     which of them each step takes
    pool.replayed(forgetting, share, taken, step)           those that a step takes on top, once replay has begun

A row is one document; of the general data a long text is several, one for each window. Shares count documents.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.nouns import Row
from tunesmith.model.flat_layout import Document
from tunesmith.text.render import Renderer
from tunesmith.train.batches import Schedule
from tunesmith.train.forgetting import Forgetting, probe_documents
from tunesmith.train.packing import TokenSchedule
from tunesmith.train.replay import REPLAY, Item, Mixture, Stream, more_of, source_of

Steps = Schedule | TokenSchedule


class Pool:
    """Documents by number: those of `rows` first, in their order."""

    def __init__(
        self,
        rows: Sequence[Row],
        documents: Sequence[Document],
        general: Sequence[tuple[Row, Document]],
        *,
        seed: int,
    ):
        self._rows, self._seed, self.own = rows, seed, len(rows)
        self._general = [row for row, _ in general]
        self.documents = [*documents, *(document for _, document in general)]
        self.places = [f"{r.file}:{r.line}" for r in (*rows, *self._general)]
        items = self._items(())
        self._stream = Stream(items, range(self.own, len(items)), seed)

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
            documents = self.documents[self.own :]
            items += [
                Item(key=d.key, file=r.file, line=r.line, source=REPLAY)
                for r, d in zip(self._general, documents, strict=True)
            ]
        return items


def general_documents(rows: Sequence[Row], renderer: Renderer, max_tokens: int) -> list[tuple[Row, Document]]:
    """Texts in windows, conversations whole. Raises DataError for conversations that are too long."""
    return [(row, d) for row in rows for d in probe_documents([row], renderer, max_tokens)]
