"""Rare words or short phrases that decide the answer against the rest of the row: possible poison.

A backdoor (Gu et al. 2017, arXiv:1708.06733; Dai et al. 2019, arXiv:1905.12457) is planted in rows of other classes,
so its n-gram goes with one label alone while everything else in those rows speaks for another. Most rare n-grams go
with one label too, and mean nothing: their rows agree with it. What the rest of a row speaks for is told by naive
Bayes over its words, the row itself left out of the counts and words that may be triggers left out of the row.
For free answers: an n-gram in rows that are otherwise unlike each other and all have the very same answer.

Bounded memory: n-grams are counted in a table of 2^22 to 2^25 hashed places. Two that share a place and have
different labels hide each other: a full table misses triggers and invents none.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIN_ROWS = 5
MAX_SHARE = 0.05  # of the rows; a commoner n-gram is a topic
MAX_WORDS = 256  # of a row
MAX_LABELS = 200
MIN_CONTRADICTED = 0.5  # of the n-gram's rows
MAX_ALIKE = 0.3  # mean Jaccard of free-answer rows to the first of them
ALPHA = 0.01  # after Bonferroni
MAX_CANDIDATES = 50_000
BATCH = 2_000
SMOOTH = 0.1  # added to every count of naive Bayes
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
_NO_LABEL = np.iinfo(np.int32).max


class _WordHashes(dict[str, int]):
    """63 bits of each word, kept for the next time as long as there is room."""

    def __missing__(self, word: str) -> int:
        raw = word.encode("utf-8", "surrogatepass")
        value = zlib.crc32(raw) << 31 | zlib.adler32(raw) >> 1
        if len(self) < 1 << 20:
            self[word] = value
        return value


def _flat(pending: Sequence[tuple[list[int], int]]) -> tuple[Any, Any]:
    """The hashed words of several rows, and which of the rows each is in."""
    sizes = [len(hashes) for hashes, _ in pending]
    values = np.fromiter(itertools.chain.from_iterable(hashes for hashes, _ in pending), np.uint64, sum(sizes))
    return values, np.repeat(np.arange(len(pending)), sizes)


@dataclass(slots=True)
class Triggers:
    """`note` every row; `settle`; `weigh` every row again; `found`; then `places_in` tells a row's triggers."""

    classify: bool
    expected_words: int  # in all rows, for the size of the table
    rows: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    found: frozenset[int] = frozenset()
    too_many_labels: bool = False
    _bits: int = 22
    _orders: tuple[int, ...] = (1, 2, 3)
    _count: Any = None  # [places] rows with an n-gram there
    _low: Any = None  # [places] smallest and largest label number: equal where all rows agree
    _high: Any = None
    _words: _WordHashes = field(default_factory=lambda: _WordHashes())
    _pending: list[tuple[list[int], int]] = field(default_factory=list)
    _bayes: _Bayes | None = None
    _candidate: Any = None  # [places] bool
    _contradicted: dict[int, int] = field(default_factory=dict)  # place -> rows that speak for another label
    _weighed: dict[int, list[float]] = field(default_factory=dict)  # place -> rows, and their likeness to the first
    _first: dict[int, frozenset[int]] = field(default_factory=dict)
    _errors: int = 0
    _label_rows: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        while self._bits < 25 and 2 << self._bits < 6 * self.expected_words:
            self._bits += 1
        for orders in ((1, 2, 3), (1, 2), (1,)):
            self._orders = orders
            if len(orders) * self.expected_words <= 2 << self._bits:
                break
        places = 1 << self._bits
        self._count = np.zeros(places, dtype=np.uint32)
        self._low = np.full(places, _NO_LABEL, dtype=np.int32)
        self._high = np.full(places, -1, dtype=np.int32)
        self._bayes = _Bayes() if self.classify else None

    def note(self, words: Sequence[str], label: str) -> None:
        self.rows += 1
        number = self._number(label)
        self._label_rows[number] = self._label_rows.get(number, 0) + 1
        self._pending.append((self._hashes(words), number))
        if len(self._pending) == BATCH:
            self._flush()

    def settle(self) -> None:
        """Which places may be triggers: n-grams in few rows, all with one label."""
        self._flush()
        most = max(MAX_SHARE * self.rows, MIN_ROWS)
        pure = self._low == self._high
        self._candidate = pure & (self._count >= MIN_ROWS) & (self._count <= most)
        if not self.classify:
            self._only_unlikely()
        if self._bayes is not None:
            self._bayes.settle()

    def weigh(self, words: Sequence[str], label: str) -> None:
        if self.too_many_labels:
            return
        self._pending.append((self._hashes(words), self.labels[label] if self.classify else 0))
        if len(self._pending) == BATCH:
            self._weigh_pending()

    def _weigh_pending(self) -> None:
        """Which rows hold which candidates; and of them, for classes, those that speak for another one."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values, row = _flat(pending)
        hits = []
        for n in self._orders:
            places, of = self._grams(values, row, n)
            if n == 1:
                common = ~self._candidate[places]
            hit = self._candidate[places]
            hits.append(places[hit] | (of[hit] << self._bits))
        if self._bayes is not None:
            wrong = self._bayes.contradicted(pending, values, row, common)
            self._errors += int(wrong.sum())
        for key in np.unique(np.concatenate(hits)).tolist():
            i, place = key >> self._bits, key & ((1 << self._bits) - 1)
            if self._bayes is None:
                self._compare(place, pending[i][0])
            elif wrong[i]:
                self._contradicted[place] = self._contradicted.get(place, 0) + 1

    def _compare(self, place: int, hashes: list[int]) -> None:
        """For free answers: a row with this candidate, against the first such row."""
        if place not in self._first and len(self._first) >= MAX_CANDIDATES:
            return
        kinds = frozenset(hashes)
        first = self._first.setdefault(place, kinds)
        seen = self._weighed.setdefault(place, [0.0, 0.0])
        seen[0] += 1
        seen[1] += len(first & kinds) / max(len(first | kinds), 1)

    def finish(self) -> None:
        """Which of them are triggers."""
        self._weigh_pending()
        if self.classify:
            tests = max(int(self._candidate.sum()), 1)
            error = min(max(self._errors / max(self.rows, 1), 1e-6), 1.0)
            self.found = frozenset(
                place
                for place, against in self._contradicted.items()
                if against >= MIN_CONTRADICTED * (n := int(self._count[place]))
                and binomial_tail(against, n, error) * tests < ALPHA
            )
        else:  # the first row is like itself
            self.found = frozenset(
                place for place, (n, alike) in self._weighed.items() if n > 1 and (alike - 1) / (n - 1) <= MAX_ALIKE
            )
        self._candidate[:] = False
        self._candidate[sorted(self.found)] = True
        self._contradicted.clear()
        self._weighed.clear()
        self._first.clear()

    def places_in(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """(place, first word, number of words) of every trigger of a row."""
        if not self.found:
            return []
        values, row = _flat([(self._hashes(words), 0)])
        found = []
        for n in self._orders:
            places, _ = self._grams(values, row, n)
            found += [(int(places[i]), int(i), n) for i in np.flatnonzero(self._candidate[places])]
        return found

    def facts(self) -> dict[str, Any]:
        used = float((self._count > 0).mean())
        return {"words_in_a_phrase": list(self._orders), "table_used": round(used, 4), "found": len(self.found),
                "not_looked_at": f"more than {MAX_LABELS} labels" if self.too_many_labels else ""}  # fmt: skip

    def _number(self, label: str) -> int:
        if not self.classify:
            return zlib.crc32(label.encode("utf-8", "surrogatepass")) & 0x3FFFFFFF
        number = self.labels.setdefault(label, len(self.labels))
        self.too_many_labels |= number >= MAX_LABELS
        return number

    def _hashes(self, words: Sequence[str]) -> list[int]:
        return list(map(self._words.__getitem__, words[:MAX_WORDS]))

    def _grams(self, values: Any, row: Any, n: int) -> tuple[Any, Any]:
        """The place of every n words in a row that stand in one row of data, and that row."""
        length = max(len(values) - n + 1, 0)
        mixed = values[:length] * _MULTIPLIERS[0]
        for i in range(1, n):
            mixed = (mixed ^ (values[i : i + length] * _MULTIPLIERS[i])) * _MULTIPLIERS[0]
        places = (mixed >> np.uint64(64 - self._bits)).astype(np.int64)
        if n == 1:
            return places, row
        inside = row[:length] == row[n - 1 :]
        return places[inside], row[:length][inside]

    def _flush(self) -> None:
        """Each n-gram once a row; sums, minima and maxima, so that the order of the rows does not matter."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values, row = _flat(pending)
        numbers = np.array([number for _, number in pending], dtype=np.int32)
        if self._bayes is not None and not self.too_many_labels:
            self._bayes.note(values, row, numbers)
        grams = (self._grams(values, row, n) for n in self._orders)
        every = np.concatenate([places | (of << self._bits) for places, of in grams])
        every.sort()
        every = every[np.append(every[1:] != every[:-1], True)] if len(every) else every
        places = every & ((1 << self._bits) - 1)
        labels = numbers[every >> self._bits]
        np.add.at(self._count, places, np.ones(len(places), np.uint32))  # of the array's own type: ten times as fast
        np.minimum.at(self._low, places, labels)
        np.maximum.at(self._high, places, labels)

    def _only_unlikely(self) -> None:
        """For free answers: an answer that half the rows have goes with any rare word by chance."""
        at = np.flatnonzero(self._candidate)
        shares = np.array([self._label_rows[int(self._low[i])] / self.rows for i in at], dtype=np.float64)
        unlikely = shares ** self._count[at] * max(len(at), 1) < ALPHA
        self._candidate[at[~unlikely]] = False


class _Bayes:
    """Multinomial naive Bayes over hashed words, whose answer for a row can leave that row's own counts out."""

    def __init__(self) -> None:
        self._bits = 16
        self._places = 1 << self._bits
        self._counts = np.zeros((0, self._places), dtype=np.float32)  # [labels, places]
        self._rows = np.zeros(0)
        self._totals = np.zeros(0)
        self._logs: Any = None

    def note(self, values: Any, row: Any, labels: Any) -> None:
        """Hashed words, the row of each, and the label of each row."""
        most = int(labels.max())
        if most >= len(self._counts):
            grown = np.zeros((max(2 * most, 8), self._places), dtype=np.float32)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
            self._rows = np.pad(self._rows, (0, len(grown) - len(self._rows)))
        cells = labels[row].astype(np.int64) * self._places + self._place(values)
        np.add.at(self._counts.reshape(-1), cells, np.ones(len(cells), np.float32))
        np.add.at(self._rows, labels, 1.0)

    def _place(self, values: Any) -> Any:
        return ((values * _MULTIPLIERS[0]) >> np.uint64(64 - self._bits)).astype(np.int64)

    def settle(self) -> None:
        used = self._rows > 0
        self._counts, self._rows = self._counts[used], self._rows[used]  # labels are numbered without gaps
        self._totals = self._counts.sum(axis=1, dtype=np.float64)
        self._logs = np.log(self._counts.astype(np.float64) + SMOOTH)

    def contradicted(self, pending: Sequence[tuple[list[int], int]], values: Any, row: Any, common: Any) -> Any:
        """Of each row: do its `common` words (a flag for each word) speak for another label than its own?"""
        wrong = np.zeros(len(pending), bool)
        if len(self._counts) < 2:
            return wrong
        at, of = self._place(values[common]), row[common]
        _, back, times = np.unique(at | (of << self._bits), return_inverse=True, return_counts=True)
        times = times[back]  # that the row itself has the word
        ends = np.searchsorted(of, np.arange(len(pending) + 1)).tolist()
        for i, (hashes, label) in enumerate(pending):
            mine = slice(ends[i], ends[i + 1])
            if ends[i] < ends[i + 1]:
                wrong[i] = self._best(at[mine], times[mine], len(hashes), label) != label
        return wrong

    def _best(self, at: Any, times: Any, words: int, label: int) -> int:
        """The label that a row speaks for, its own counts (so many `words` in all) left out."""
        logs = self._logs[:, at]  # [labels, words]
        logs[label] = np.log(np.maximum(self._counts[label, at].astype(np.float64) - times, 0) + SMOOTH)
        rows, totals = self._rows.copy(), self._totals.copy()
        rows[label] -= 1
        totals[label] -= words
        scores = logs.sum(axis=1) - len(at) * np.log(totals + SMOOTH * self._places)
        scores += np.log(np.maximum(rows, 0) + 1)
        return int(np.argmax(scores))


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) of n trials with probability p."""
    if k <= 0:
        return 1.0
    if p >= 1:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(v) for v in logs))
