"""Rendered examples, and which of them make up each optimizer step.

The order of an epoch is by the hash of seed, epoch and content, so it does not depend on the order
of the file, and a step's batch is a function of the step alone: resuming needs no position but that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Row
from tunesmith.model.flat_layout import Document
from tunesmith.text.render import Renderer

PADDING, GROUP_TOKENS = 0.1, 256  # thinner products than of so many tokens are slower than the padding they save


def read_rows(path: Path) -> list[Row]:
    return list(read_lines(path, Row))


def render_rows(rows: Sequence[Row], renderer: Renderer, max_tokens: int) -> list[Document]:
    """Refuses all rows that are too long or have nothing to learn from: nothing is cut or skipped."""
    rendered = renderer.render_rows(rows)
    documents, problems = [], []
    for row, r in zip(rows, rendered, strict=True):
        where = f"{row.file}:{row.line}"
        if len(r.ids) > max_tokens:
            what = f"{len(r.ids)} tokens with the system prompt, {max_tokens} allowed"
            fix = f"--set train.max_tokens={len(r.ids)}, or --set data.over_long=leave_out"
            problems.append(Problem(where=where, what=what, fix=fix))
        elif not any(r.trained[1:]):
            problems.append(Problem(where=where, what="no token to learn from", fix="give the row an answer"))
        elif not 0 < row.weight < math.inf:  # a batch of such rows has no mean loss
            what = f"its weight in the loss is {row.weight!r}: nothing would be learnt from it"
            problems.append(Problem(where=where, what=what, fix="give it a weight above 0, or leave the row out"))
        documents.append(Document(ids=r.ids, trained=r.trained, weight=row.weight, key=row.id, shares=r.shares))
    if problems:
        raise DataError(problems)
    return documents


def last_turn_only(row: Row) -> Row:
    """The row with every assistant turn before its answer as context."""
    if not any(m.role == "assistant" and m.weight for m in row.messages):
        return row
    turns = list(row.messages)
    end = len(turns) - 1 if turns[-1].tool_calls else len(turns)  # a last turn of calls is the answer itself
    for i, m in enumerate(turns[:end]):
        if m.role == "assistant":
            turns[i] = structs.replace(m, weight=0.0)
    return structs.replace(row, messages=tuple(turns))


def shuffled(rows: Sequence[Row], seed: int, epoch: int) -> list[int]:
    """Indices of the rows in the order of this epoch. Equal rows keep the order of file and line."""

    def place(i: int) -> tuple[bytes, str, int]:
        row = rows[i]
        return hashlib.sha256(f"{seed}:{epoch}:{row.id}".encode()).digest(), row.file, row.line

    return sorted(range(len(rows)), key=place)


class Schedule:
    """Which rows each of the optimizer steps takes. The last batch of an epoch may be smaller; a part
    of an epoch takes the first rows of its order."""

    def __init__(self, rows: Sequence[Row], *, epochs: float, global_batch: int, seed: int):
        self._rows, self._seed, self._global_batch = rows, seed, global_batch
        whole = int(epochs)
        self._sizes = [len(rows)] * whole  # rows taken in each epoch
        if part := round((epochs - whole) * len(rows)):
            self._sizes.append(part)
        if not self._sizes:  # a share too small for one row
            self._sizes = [1]
        self._epoch_steps = [math.ceil(size / global_batch) for size in self._sizes]
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def steps(self) -> int:
        return sum(self._epoch_steps)

    @property
    def tokens(self) -> list[int]:
        """Rows of each step: what a schedule counts, as packing.TokenSchedule counts tokens."""
        sizes = []
        for size, steps in zip(self._sizes, self._epoch_steps, strict=True):
            sizes += [self._global_batch] * (steps - 1) + [size - self._global_batch * (steps - 1)]
        return sizes

    def epoch(self, step: int) -> int:
        """Which epoch optimizer step `step` is of, 0-based."""
        return self._place(step)[0]

    def batch(self, step: int) -> list[int]:
        """Row indices of optimizer step `step`, 0-based."""
        epoch, step = self._place(step)
        if self._order[0] != epoch:
            self._order = (epoch, shuffled(self._rows, self._seed, epoch)[: self._sizes[epoch]])
        return self._order[1][step * self._global_batch : (step + 1) * self._global_batch]

    def _place(self, step: int) -> tuple[int, int]:
        """(epoch, step in it)"""
        epoch = 0
        while step >= self._epoch_steps[epoch]:
            step -= self._epoch_steps[epoch]
            epoch += 1
        return epoch, step


def split(documents: Sequence[Document], max_tokens: int, *, shared: int = 0) -> list[list[Document]]:
    """Micro-batches of at most `max_tokens` padded tokens, or of one document that is longer by itself.

    `shared` tokens that all begin with count once. Sorted by length, so that little is padded; the
    sum of the loss does not depend on the grouping.
    """
    groups: list[list[Document]] = []
    for document in sorted(documents, key=lambda d: (len(d.ids), d.key)):
        own = len(document.ids) - shared
        if groups and shared + (len(groups[-1]) + 1) * own <= max_tokens:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups


def like_lengths(documents: Sequence[Document]) -> list[list[Document]]:
    """The documents in groups to pad apart: no more than PADDING of a group is padding where it has GROUP_TOKENS."""
    groups: list[list[Document]] = []
    tokens = 0  # of the last group, without padding
    for document in sorted(documents, key=lambda d: (len(d.ids), d.key)):
        own = len(document.ids)
        if groups and (tokens < GROUP_TOKENS or len(groups[-1]) * own - tokens <= PADDING * tokens):
            groups[-1].append(document)
            tokens += own
        else:
            groups.append([document])
            tokens = own
    return groups
