"""Templates: wording that many rows share while the rest of them differs.

A signature, a form letter, "This package contains the development files for": such rows are not copies of
each other, and their shared wording must not make them look like copies. A shingle belongs to a template if
at least max(20, 1 in 1,000) rows have it, if it stands in a run of five words of which this is true, and if
most sampled pairs of these rows have a rest (their shingles that are less common) which makes up at least a
tenth of them and is less than half shared. The tenth tells a form letter from copies that differ in a date
or a number: those stay near-duplicates. The five words leave ordinary language ("of the") in.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.near.join import Rarity, blocks, similarities
from tunesmith.data.near.shingles import TAKEN, WORDS, Hashes, Ints, Shingles, is_in, mix, phrases_of

FEWEST_ROWS = 20
FEWEST_SHARE = 0.001  # of all rows
SAMPLED = 12  # rows of each common shingle, the same for any order of the rows
REST = 0.1  # of a row's shingles that must be its own
ALIKE = 0.5  # Jaccard of two rests from which they are not different
RUN = 5  # words of a template, at least
READ = 1  # sampled rows of each shingle in whose text the run is looked for
TALLIED = 1 << 23  # shingles counted together
MARKED = np.uint32(10)  # bits dropped by the table that spares most shingles the search among the common ones
SHOWN = 30  # templates that the facts name

Texts = Callable[[Ints], list[str]]  # the texts of some rows, ascending
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Templates:
    values: Hashes  # template shingles, ascending
    phrases: tuple[tuple[str, int], ...]  # their wording, and in how many rows; the commonest first


def find_templates(sets: Shingles, rows: Ints, texts: Texts, progress: Progress = silent) -> Templates:
    """The templates of these rows (ascending)."""
    common, times = _common(sets, rows, max(FEWEST_ROWS, int(np.ceil(FEWEST_SHARE * len(rows)))), progress)
    if not len(common):
        return Templates(common, ())
    which, row = _sample(sets, rows, common, progress)
    differs = _rests_differ(sets, common, which, row)
    rank = np.arange(len(which)) - np.searchsorted(which, np.arange(len(common)))[which]
    read = np.unique(row[differs[which] & (rank < READ)])
    values, times = common[differs], times[differs]
    rows_of = dict(zip(values.tolist(), times.tolist(), strict=True))
    found: dict[str, int] = {}
    members: set[int] = set()
    for text in texts(read):
        for phrase, run in phrases_of(text, values):
            if len(run) > RUN - WORDS:
                members.update(run)
                found[phrase] = max(found.get(phrase, 0), min(rows_of[v] for v in run))
    return Templates(np.array(sorted(members), np.uint32), tuple(_telling(found)))


def _telling(found: dict[str, int]) -> list[tuple[str, int]]:
    """The commonest phrases; of those with one count, none that is part of another."""
    chosen: list[tuple[str, int]] = []
    for phrase, n in sorted(found.items(), key=lambda f: (-f[1], -len(f[0]), f[0])):
        if len(chosen) == SHOWN:
            break
        if not any(m == n and phrase.strip("(.,:;' ") in longer for longer, m in chosen):
            chosen.append((phrase, n))
    return chosen


def _common(sets: Shingles, rows: Ints, fewest: int, progress: Progress) -> tuple[Hashes, Ints]:
    """Shingles of at least so many of these rows, ascending, and of how many."""
    rarity = Rarity.of(sets)
    values, times = np.zeros(0, np.uint32), np.zeros(0, np.int64)
    often: list[Hashes] = []
    for at in range(0, len(rows), TAKEN):
        progress(at, 2 * len(rows))
        part = sets.take(rows[at : at + TAKEN]).values
        often.append(part[rarity[part] >= min(fewest, 255)])
        if at + TAKEN >= len(rows) or sum(map(len, often)) > TALLIED:
            fresh, n = np.unique(np.concatenate(often), return_counts=True)
            values, where = np.unique(np.concatenate([values, fresh]), return_inverse=True)
            times = np.bincount(where, np.concatenate([times, n]), minlength=len(values)).astype(np.int64)
            often = []
    return values[times >= fewest], times[times >= fewest]


def identity(sets: Shingles) -> NDArray[np.uint64]:
    """A number for each set that depends on its content alone; equal sets have equal ones."""
    out = np.zeros(len(sets), np.uint64)
    for rows, _, values in blocks(sets):
        spread = mix(values.astype(np.uint64) + np.uint64(1))
        out[rows.start : rows.stop] = np.add.reduceat(spread, sets.offsets[rows.start : rows.stop] - sets.offsets[rows.start])  # fmt: skip
    return mix(out)


def _sample(sets: Shingles, rows: Ints, common: Hashes, progress: Progress) -> tuple[Ints, Ints]:
    """For each common shingle, in order, the SAMPLED of these rows with the lowest identity that have it."""
    order = rows[np.argsort(identity(sets)[rows], kind="stable")]
    seen, marked = np.zeros(len(common), np.int64), _marked(common)
    found: list[tuple[Ints, Ints]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for at in range(0, len(order), TAKEN):
        progress(len(order) + at, 2 * len(order))
        here = order[at : at + TAKEN]
        some = sets.take(here)
        hit = np.flatnonzero(marked[some.values >> MARKED])
        hit = hit[is_in(some.values[hit], common)]
        which = np.searchsorted(common, some.values[hit]).astype(np.int64)
        row = np.searchsorted(some.offsets, hit, side="right") - 1
        by = np.argsort(which, kind="stable")
        which, row = which[by], here[row[by]]
        rank = seen[which] + np.arange(len(which)) - np.searchsorted(which, which)
        found.append((which[rank < SAMPLED], row[rank < SAMPLED]))
        seen += np.bincount(which, minlength=len(common))
    which, row = (np.concatenate(part) for part in zip(*found, strict=True))
    by = np.argsort(which, kind="stable")
    return which[by], row[by]


def _rests_differ(sets: Shingles, common: Hashes, which: Ints, row: Ints) -> NDArray[np.bool_]:
    """For each common shingle: do most neighbouring pairs of the sample have a substantial, different rest?"""
    used, at = np.unique(row, return_inverse=True)
    rest = _without(sets, used, common)
    pair = np.flatnonzero(which[1:] == which[:-1])
    a, b = at[pair], at[pair + 1]
    whole = sets.sizes[used]
    substantial = np.minimum(rest.sizes[a], rest.sizes[b]) >= REST * np.minimum(whole[a], whole[b])
    yes = substantial & (similarities(rest, a, b) < ALIKE)
    pairs = np.bincount(which[pair], minlength=len(common))
    return 2 * np.bincount(which[pair[yes]], minlength=len(common)) > pairs


def _marked(common: Hashes) -> NDArray[np.bool_]:
    """By the upper bits of a hash: may it be a common one?"""
    marked = np.zeros(1 << 32 - int(MARKED), bool)
    marked[common >> MARKED] = True
    return marked


def _without(sets: Shingles, rows: Ints, common: Hashes) -> Shingles:
    """The sets of these rows without the common shingles."""
    values = array("I")
    sizes = [np.zeros(1, np.int64)]
    marked = _marked(common)
    for at in range(0, len(rows), TAKEN):
        some = sets.take(rows[at : at + TAKEN])
        own = ~marked[some.values >> MARKED]
        maybe = np.flatnonzero(~own)
        own[maybe] = ~is_in(some.values[maybe], common)
        values.frombytes(some.values[own].tobytes())
        sizes.append(np.add.reduceat(own, some.offsets[:-1], dtype=np.int64))  # no set is empty
    return Shingles(np.frombuffer(values, np.uint32), np.concatenate(sizes).cumsum())
