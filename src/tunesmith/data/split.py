"""Which split a row belongs to: a salted hash of its group decides, and nothing else.

Adding, removing or reordering rows therefore moves no other row between training and test, and no
group straddles a split. The price is chance: shares come out near those asked for, not exact.

How near is near enough: a share may differ by `max_deviation`, or by what chance alone does to this
many groups (exceeded by fair placements of one data set in a hundred, over all shares compared), if
that is more. Twenty groups can differ widely, a thousand hardly; from about 550 groups on, chance is
smaller than the default of 5 points. Groups count as equal in this rule, so that a few huge ones are
refused and not excused. The shares of the classes inside each split are held to the same rule, where
at least five groups of the class are expected there: below, chance explains any share.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.nouns import SplitName

NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
CHANCE = 0.01  # of refusing a fair placement
EXPECTED = 5  # groups of a class expected in a split before its share there is held to the limit
SALTS_TRIED = 100
HASHES = 2_000_000  # at most so many in looking for a better salt: about two seconds

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Of the rows, in each split. Raises InputError unless all are positive and add up to 1."""

    train: float
    validation: float
    test: float

    def __post_init__(self) -> None:
        total = sum(self)
        if min(self) <= 0 or abs(total - 1) > 1e-9:
            said = ", ".join(f"{name} {share:g}" for name, share in zip(NAMES, self, strict=True))
            raise InputError(
                f"the shares are {said}, in all {total:g}: each must be more than 0, and all together 1",
                where="data.split",
                fix="--set data.split.train=0.8 --set data.split.validation=0.1 --set data.split.test=0.1",
            )

    def __iter__(self) -> Iterator[float]:
        return iter((self.train, self.validation, self.test))


def place(group: str, salt: str, shares: Shares) -> SplitName:
    """The split of every row of this group, now and after any number of rows are added."""
    return NAMES[_code(group, salt, shares)]


def _code(group: str, salt: str, shares: Shares) -> int:
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return 0 if u < shares.train else 1 if u < shares.train + shares.validation else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The rows as the split sees them: N rows in G groups and K classes (0 where there are none)."""

    groups: Sequence[str]
    row_group: Ints  # N, index into groups
    row_class: Ints  # N, index into classes; all 0 where there are none
    classes: Sequence[str]

    def codes(self, salt: str, shares: Shares) -> Ints:
        """0, 1 or 2 for each group."""
        return np.fromiter((_code(g, salt, shares) for g in self.groups), np.int64, len(self.groups))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A share that differs from what it should be."""

    split: SplitName
    label: str | None  # None: the split's share of all rows
    share: float
    wanted: float
    allowed: float

    @property
    def deviation(self) -> float:
        return abs(self.share - self.wanted)

    @property
    def excess(self) -> float:
        return self.deviation - self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How one placement compares with the shares asked for."""

    rows: tuple[int, int, int]
    sizes: tuple[Gap, ...]  # one for each split
    strata: tuple[Gap, ...]  # one for each class and split that are compared

    @property
    def deviation(self) -> float:
        return max(g.deviation for g in self.sizes)

    @property
    def empty(self) -> tuple[SplitName, ...]:
        return tuple(name for name, n in zip(NAMES, self.rows, strict=True) if n == 0)

    @property
    def too_far(self) -> tuple[Gap, ...]:
        return tuple(g for g in (*self.sizes, *self.strata) if g.excess > 0)

    @property
    def worst_stratum(self) -> Gap | None:
        return max(self.strata, key=lambda g: g.deviation, default=None)


def assess(units: Units, codes: Ints, shares: Shares, max_deviation: float) -> Assessment:
    """Sizes and class shares of a placement of the groups, with what is allowed for each."""
    k, n, g = len(units.classes), len(units.row_group), len(units.groups)
    asked = tuple(shares)
    row_code = codes[units.row_group]
    rows = np.bincount(row_code, minlength=3)
    table = np.bincount(units.row_class * 3 + row_code, minlength=3 * max(k, 1)).reshape(-1, 3)
    pairs = np.unique(units.row_class * g + units.row_group)  # (class, group) pairs that occur
    class_groups = np.bincount(pairs // max(g, 1), minlength=max(k, 1))
    compared = [(c, s) for c in range(k) for s in range(3) if asked[s] * class_groups[c] >= EXPECTED and rows[s]]
    z = NormalDist().inv_cdf(1 - CHANCE / (2 * (3 + len(compared))))
    sizes = tuple(
        Gap(
            split=NAMES[s],
            label=None,
            share=float(rows[s] / n),
            wanted=p,
            allowed=max(max_deviation, z * math.sqrt(p * (1 - p) / g)),
        )
        for s, p in enumerate(asked)
    )
    strata = []
    for c, s in compared:
        q, p = float(table[c].sum() / n), asked[s]
        chance = z * math.sqrt(q * (1 - q) * (1 - p) / (p * g))
        strata.append(
            Gap(
                split=NAMES[s],
                label=units.classes[c],
                share=float(table[c, s] / rows[s]),
                wanted=q,
                allowed=max(max_deviation, chance),
            )
        )
    return Assessment(rows=(int(rows[0]), int(rows[1]), int(rows[2])), sizes=sizes, strata=tuple(strata))


def refuse_empty(units: Units, found: Assessment, *, fix: str) -> None:
    """Raises one DataError with every split that is empty: for policies whose shares are what the data gives."""
    size = f"{len(units.row_group):,} rows"
    problems = [
        Problem(where="data.split", what=f"no row falls into {name}, out of {size}", fix=fix) for name in found.empty
    ]
    if problems:
        raise DataError(problems)


def refuse_uneven(
    units: Units, found: Assessment, shares: Shares, salt: str, max_deviation: float, *, salts: bool = True
) -> None:
    """Raises one DataError with every split that is empty or too far off, and a salt that would do; without
    `salts`, where no salt moves rows, with the deviation to allow."""
    if not found.empty and not found.too_far:
        return
    grouped = len(units.groups) < len(units.row_group)
    size = f"{len(units.row_group):,} rows" + (f" in {len(units.groups):,} groups" if grouped else "")
    if len(units.groups) < len(NAMES):
        fix = "name a finer group, or none" if grouped else "add rows"
        raise DataError(f"{size} cannot fill three splits", where="data.split", fix=fix)
    better = _better_salt(units, shares, salt, max_deviation) if salts else None
    needed = math.ceil(100 * max((g.deviation for g in found.too_far), default=0.0)) / 100
    wider = "" if found.empty else f"--set data.split.max_deviation={needed:g}"
    if better is not None:
        other, result = better
        got = "/".join(f"{gap.share:.1%}" for gap in result.sizes)
        fix = f"--set data.split.salt={other} gives {got}" + (f"; or {wider}" if wider else "")
    else:
        why = "no other salt does better: " if salts else ""
        fix = f"{why}{_largest(units)}" + (f"; or {wider}" if wider else "")
    problems = [
        Problem(where="data.split", what=f"no row falls into {name}, out of {size}", fix=fix) for name in found.empty
    ]
    problems += [
        Problem(where="data.split", what=_sentence(gap, size, max_deviation), fix=fix) for gap in found.too_far
    ]
    raise DataError(problems)


def _sentence(gap: Gap, size: str, max_deviation: float) -> str:
    what = f"{gap.split} has {gap.share:.1%} of the rows, {gap.wanted:.1%} asked for"
    if gap.label is not None:
        what = f"the class {gap.label!r} has {gap.share:.1%} of {gap.split}, {gap.wanted:.1%} of all rows"
    why = f"max_deviation is {max_deviation:.1%}"
    if gap.allowed > max_deviation:
        why += f", and chance explains {gap.allowed:.1%}"
    return f"{what}; {why} ({size})"


def _better_salt(units: Units, shares: Shares, salt: str, max_deviation: float) -> tuple[str, Assessment] | None:
    """Of the salts 1, 2, 3 ... the passing one whose sizes are nearest to those asked for."""
    tries = max(5, min(SALTS_TRIED, HASHES // max(1, len(units.groups))))
    found = []
    for i in range(1, tries + 1):
        if str(i) == salt:
            continue
        result = assess(units, units.codes(str(i), shares), shares, max_deviation)
        if not result.empty and not result.too_far:
            found.append((str(i), result))
    return min(found, key=lambda f: f[1].deviation, default=None)


def _largest(units: Units) -> str:
    sizes = np.bincount(units.row_group, minlength=len(units.groups))
    top = np.argsort(-sizes, kind="stable")[:3]
    named = ", ".join(f"{units.groups[i]!r} {sizes[i] / len(units.row_group):.0%}" for i in top)
    return f"the largest groups are {named} of the rows; name a finer group"
