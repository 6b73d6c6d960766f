"""The units of a split: what is near or in one group stays together, and no pair that is near is ever parted.

    grow      groups joined over near-duplicates into components
    too large a component of more rows than `limit`, or one that holds rows of two splits already (pins): it is
              put together again from its most alike rows down, and a step that would make it too large, or join
              two splits, is not taken. Where this would cost more than a tenth of its rows, it has no bridges to
              speak of but is one dense cluster: then it stays whole, whatever its size
    bridges   after placing: of every near pair that straddles two splits, one row is left out: a new row before
              one that has its place, a training row before a test row, then the row in most such pairs
    prove     no near pair straddles, found by a join of its own over what is left

Nodes are the rows of the data and, after them, ghosts: rows of an earlier data set that are gone from the data
but still hold their place, so that a corrected test row follows what it was and not into training.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.near.clusters import components
from tunesmith.data.near.join import NEVER, Floats, Join, pairs
from tunesmith.data.near.shingles import Ints, Shingles

DENSE = 0.1  # of a component's rows, that dividing it may cost
LEVELS = 8  # steps from equal down to the threshold
NONE = -1  # no pin

Flags = NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class Grown:
    """The unit of each node, before and apart from any placement."""

    unit: Ints
    whole: Ints  # the component of each node
    lean: Ints  # split that an unpinned part of a component with several splits goes to; NONE elsewhere
    stranded: Ints  # nodes without a place, in a group that earlier rows divided between splits
    links: int = 0  # near pairs that it took to know the components; not all there are
    components: int = 0  # of two groups or more
    twins: int = 0  # rows in those
    largest: int = 0  # rows of the largest
    divided: int = 0  # components that were put together in parts


def grow(join: Join | None, group: Ints, pins: Ints, *, is_row: Flags, limit: float) -> Grown:
    """`group`: an index for each node; `pins`: its split, or NONE; `limit`: rows of a unit at the most, where
    near-duplicates alone made it larger. Without a join, units are groups."""
    start, stranded = _groups(group, pins)
    grown = Grown(unit=start, whole=start, lean=np.full(len(group), NONE), stranded=stranded)
    if join is None:
        return grown
    whole = grown.whole = start.copy()
    grown.links = components(join, whole)
    several, rows = _holds_several(whole, start), np.bincount(whole[is_row], minlength=len(group))
    ok = ~several | ((_splits_in(whole, pins) <= 1) & (rows <= limit))
    grown.components = int(several.sum())
    grown.twins = int(rows[several].sum())
    grown.largest = int(rows[several].max(initial=0))
    grown.divided = int((~ok).sum())
    grown.unit = np.where(ok[whole], whole, start)
    _grow_in_parts(join, grown, ~ok[whole], pins, is_row, limit)
    return grown


def keep_dense(grown: Grown, left_out: Ints, pins: Ints) -> bool:
    """Make components whole again that would lose too many of these rows; False if there is none."""
    n = len(grown.whole)
    lost = np.bincount(grown.whole[left_out], minlength=n)
    dense = (lost > DENSE * np.bincount(grown.whole, minlength=n)) & (_splits_in(grown.whole, pins) <= 1)
    dense &= _holds_several(grown.whole, grown.unit)
    grown.unit = np.where(dense[grown.whole], grown.whole, grown.unit)
    grown.lean = np.where(dense[grown.whole], NONE, grown.lean)
    grown.divided -= int(dense.sum())
    return bool(dense.any())


def _groups(group: Ints, pins: Ints) -> tuple[Ints, Ints]:
    """Units of groups alone. The pinned rows of a group that is in several splits stay where they are."""
    first = np.full(len(group), len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    unit = first[group]
    divided = _splits_in(unit, pins)[unit] > 1
    for node in np.flatnonzero(divided & (pins == NONE)).tolist():
        unit[node] = node
    for split in np.unique(pins[divided & (pins != NONE)]).tolist():
        here = np.flatnonzero(divided & (pins == split))
        least = np.full(len(group), len(group))
        np.minimum.at(least, group[here], here)
        unit[here] = least[group[here]]
    return unit, np.flatnonzero(divided & (pins == NONE))


def _splits_in(unit: Ints, pins: Ints) -> Ints:
    """How many different pins each unit holds."""
    pinned = pins != NONE
    held = np.unique(unit[pinned] * 4 + pins[pinned]) // 4
    return np.bincount(held, minlength=len(unit))


def _holds_several(whole: Ints, start: Ints) -> Flags:
    """Components that join two groups or more."""
    held = np.unique(whole * len(whole) + start) // max(len(whole), 1)
    return np.bincount(held, minlength=len(whole)) > 1


def _grow_in_parts(join: Join, grown: Grown, open_: Flags, pins: Ints, is_row: Flags, limit: float) -> None:
    """Join the most alike first; what would be too large, or in two splits, stays as it is from there on."""
    for level in np.linspace(1, join.threshold, LEVELS + 1).tolist():
        if not open_.any():
            return
        tried = np.where(open_, grown.unit, NEVER)
        components(join, tried, max(level, join.threshold))
        labels = np.where(open_, tried, grown.unit)
        splits, rows = _splits_in(labels, pins), np.bincount(labels[is_row], minlength=len(labels))
        bad = _holds_several(labels, grown.unit) & ((splits > 1) | (rows > limit))
        stays = open_ & bad[labels]
        _lean(grown.lean, labels, stays & (splits[labels] > 1), pins)
        grown.unit = np.where(stays, grown.unit, labels)
        open_ = open_ & ~stays


def _lean(lean: Ints, labels: Ints, disputed: Flags, pins: Ints) -> None:
    """Parts without a place, between parts that have one: to the split with most rows around them."""
    votes = np.zeros((len(labels), 4), np.int64)
    voters = disputed & (pins != NONE)
    np.add.at(votes, (labels[voters], pins[voters]), 1)
    undecided = disputed & (pins == NONE)
    lean[undecided] = votes[labels[undecided]].argmax(axis=1)


@dataclass(slots=True)
class Bridges:
    """Rows left out because they are near a row of another split: to which, and how near."""

    to: dict[int, tuple[int, float]] = field(default_factory=dict)


def find_bridges(join: Join, code: Ints, standing: Ints, order: Ints) -> Bridges:
    """Leave out one row of each straddling pair. `standing`: of the two, the one with less goes; `order`: a number
    that depends on the row alone, for ties. A ghost has the highest standing and is never named."""
    a, b, alike = pairs(join, code)
    out = Bridges()
    forced = standing[a] != standing[b]
    lower = np.where(standing[a] < standing[b], a, b)
    upper = np.where(standing[a] < standing[b], b, a)
    for row, to, s in _strongest(lower[forced], upper[forced], alike[forced]):
        out.to[row] = (to, s)
    gone = np.zeros(len(code), bool)
    gone[list(out.to)] = True
    rest = ~forced & ~gone[a] & ~gone[b]
    _cover(a[rest], b[rest], alike[rest], order, out)
    return out


def _strongest(a: Ints, b: Ints, alike: Floats) -> list[tuple[int, int, float]]:
    """Of each a, the pair that is most alike."""
    order = np.lexsort((b, -alike, a))
    first = np.unique(a[order], return_index=True)[1]
    at = order[first]
    return list(zip(a[at].tolist(), b[at].tolist(), alike[at].tolist(), strict=True))


def _cover(a: Ints, b: Ints, alike: Floats, order: Ints, out: Bridges) -> None:
    """Leave out the row in most pairs, again and again, until no pair is left (the greedy vertex cover)."""
    near: dict[int, dict[int, float]] = {}
    for i, j, s in zip(a.tolist(), b.tolist(), alike.tolist(), strict=True):
        near.setdefault(i, {})[j] = s
        near.setdefault(j, {})[i] = s
    heap = [(-len(to), int(order[row]), row) for row, to in near.items()]
    heapq.heapify(heap)
    while heap:
        degree, place, row = heapq.heappop(heap)
        now = len(near[row])
        if not now:
            continue
        if -degree != now:
            heapq.heappush(heap, (-now, place, row))
            continue
        to, s = max(near[row].items(), key=lambda item: (item[1], -int(order[item[0]])))
        out.to[row] = (to, s)
        for other in near[row]:
            del near[other][row]
        near[row] = {}


def prove(sets: Shingles, kept: Ints, code: Ints, threshold: float) -> None:
    """Raises AssertionError if any near pair of kept rows straddles two splits: our mistake, never the user's."""
    a, _, _ = pairs(Join(sets.take(kept), threshold), code[kept])
    assert not len(a), f"{len(a)} pairs of near-duplicates straddle two splits"


@dataclass(slots=True)
class Leak:
    """Test rows of a split by rows alone that have a near-duplicate in its training rows."""

    test_rows: int
    twins: dict[int, tuple[int, float]] = field(default_factory=dict)  # test row -> one of them, how near


def naive_leak(join: Join, code: Ints) -> Leak:
    """`code`: 0 for training rows, 2 for test rows, anything else for the others, of a split that knows no units."""
    labels = np.where(code == 0, 0, np.where(code == 2, 1, NEVER)).astype(np.int64)
    is_test = labels == 1
    leak = Leak(int(is_test.sum()))

    def take(a: Ints, b: Ints, alike: Floats) -> None:
        test, twin = np.where(is_test[a], a, b), np.where(is_test[a], b, a)
        for row, to, s in _strongest(test, twin, alike):
            leak.twins[row] = (to, s)
        labels[test] = NEVER  # one twin is enough

    join.sweep(labels, take)
    return leak
