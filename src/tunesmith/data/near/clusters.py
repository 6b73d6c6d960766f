"""Components and stars of the graph of near-duplicates.

A component is all that can be reached over pairs at or above the threshold: the unit that no split may cut.
A star is one kept row and rows that are each at or above the threshold to the kept row itself: what may be
removed. Removing by components would eat whole sources through chains (a like b, b like c, a unlike c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunesmith.data.near.join import Floats, Join, similarities
from tunesmith.data.near.shingles import Hashes, Ints


def merge(labels: Ints, a: Ints, b: Ints) -> None:
    """Give linked labels one label, in place: the smallest of those that a chain of links joins."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    linked, at = np.unique(np.concatenate([labels[a], labels[b]]), return_inverse=True)
    n = len(linked)
    links = coo_matrix((np.ones(len(a), np.int8), (at[: len(a)], at[len(a) :])), shape=(n, n))
    _, part = connected_components(links, directed=False)
    least = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(least, part, linked)
    to = np.arange(int(labels.max()) + 1)
    to[linked] = least[part]
    labels[:] = to[labels]


def components(join: Join, labels: Ints, threshold: float | None = None) -> int:
    """Merge labels over all pairs at or above the threshold, in place; NEVER stays apart.
    Returns how many pairs it took to know: not all pairs there are."""
    seen = 0

    def take(a: Ints, b: Ints, similarity: Floats) -> None:
        nonlocal seen
        seen += len(a)
        merge(labels, a, b)

    join.sweep(labels, take, threshold)
    return seen


@dataclass(frozen=True, slots=True)
class Star:
    """What a kept row stands for, and what contradicts it."""

    kept: int
    members: Ints
    similarity: Floats  # of each member to the kept row
    contrary: Ints  # as near, but with another answer: not removed
    contrary_similarity: Floats


def stars(
    join: Join,
    rank: Ints,
    *,
    answer: Ints | None = None,
    apart: Ints | None = None,
    without: Hashes | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Star]:
    """Rows in the order of `rank` (lowest first): each is kept, and takes the later rows that are near it.

    Only rows with an equal `answer` are taken, and only rows with an equal `apart` compared (None: all).
    Kept rows with one answer are below the threshold to each other, so that a second run finds nothing.
    """
    labels = np.arange(len(join.sets))
    components(join, labels)
    sizes = np.bincount(labels, minlength=len(labels))
    tied = np.flatnonzero(sizes[labels] > 1)  # all others are near nothing
    tied = tied[np.argsort(rank[tied], kind="stable")]
    where = _Places(join, tied)
    gone = np.zeros(len(labels), bool)
    found = []
    for done, row in enumerate(tied.tolist()):
        if done % 1024 == 0:
            progress(done, len(tied))
        if gone[row]:
            continue
        near = where.candidates(row)
        near = near[(labels[near] == labels[row]) & (rank[near] > rank[row]) & ~gone[near]]
        if apart is not None:
            near = near[apart[near] == apart[row]]
        near = near[join.may_be_alike(np.full(len(near), row), near, join.threshold)]
        if not len(near):
            continue
        alike = similarities(join.sets, np.full(len(near), row), near, without)
        near, alike = near[alike >= join.threshold], alike[alike >= join.threshold]
        same = np.ones(len(near), bool) if answer is None else answer[near] == answer[row]
        if len(near):
            gone[near[same]] = True
            found.append(Star(row, near[same], alike[same], near[~same], alike[~same]))
    return found


class _Places:
    """Which other rows share a key with a row."""

    def __init__(self, join: Join, rows: Ints) -> None:
        self._join = join
        chosen = np.zeros(len(join.sets), bool)
        chosen[rows] = True
        at = np.flatnonzero(chosen[join.row])
        self._at = at[np.argsort(join.row[at], kind="stable")]
        self._offsets = np.searchsorted(join.row[self._at], np.arange(len(join.sets) + 1))

    def candidates(self, row: int) -> Ints:
        join = self._join
        groups = join.group[self._at[self._offsets[row] : self._offsets[row + 1]]]
        near = np.concatenate([join.row[join.starts[g] : join.stops[g]] for g in groups.tolist()])
        size = join.sizes[row]
        near = np.unique(near).astype(np.int64)
        sizes = join.sizes[near]
        return near[(sizes >= join.threshold * size - 1e-9) & (size >= join.threshold * sizes - 1e-9)]
