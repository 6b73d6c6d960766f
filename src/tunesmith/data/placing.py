"""Which split each row goes to: by hash, by class, by time, by a field's values or by fold, in whole units.

A unit is a group, or several groups that near-duplicates join (near/units.py). What holds when rows are added:

    with `previous` (the last data set)   every row that is still in the data keeps its split, for ever: new rows
        follow the rows they are near, and a new row near rows of two splits is left out ("bridge")
    without it, by random or group, near off   every row keeps its split: a hash of its group alone decides
    without it, near on    a row keeps its split unless new rows join its unit with another one whose anchor is
        lower: the anchor, the group with the lowest hash, decides for the whole unit
    stratified, time      only `previous` keeps rows in place, since shares and dates are those of all rows
    kfold                  as random: a row keeps its fold; `previous` is refused, for test rows move by design
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError, InputError
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import excerpt
from tunesmith.data.near.join import Join
from tunesmith.data.near.units import NONE, Grown, find_bridges, grow, keep_dense, naive_leak, prove
from tunesmith.data.split import NAMES, Assessment, Ints, Shares, Units, assess, refuse_empty, refuse_uneven
from tunesmith.data.stages import PrepareSpec
from tunesmith.data.survey import Survey

Digests = NDArray[np.uint64]  # groups x 2
HASHED = ("random", "group", "kfold")
TEST = 2
PHASES = 4  # that place_rows reports
SHOWN_PAIRS = 5  # of a naive split's leak


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The split of each row, the rows left out with their reasons, and what the page says about it."""

    code: Ints  # N: index into NAMES; of rows left out, where they would have been
    left_out: dict[int, tuple[str, str]]  # row -> reason and detail
    assessment: Assessment
    units: Units  # of the rows kept
    facts: dict[str, Any] = field(default_factory=dict)


def shares_of(spec: PrepareSpec) -> Shares:
    """Raises InputError for shares that do not add up, and for folds that leave nothing to train on."""
    if spec.by != "kfold":
        return Shares(train=spec.train, validation=spec.validation, test=spec.test)
    if spec.folds < 3 or not 0 <= spec.fold < spec.folds:
        raise InputError(
            f"fold {spec.fold} of {spec.folds}: one fold tests, the next validates, and the others train",
            where="data.split.folds",
            fix="--set data.split.folds=5 --set data.split.fold=0",
        )
    return Shares(train=1 - 2 / spec.folds, validation=1 / spec.folds, test=1 / spec.folds)


def place_rows(spec: PrepareSpec, survey: Survey, *, has_previous: bool, work: Workspace | None = None) -> Placement:
    """Raises DataError for an uneven or empty split, and where the field or fold contradicts an earlier data set."""
    shares = shares_of(spec)
    if has_previous and spec.by == "kfold":
        raise InputError("folds move test rows by design", where="data.split.previous", fix="choose another split.by")
    _report(work, 0, "near-duplicates: indexing")
    join = None if survey.sets is None else Join(survey.sets, spec.near)
    n, nodes = survey.rows, len(survey.group)
    is_row = np.arange(nodes) < n
    pins = _pins(spec, survey)
    limit = min(shares) / 2 * n
    _report(work, 1, "near-duplicates: comparing")
    grown = grow(join, survey.group, pins, is_row=is_row, limit=limit)
    digests = _digests(survey.groups, spec.salt)
    while True:
        _report(work, 2, "placing")
        unit = np.unique(grown.unit, return_inverse=True)[1]
        code = _unit_codes(spec, survey, shares, unit, grown, pins, digests)[unit]
        left_out = _bridges(spec, survey, grown, join, code, pins)
        if not keep_dense(grown, np.fromiter(left_out, np.int64, len(left_out)), pins):
            break
    kept = np.flatnonzero(~np.isin(np.arange(n), np.fromiter(left_out, np.int64, len(left_out))))
    facts: dict[str, Any] = {}
    if join is not None and survey.sets is not None:
        facts = _near_facts(spec, survey, shares, grown, join, left_out)
        del join  # the proof makes its own
        _report(work, 3, "proving that no near-duplicates are parted")
        prove(survey.sets, kept, code, spec.near)
    units = _units_of(survey, unit, kept, digests)
    codes = np.zeros(len(units.groups), np.int64)
    codes[units.row_group] = code[kept]
    assessment = assess(units, codes, shares, spec.max_deviation)
    if spec.by in ("time", "field"):
        refuse_empty(units, assessment, fix=_other_way(spec))
    else:
        refuse_uneven(units, assessment, shares, spec.salt, spec.max_deviation, salts=spec.by in HASHED and not has_previous)  # fmt: skip
    return Placement(code=code[:n], left_out=left_out, assessment=assessment, units=units, facts=facts)


def _report(work: Workspace | None, done: int, label: str) -> None:
    if work is not None:
        work.stop_if_asked()
        work.progress(done, PHASES, f"prepare: {label}")


def _pins(spec: PrepareSpec, survey: Survey) -> Ints:
    """The splits that are settled before any hash: by the earlier data set, and by the field's values.
    By field, 0 stands for "not in test" until the rest is divided."""
    if spec.by != "field":
        return survey.pins
    assert survey.value is not None
    wanted = set(spec.test_values)
    missing = sorted(wanted - set(survey.value))
    if not wanted or missing:
        what = f"no row has {spec.field}={', '.join(missing)}" if missing else "no value is named for the test set"
        known = ", ".join(excerpt(v) for v in sorted(set(survey.value))[:10])
        raise DataError(what, where="data.split.test_values", fix=f"the values are {known}")
    is_test = np.fromiter((value in wanted for value in survey.value), bool, survey.rows)
    earlier = survey.pins[: survey.rows]
    moved = np.flatnonzero((earlier != NONE) & ((earlier == TEST) != is_test))
    if len(moved):
        raise DataError(
            f"{len(moved):,} rows were on the other side of the test set in the earlier data set",
            where=survey.where(int(moved[0])),
            fix="leave data.split.test_values as they were, or start afresh without the earlier data set",
        )
    pins = np.where(survey.pins == TEST, TEST, np.where(survey.pins == NONE, NONE, 0))
    pins[: survey.rows] = np.where(is_test, TEST, 0)
    return pins


def _digest(group: str, salt: str) -> tuple[int, int]:
    """Two independent 64-bit numbers: where the group is placed (split.py), and its rank as an anchor."""
    digest = hashlib.sha256(f"{salt}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def _digests(groups: Sequence[str], salt: str) -> Digests:
    """Of each group, as a row: the two numbers of `_digest`."""
    out = np.empty((len(groups), 2), np.uint64)
    for i, group in enumerate(groups):
        out[i] = _digest(group, salt)
    return out


def _anchors(unit: Ints, group: Ints, digests: Digests) -> Ints:
    """The group with the lowest rank of each unit."""
    order = np.lexsort((digests[group, 1], unit))
    first = np.unique(unit[order], return_index=True)[1]
    return group[order[first]]


def _unit_codes(
    spec: PrepareSpec, survey: Survey, shares: Shares, unit: Ints, grown: Grown, pins: Ints, digests: Digests
) -> Ints:
    """A split for each unit: its pin, else the one it leans to, else what the policy says."""
    n_units = int(unit.max(initial=-1)) + 1
    settled = np.full(n_units, NONE)
    settled[unit] = np.maximum(settled[unit], grown.lean)
    pinned = pins != NONE
    settled[unit[pinned]] = pins[pinned]
    if spec.by == "field":
        return _field_codes(survey, shares, unit, settled, digests)
    anchors = _anchors(unit, survey.group, digests)
    if spec.by == "time":
        codes = _time_codes(survey, shares, unit, n_units)
    elif spec.by == "stratified":
        codes = _stratified_codes(survey, shares, unit, settled, digests[anchors, 1])
    else:
        u = digests[anchors, 0] / 2.0**64
        codes = _fold_codes(u, spec) if spec.by == "kfold" else _share_codes(u, shares)
    return np.where(settled == NONE, codes, settled)


def _share_codes(u: NDArray[np.float64], shares: Shares) -> Ints:
    return np.where(u < shares.train, 0, np.where(u < shares.train + shares.validation, 1, 2))


def _fold_codes(u: NDArray[np.float64], spec: PrepareSpec) -> Ints:
    """Fold `fold` tests, the next one validates, and the others train."""
    fold = (u * spec.folds).astype(np.int64)
    return np.where(fold == spec.fold, TEST, np.where(fold == (spec.fold + 1) % spec.folds, 1, 0))


def _field_codes(survey: Survey, shares: Shares, unit: Ints, settled: Ints, digests: Digests) -> Ints:
    """Units not in test: where they were, else into training and validation by hash."""
    u = digests[_anchors(unit, survey.group, digests), 0] / 2.0**64
    rest = np.where(u < shares.train / (shares.train + shares.validation), 0, 1)
    before = survey.pins != NONE
    rest[unit[before]] = survey.pins[before]
    return np.where(settled == TEST, TEST, rest)


def _time_codes(survey: Survey, shares: Shares, unit: Ints, n_units: int) -> Ints:
    """Oldest units train, the newest test. A unit is as new as its newest row, so that nothing from after a cut is
    trained on; rows of one moment are on one side."""
    assert survey.time is not None
    newest = np.full(n_units, -np.inf)
    np.maximum.at(newest, unit[: survey.rows], survey.time)
    rows = np.bincount(unit[: survey.rows], minlength=n_units)
    moments, at = np.unique(newest, return_inverse=True)
    before = np.cumsum(np.bincount(at, weights=rows, minlength=len(moments))) / survey.rows  # up to and with each
    middle = before - np.diff(np.concatenate([[0.0], before])) / 2  # a moment goes where most of it belongs
    return _share_codes(middle, shares)[at]


def _stratified_codes(survey: Survey, shares: Shares, unit: Ints, settled: Ints, rank: NDArray[np.uint64]) -> Ints:
    """Each unit, the largest first, to the split that its class lacks most rows in. A class is so within a unit of
    its shares after every step, and rows that are settled count from the start."""
    n, k = survey.rows, max(len(survey.classes), 1)
    pair, rows = np.unique(unit[:n] * k + survey.row_class, return_counts=True)
    owner, kind = np.divmod(pair, k)
    by_name = np.argsort(np.argsort(np.array(survey.classes or [""], object)))  # ties must not depend on row order
    order = np.lexsort((by_name[kind], -rows, owner))
    main = np.zeros(len(settled), np.int64)
    head = order[np.unique(owner[order], return_index=True)[1]]
    main[owner[head]] = kind[head]
    size = np.bincount(unit[:n], minlength=len(settled))
    have = np.zeros((k, 3))
    done = settled != NONE
    np.add.at(have, (main[done], settled[done]), size[done])
    codes = np.where(done, settled, 0)
    asked = tuple(shares)
    tallies = have.tolist()
    todo = np.flatnonzero(~done & (size > 0))
    for u in todo[np.lexsort((rank[todo], -size[todo]))].tolist():
        tally, rows_here = tallies[main[u]], int(size[u])
        total = sum(tally) + rows_here
        lacks = [share * total - got for share, got in zip(asked, tally, strict=True)]
        best = lacks.index(max(lacks))
        tally[best] += rows_here
        codes[u] = best
    return codes


def _bridges(
    spec: PrepareSpec, survey: Survey, grown: Grown, join: Join | None, code: Ints, pins: Ints
) -> dict[int, tuple[str, str]]:
    """Rows to leave out so that no near pair and no group straddles two splits."""
    n = survey.rows
    out: dict[int, tuple[str, str]] = {}
    settled = np.where(pins == NONE, 0, 1 + (code == 1) + 2 * (code == TEST))
    settled[:n] = np.where(survey.protected, 8, settled[:n])
    settled[n:] = 9
    for row in grown.stranded.tolist():
        if row < n:
            out[row] = ("bridge", "its group has rows in several splits of the earlier data set")
    if spec.by == "field":  # a group with rows in test and elsewhere: only its test rows stay
        tested = np.zeros(len(survey.groups), bool)
        tested[survey.group[code == TEST]] = True
        for row in np.flatnonzero(tested[survey.group[:n]] & (code[:n] != TEST)).tolist():
            out[row] = ("bridge", f"its group has rows with the values of {spec.field} that are in test")
    if join is None:
        return out
    order = np.fromiter((hash_of(survey.where(i)) for i in range(len(code))), np.int64, len(code))
    labels = code.copy()
    labels[list(out)] = -1
    for row, (to, alike) in sorted(find_bridges(join, labels, settled, order).to.items()):
        if row < n:
            out[row] = ("bridge", f"{alike:.2f} like {survey.where(to)}, which is in {NAMES[code[to]]}")
    return out


def hash_of(where: str) -> int:
    return int.from_bytes(hashlib.sha256(where.encode()).digest()[:7], "big")


def _near_facts(
    spec: PrepareSpec, survey: Survey, shares: Shares, grown: Grown, join: Join, left_out: dict[int, Any]
) -> dict[str, Any]:
    """What was joined, and what a split that knows rows alone would have let through."""
    each = (f"{survey.ids[i]}\0{survey.where(i)}" for i in range(survey.rows))  # copies part from each other too
    u = np.fromiter((_digest(row, spec.salt)[0] / 2**64 for row in each), np.float64, survey.rows)
    naive = np.full(len(survey.group), 1)
    naive[: survey.rows] = _share_codes(u, shares)
    leak = naive_leak(join, naive)
    shown = sorted(leak.twins.items(), key=lambda t: (-t[1][1] if t[1][1] < 1 else 0, t[0]))[:SHOWN_PAIRS]
    return {
        "near": {
            "threshold": spec.near,
            "pairs_found": grown.links,
            "components": grown.components,
            "rows_joined": grown.twins,
            "largest": grown.largest,
            "divided": grown.divided,
            "left_out": len(left_out),
        },
        "naive_leak": {
            "test_rows": leak.test_rows,
            "with_twin": len(leak.twins),
            "share": round(len(leak.twins) / max(leak.test_rows, 1), 6),
            "pairs": [
                {"test": survey.where(row), "train": survey.where(to), "similarity": round(alike, 4)}
                for row, (to, alike) in shown
            ],
        },
    }


def _units_of(survey: Survey, unit: Ints, kept: Ints, digests: Digests) -> Units:
    """The kept rows and their units, named by their anchors, in order of appearance."""
    anchors = _anchors(unit, survey.group, digests)
    used, first, at = np.unique(unit[kept], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))
    names = [survey.groups[anchors[used[i]]] for i in np.argsort(first)]
    return Units(groups=names, row_group=place[at], row_class=survey.row_class[kept], classes=survey.classes)


def _other_way(spec: PrepareSpec) -> str:
    if spec.by == "time":
        return "too many rows have one time: choose other shares or another time_field"
    return "name other data.split.test_values, or split by group"
