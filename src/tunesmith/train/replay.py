"""Mixtures of sources in stated proportions, and replay: which items an epoch or a step takes.

    mixture = Mixture(items, shares={"general": 0.1}, seed=0)
    mixture.epoch(0)      indices of the items of the first epoch, in its order

An item is a row, or a window of a text; its size is what the shares count (1 a row, tokens for windows). Sources
without a share are whole in every epoch, and together hold what the shares leave. With shares for all of them an
epoch is as large as all sources together. A source that is too large goes on in the next epoch where it stopped, one
that is too small begins again in another order: what an epoch takes is a function of seed, epoch and contents alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

import numpy as np

from tunesmith.core.errors import InputError, Problem

REPLAY = "general"  # the source that is no file of the data set: rows of the general data


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`key` decides its place in every order (a row's id); file and line decide between equal keys."""

    key: str
    file: str
    line: int
    source: str = ""  # "": of no named source
    size: int = 1


def place(item: Item, seed: int, epoch: int, again: int = 0) -> tuple[bytes, str, int]:
    """Where an item stands in an epoch's order; its second time (`again` = 1) elsewhere than its first."""
    text = f"{seed}:{epoch}:{item.key}" + (f":{again}" if again else "")
    return hashlib.sha256(text.encode()).digest(), item.file, item.line


class Stream:
    """Some items over and over, each round in another order: an endless row of known sizes."""

    def __init__(self, items: Sequence[Item], members: Sequence[int], seed: int):
        self._items, self._members, self._seed = items, list(members), seed
        self.total = sum(items[i].size for i in members)
        self._held: tuple[int, list[int], np.ndarray] | None = None

    def take(self, low: float, high: float) -> list[tuple[int, int]]:
        """(index, round) of the items that begin in low <= place < high, in their order."""
        if self.total <= 0 or high <= low:
            return []
        number = max(0, int(low // self.total) - 1)
        found = []
        while number * self.total < high:
            order, starts = self._round(number)
            first, end = np.searchsorted(starts, [low, high], side="left")
            found += [(order[k], number) for k in range(int(first), int(end))]
            number += 1
        return found

    def _round(self, number: int) -> tuple[list[int], np.ndarray]:
        if self._held is None or self._held[0] != number:
            order = sorted(self._members, key=lambda i: place(self._items[i], self._seed, number))
            sizes = np.array([self._items[i].size for i in order], dtype=np.int64)
            self._held = (number, order, number * self.total + np.cumsum(sizes) - sizes)
        return self._held[1], self._held[2]


class Mixture:
    """Raises InputError for shares that are none, and for sources that do not exist."""

    def __init__(self, items: Sequence[Item], *, shares: Mapping[str, float], seed: int):
        self._items, self._seed = items, seed
        members: dict[str, list[int]] = {name: [] for name in shares}
        for i, item in enumerate(items):
            members.setdefault(item.source if item.source in shares else "", []).append(i)
        self._whole = members.get("", [])
        refuse_shares(shares, members, rest=bool(self._whole))
        rest = sum(items[i].size for i in self._whole)
        listed = sum(shares.values())
        self.size = rest / (1 - listed) if self._whole else float(sum(item.size for item in items))
        self._streams = {
            name: (Stream(items, members[name], seed), share * self.size) for name, share in sorted(shares.items())
        }

    def epoch(self, epoch: int) -> list[int]:
        """Indices in the epoch's order. An item that comes several times in it is there as often."""
        taken = [(i, 0) for i in self._whole]
        for stream, size in self._streams.values():
            found = stream.take(epoch * size, (epoch + 1) * size)
            first = min((number for _, number in found), default=0)
            taken += [(i, number - first) for i, number in found]
        taken.sort(key=lambda t: place(self._items[t[0]], self._seed, epoch, t[1]))
        return [i for i, _ in taken]

    def facts(self) -> dict[str, dict[str, float]]:
        """For the record: each named source's size, what an epoch takes of it, and how many rounds that is."""
        return {
            name: {"size": stream.total, "an_epoch": round(size, 1), "rounds": round(size / stream.total, 4)}
            for name, (stream, size) in self._streams.items()
        }


def more_of(stream: Stream, share: float, sizes: Sequence[int], first: int | None, step: int) -> list[int]:
    """Items of `stream` that step `step` takes on top of its own, so that they are `share` of it. `sizes`: what each
    step takes by itself; `first`: the step at which this began, None where it did not."""
    if first is None or step < first:
        return []
    more = share / (1 - share)
    before = sum(sizes[first:step])
    return [i for i, _ in stream.take(more * before, more * (before + sizes[step]))]


def source_of(file: str, names: Sequence[str]) -> str:
    """The first of the names that is this file, its last part, or a pattern of either; "" if none is."""
    last = PurePosixPath(file).name
    return next((n for n in names if n != REPLAY and (fnmatch(file, n) or fnmatch(last, n))), "")


def refuse_shares(shares: Mapping[str, float], members: Mapping[str, Sequence[int]], *, rest: bool) -> None:
    problems = []

    def refuse(name: str, what: str, fix: str) -> None:
        problems.append(Problem(where=f"train.mixture{name}", what=what, fix=fix))

    for name, share in shares.items():
        if not 0 < share <= 1:
            refuse(f".{name}", f"{share:g} is no share", "give a number above 0 and at most 1")
        if not members[name] and name == REPLAY:
            refuse(f".{name}", "there is no general data to replay", "name files: train.general")
        elif not members[name]:
            refuse(f".{name}", "no file with training rows has this name", "name a file of the data, or a pattern")
    total = sum(shares.values())
    if shares and rest and total >= 1 - 1e-9:
        refuse("", f"the shares add up to {total:g} and leave nothing to the other files", "lower them, or name all")
    if shares and not rest and abs(total - 1) > 1e-6:
        refuse("", f"every file has a share, and they add up to {total:g}", "make them add up to 1")
    if problems:
        raise InputError(problems)
