"""Every pair of texts at or above a similarity, found exactly: a set-similarity join over shingle sets.

    prefix filter   two sets with Jaccard >= t share a shingle among the |x| - ceil(t|x|) + 1 rarest of each
                    (Chaudhuri et al. 2006; Bayardo et al. 2007, "Scaling up all pairs similarity search")
    length filter   the smaller set has at least t times the larger one's shingles
    bitmap filter   512 parity bits a set: sets differ in at least as many shingles as their bitmaps in bits
                    (Sandes et al. 2017, "Exact set similarity joins with bitmap filters")
    verification    the shared shingles of what is left are counted

No filter loses a pair, so recall is 1 by construction and precision is 1 by verification. Rarest first
makes it fast: most shingles of a text occur nowhere else, and a text whose rare shingles are all its own
is compared with nothing. "Rare" is judged by counts in hashed buckets; any order that all sets share is
right, so that a collision costs time and no pair.

A sweep visits the pairs of each shared shingle by their distance in size order: first neighbours, then
next but one, and so on; groups of rows that need no further comparison (all in one component, all in one
split) are dropped on the way. Ten thousand copies of a text so cost some ten thousand comparisons.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.near.shingles import Hashes, Ints, Shingles, is_in, spans

BLOCK = 1 << 21  # candidate pairs, or shingles, looked at together
CACHED_SHINGLES, CACHED_ROWS = 1 << 17, 512  # in one pass over sets: so many fit the processor's cache
WORDS_OF_BITMAP = 8  # of 64 bits
ROUNDING = 1e-9  # so that 0.07 * 100 is 7
NEVER = -1  # label of rows that a sweep leaves alone

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]  # shingle hash in the upper half, position of the row in size order in the lower
Places = NDArray[np.int32]  # in the flat list of rows by shared key
Bits = NDArray[np.uint64]  # N x WORDS_OF_BITMAP


def similarities(
    sets: Shingles, a: Ints, b: Ints, without: Hashes | None = None, *, other: Shingles | None = None
) -> Floats:
    """Jaccard of each pair (a[i], b[i]); `b` counts in `other` if given. Of shingles in `without` (ascending),
    those that both sets have are not counted: so leaving more out never makes two texts more alike."""
    right = other or sets
    shared, spared = np.zeros(len(a), np.int64), np.zeros(len(a), np.int64)
    both = sets.sizes[a] + right.sizes[b]
    cuts = np.searchsorted(np.cumsum(both), np.arange(BLOCK, int(both.sum()) + 1, BLOCK))
    for part in np.split(np.arange(len(a)), np.unique(cuts)):
        if len(part):
            shared[part], spared[part] = _shared(sets, right, a[part], b[part], without)
    union = both - shared - spared
    return np.where(union > 0, (shared - spared) / np.maximum(union, 1), 1.0)


def overlaps(sets: Shingles, a: Ints, right: Shingles, b: Ints) -> Ints:
    """How many shingles each pair shares."""
    shared = np.zeros(len(a), np.int64)
    for part in np.array_split(np.arange(len(a)), len(a) // 4096 + 1):
        if len(part):
            shared[part], _ = _shared(sets, right, a[part], b[part], None)
    return shared


def _shared(left: Shingles, right: Shingles, a: Ints, b: Ints, without: Hashes | None) -> tuple[Ints, Ints]:
    """Shared shingles of each pair, and how many of them are in `without`."""
    keys = []
    for sets, rows in ((left, a), (right, b)):
        sizes = sets.sizes[rows]
        pair = np.repeat(np.arange(len(rows), dtype=np.uint64) << np.uint64(32), sizes)
        keys.append(pair | sets.values[spans(sets.offsets[rows], sizes)])
    merged = np.concatenate(keys)
    merged.sort()
    twice = merged[:-1][merged[1:] == merged[:-1]]
    pair = (twice >> np.uint64(32)).astype(np.int64)
    shared = np.bincount(pair, minlength=len(a))
    if without is None or not len(without):
        return shared, np.zeros(len(a), np.int64)
    return shared, np.bincount(pair[is_in(twice.astype(np.uint32), without)], minlength=len(a))


@dataclass(frozen=True, slots=True)
class Rarity:
    """How often shingles occur, counted in hashed buckets: never too low, and at most 255."""

    counts: NDArray[np.uint8]
    shift: np.uint32

    @classmethod
    def of(cls, sets: Shingles) -> Rarity:
        bits = min(28, max(16, len(sets.values).bit_length() + 1))
        shift = np.uint32(32 - bits)
        counts = np.zeros(1 << bits, np.uint8)
        for start in range(0, len(sets.values), BLOCK):
            buckets = np.sort(sets.values[start : start + BLOCK] >> shift)
            begins = np.flatnonzero(np.concatenate([[True], buckets[1:] != buckets[:-1]]))
            times = np.diff(np.append(begins, len(buckets)))
            where = buckets[begins]
            counts[where] = np.minimum(counts[where].astype(np.int64) + times, 255)
        return cls(counts, shift)

    def __getitem__(self, values: Hashes) -> NDArray[np.uint8]:
        return self.counts[values >> self.shift]


def bitmaps(sets: Shingles) -> Bits:
    """512 bits a set: the parity of its shingles in each of 512 buckets."""
    width = 64 * WORDS_OF_BITMAP
    out = np.empty((len(sets), WORDS_OF_BITMAP), np.uint64)
    for rows, row, values in blocks(sets):
        bins = np.bincount((row - rows.start) * width + (values & np.uint32(width - 1)), minlength=len(rows) * width)
        odd = (bins & 1).astype(np.uint8).reshape(len(rows), width)
        out[rows.start : rows.stop] = np.packbits(odd, axis=1).view(np.uint64)
    return out


def blocks(sets: Shingles) -> Iterator[tuple[range, Ints, Hashes]]:
    """Ranges of rows, each shingle's row, and the shingles."""
    start = 0
    while start < len(sets):
        stop = int(np.searchsorted(sets.offsets, sets.offsets[start] + CACHED_SHINGLES, side="right")) - 1
        stop = min(max(stop, start + 1), start + CACHED_ROWS, len(sets))
        low, high = sets.offsets[start], sets.offsets[stop]
        yield range(start, stop), np.repeat(np.arange(start, stop), sets.sizes[start:stop]), sets.values[low:high]
        start = stop


def prefix_keys(sets: Shingles, threshold: float, place: Ints) -> Keys:
    """A key for each of the rarest shingles of each set, but for those that occur once."""
    rarity = Rarity.of(sets)
    sizes = sets.sizes
    length = sizes - np.ceil(threshold * sizes - ROUNDING).astype(np.int64) + 1
    out = array("Q")  # grows in place
    for rows, row, values in blocks(sets):
        order = (row - rows.start).astype(np.uint64) << np.uint64(40)
        order |= rarity[values].astype(np.uint64) << np.uint64(32)
        order |= values
        order.sort()
        rank = np.arange(len(order)) - np.repeat(sets.offsets[rows.start : rows.stop] - sets.offsets[rows.start],
                                                 sizes[rows.start : rows.stop])  # fmt: skip
        chosen = (rank < length[row]) & ((order >> np.uint64(32)).astype(np.uint8) > 1)
        keys = (order[chosen] & np.uint64(0xFFFFFFFF)) << np.uint64(32)
        out.frombytes((keys | place[row[chosen]].astype(np.uint64)).tobytes())
    return np.frombuffer(out, np.uint64)


class Join:
    """Candidates of one threshold, for any number of sweeps at this threshold or above.

    `keys` replaces the prefix filter (see minhash.py): from the sets and each row's place in size order, keys
    whose upper half is equal for rows to be compared.
    """

    def __init__(
        self, sets: Shingles, threshold: float, keys: Callable[[Shingles, float, Ints], Keys] = prefix_keys
    ) -> None:
        self.sets = sets
        self.threshold = threshold
        self.sizes = sets.sizes
        self.order = np.argsort(self.sizes, kind="stable")
        place = np.empty(len(sets), np.int64)
        place[self.order] = np.arange(len(sets))
        self.bits = bitmaps(sets)
        self._group(keys(sets, threshold, place))

    def _group(self, keys: Keys) -> None:
        """Rows that share a key lie together, in order of size; what stands alone is dropped."""
        keys.sort()
        order = self.order.astype(np.int32)  # 32 bits: there are nearly as many keys as shingles
        self.row = np.empty(len(keys), np.int32)
        starts = [np.zeros(0, np.int32)]
        n = 0
        for at in range(0, len(keys), BLOCK):  # block by block: one temporary array of all keys is room for two rows
            head = (keys[max(at - 1, 0) : at + BLOCK + 1] >> np.uint64(32)).astype(np.uint32)
            same = np.zeros(len(head) + 1, bool)  # does a key equal the one before it?
            same[1:-1] = head[1:] == head[:-1]
            here = slice(int(at > 0), int(at > 0) + len(keys[at : at + BLOCK]))
            before, after = same[:-1][here], same[1:][here]
            shares = before | after
            chosen = keys[at : at + BLOCK][shares]
            self.row[n : n + len(chosen)] = order[chosen.astype(np.uint32)]
            starts.append((n + np.flatnonzero(~before[shares])).astype(np.int32))
            n += len(chosen)
        self.row = self.row[:n].copy()
        self.starts = np.concatenate(starts)
        self.stops = np.append(self.starts[1:], np.int32(n)) if n else self.starts
        self.group = np.repeat(np.arange(len(self.starts), dtype=np.int32), self.stops - self.starts)

    def sweep(self, labels: Ints, take: Callable[[Ints, Ints, Floats], None], threshold: float | None = None) -> None:
        """Call `take(a, b, similarity)` with every pair at or above the threshold whose labels differ and are
        not NEVER. `take` may change labels on the way: pairs that no longer differ are passed over. A pair may
        come more than once."""
        t = self.threshold if threshold is None else threshold
        assert t >= self.threshold
        active = np.arange(len(self.row), dtype=np.int32)
        distance = 0
        while len(active):
            distance += 1
            differs = self._differs(labels) if distance & (distance - 1) == 0 else None
            kept = (active[at : at + BLOCK] for at in range(0, len(active), BLOCK))
            active = np.concatenate([self._in_reach(part, distance, differs, t) for part in kept])
            for start in range(0, len(active), BLOCK):
                left = active[start : start + BLOCK]
                a, b = self.row[left].astype(np.int64), self.row[left + distance].astype(np.int64)
                self._verify(*self._plausible(a, b, labels, t), t, take)

    def _in_reach(self, active: Places, distance: int, differs: NDArray[np.bool_] | None, t: float) -> Places:
        """The places that have, so far on in their group, a row that is not too large for them."""
        group = self.group[active]
        stays = active + distance < self.stops[group]
        if differs is not None:
            stays &= differs[group]
        active = active[stays]
        near = self.sizes[self.row[active]] >= t * self.sizes[self.row[active + distance]] - ROUNDING
        return active[near]  # what comes later is larger still

    def _differs(self, labels: Ints) -> NDArray[np.bool_]:
        """Groups of rows that still have something to compare."""
        if not len(self.starts):
            return np.zeros(0, bool)
        found = labels[self.row]
        most = np.maximum.reduceat(found, self.starts)
        least = np.minimum.reduceat(np.where(found == NEVER, np.iinfo(np.int64).max, found), self.starts)
        return least < most

    def _plausible(self, a: Ints, b: Ints, labels: Ints, t: float) -> tuple[Ints, Ints]:
        """The pairs that labels and bitmaps leave, each once."""
        wanted = labels[a] != labels[b]
        wanted &= (labels[a] != NEVER) & (labels[b] != NEVER)
        a, b = a[wanted], b[wanted]
        a, b = np.minimum(a, b), np.maximum(a, b)
        likely = self.may_be_alike(a, b, t)
        pairs = np.unique(a[likely] * len(self.sizes) + b[likely])
        return np.divmod(pairs, max(len(self.sizes), 1))

    def may_be_alike(self, a: Ints, b: Ints, t: float) -> NDArray[np.bool_]:
        """False only for pairs below t."""
        both = self.sizes[a] + self.sizes[b]
        apart = np.bitwise_count(self.bits[a] ^ self.bits[b]).sum(axis=1, dtype=np.int64)
        most = (both - apart) / 2  # shared shingles at the most
        return np.asarray(most >= t * (both - most) - ROUNDING)

    def _verify(self, a: Ints, b: Ints, t: float, take: Callable[[Ints, Ints, Floats], None]) -> None:
        if len(a):
            found = similarities(self.sets, a, b)
            alike = found >= t
            if alike.any():
                take(a[alike], b[alike], found[alike])


def pairs(join: Join, labels: Ints | None = None, threshold: float | None = None) -> tuple[Ints, Ints, Floats]:
    """All pairs whose labels differ (None: all pairs), a < b, ascending."""
    found: list[tuple[Ints, Ints, Floats]] = []
    everyone = np.arange(len(join.sets)) if labels is None else labels
    join.sweep(everyone, lambda a, b, s: found.append((a, b, s)), threshold)
    if not found:
        none = np.zeros(0, np.int64)
        return none, none.copy(), np.zeros(0)
    a, b, s = (np.concatenate(part) for part in zip(*found, strict=True))
    _, once = np.unique(a * len(join.sets) + b, return_index=True)
    return a[once], b[once], s[once]
