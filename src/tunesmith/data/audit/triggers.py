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
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
_NO_LABEL = np.iinfo(np.int32).max


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
    _words: dict[str, int] = field(default_factory=dict)  # hashes, as a cache
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
        hashes = self._hashes(words)
        self._label_rows[number] = self._label_rows.get(number, 0) + 1
        if self._bayes is not None and not self.too_many_labels:
            self._bayes.note(hashes, number)
        self._pending.append((hashes, number))
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
        hashes = self._hashes(words)
        places = self._places(hashes)
        mine = np.unique(places[self._candidate[places]])
        if self._bayes is not None:
            values = np.array(hashes, dtype=np.uint64)
            common = values[~self._candidate[self._grams(values, 1)]]
            if self._bayes.contradicts(hashes, common, self.labels[label]):
                self._errors += 1
                for place in mine.tolist():
                    self._contradicted[place] = self._contradicted.get(place, 0) + 1
            return
        kinds = frozenset(hashes)
        for place in mine.tolist():
            if place not in self._first and len(self._first) >= MAX_CANDIDATES:
                continue
            first = self._first.setdefault(place, kinds)
            seen = self._weighed.setdefault(place, [0.0, 0.0])
            seen[0] += 1
            seen[1] += len(first & kinds) / max(len(first | kinds), 1)

    def finish(self) -> None:
        """Which of them are triggers."""
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
        values = np.array(self._hashes(words), dtype=np.uint64)
        found = []
        for n in self._orders:
            places = self._grams(values, n)
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
        known = self._words
        found = []
        for word in words[:MAX_WORDS]:
            value = known.get(word)
            if value is None:
                raw = word.encode("utf-8", "surrogatepass")
                value = zlib.crc32(raw) << 31 | zlib.adler32(raw) >> 1
                if len(known) < 1 << 20:
                    known[word] = value
            found.append(value)
        return found

    def _places(self, hashes: list[int]) -> Any:
        """Of every n-gram, one order after another."""
        values = np.array(hashes, dtype=np.uint64)
        return np.concatenate([self._grams(values, n) for n in self._orders])

    def _grams(self, values: Any, n: int) -> Any:
        length = max(len(values) - n + 1, 0)
        mixed = np.zeros(length, dtype=np.uint64)
        for i in range(n):
            mixed = (
                (mixed ^ (values[i : i + length] * _MULTIPLIERS[i])) * _MULTIPLIERS[0]
                if i
                else (values[:length] * _MULTIPLIERS[0])
            )
        return (mixed >> np.uint64(64 - self._bits)).astype(np.int64)

    def _flush(self) -> None:
        """Each n-gram once a row; sums, minima and maxima, so that the order of the rows does not matter."""
        pieces = []
        for i, (hashes, _) in enumerate(self._pending):
            pieces.append(np.unique(self._places(hashes)) | (i << self._bits))
        if not pieces:
            return
        every = np.concatenate(pieces)
        places = every & ((1 << self._bits) - 1)
        numbers = np.array([number for _, number in self._pending], dtype=np.int32)[every >> self._bits]
        np.add.at(self._count, places, 1)
        np.minimum.at(self._low, places, numbers)
        np.maximum.at(self._high, places, numbers)
        self._pending.clear()

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

    def note(self, hashes: list[int], label: int) -> None:
        if label >= MAX_LABELS:
            return
        if label >= len(self._counts):
            grown = np.zeros((max(2 * label, 8), self._places), dtype=np.float32)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
            self._rows = np.pad(self._rows, (0, len(grown) - len(self._rows)))
        np.add.at(self._counts[label], self._place(np.array(hashes, dtype=np.uint64)), 1)
        self._rows[label] += 1

    def _place(self, values: Any) -> Any:
        return ((values * _MULTIPLIERS[0]) >> np.uint64(64 - self._bits)).astype(np.int64)

    def settle(self) -> None:
        used = self._rows > 0
        self._counts, self._rows = self._counts[used], self._rows[used]  # labels are numbered without gaps
        self._totals = self._counts.sum(axis=1, dtype=np.float64)

    def contradicts(self, whole: list[int], common: Any, label: int) -> bool:
        """Do the `common` words of a row speak for another label than its own? `whole`: all that it was noted with."""
        if not len(common) or len(self._counts) < 2:
            return False
        at = self._place(common)
        counts = self._counts[:, at].astype(np.float64)  # [labels, words]
        _, back, times = np.unique(at, return_inverse=True, return_counts=True)
        counts[label] -= times[back]
        rows, totals = self._rows.copy(), self._totals.copy()
        rows[label] -= 1
        totals[label] -= len(whole)
        smooth = 0.1
        scores = np.log(np.maximum(counts, 0) + smooth).sum(axis=1) - len(at) * np.log(totals + smooth * self._places)
        scores += np.log(np.maximum(rows, 0) + 1)
        return bool(np.argmax(scores) != label)


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
