"""Who is asked about which item next.

Items stand in one order, positions 0 to n-1. Each person walks along it with a cursor that never goes
back; what becomes free behind a cursor (an undo, a skip, a lease that ran out) waits in that person's heap.
Positions that once had all their verdicts are jumped over (union-find), so that nobody walks over what
others have done. No call looks at all items.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Sequence


class Turns:
    """`wanted[p]`: how many people shall judge position p. A lease keeps an item from being asked of more."""

    def __init__(self, wanted: Sequence[int], *, lease_s: float, clock: Callable[[], float]) -> None:
        self._wanted = array("B", wanted)
        self._given = array("H", bytes(2 * len(self._wanted)))  # verdicts that stand
        self._next_open = array("q", range(len(self._wanted) + 1))
        self._reopened: set[int] = set()
        self._lease_s = lease_s
        self._clock = clock
        self._leases: dict[int, dict[str, float]] = {}  # position -> person -> until when
        self._ends: list[tuple[float, int, str]] = []  # heap of leases; outdated entries are passed over
        self._held: dict[str, list[int]] = {}  # each person's leases, in the order they are asked
        self._done: dict[str, set[int]] = {}  # judged or skipped
        self._cursor: dict[str, int] = {}
        self._returned: dict[str, list[int]] = {}

    def hold(self, person: str, most: int) -> list[int]:
        """The positions this person is asked about now, at most `most`; they stay with the person for a lease."""
        self._greet(person)
        self._expire()
        held = self._held[person]
        for position in held:
            self._lease(person, position)
        while len(held) < most and (taken := self._take(person)) is not None:
            self._lease(person, taken)
            held.append(taken)
        return held[:most]

    def given(self, position: int) -> int:
        return self._given[position]

    def wanted(self, position: int) -> int:
        return self._wanted[position]

    def is_full(self, position: int) -> bool:
        return self._given[position] >= self._wanted[position]

    def has_done(self, person: str, position: int) -> bool:
        return position in self._done.get(person, ())

    def elsewhere(self, person: str) -> int:
        """Items that this person would be asked about, were they not in the hands of others."""
        done = self._done.get(person, ())
        return sum(
            person not in leases and position not in done and not self.is_full(position)
            for position, leases in self._leases.items()
        )

    def give(self, person: str, position: int) -> None:
        """A verdict of this person stands from now on."""
        self._greet(person)
        self._done[person].add(position)
        self._given[position] += 1
        self._release(person, position)
        if self.is_full(position):
            self._next_open[position] = position + 1
            self._reopened.discard(position)
            for other in list(self._leases.get(position, ())):
                self._release(other, position)

    def take_back(self, person: str, position: int) -> None:
        """It no longer stands: the item is asked again, of this person first."""
        was_full = self.is_full(position)
        self._given[position] -= 1
        self._done[person].discard(position)
        if was_full and not self.is_full(position):
            self._reopened.add(position)
        self._ask_first(person, position)
        self._offer(position)

    def skip(self, person: str, position: int) -> None:
        """Not for this person; for the others as before."""
        self._greet(person)
        self._done[person].add(position)
        self._release(person, position)
        self._offer(position)

    def unskip(self, person: str, position: int) -> None:
        self._done[person].discard(position)
        self._ask_first(person, position)

    def settle(self, person: str) -> None:
        """Walk over what this person has done, once, so that no later call has to."""
        self._greet(person)
        done, cursor = self._done[person], self._cursor[person]
        while (at := self._find(cursor)) < len(self._wanted) and at in done:
            cursor = at + 1
        self._cursor[person] = max(self._cursor[person], cursor)

    def _greet(self, person: str) -> None:
        if person not in self._cursor:
            self._cursor[person] = 0
            self._held[person], self._done[person] = [], set()
            self._returned[person] = sorted(self._reopened)  # their place in the walk is jumped over

    def _find(self, position: int) -> int:
        """The first position from here on that never had all its verdicts."""
        end = position
        while self._next_open[end] != end:
            end = self._next_open[end]
        while self._next_open[position] != end and position != end:
            self._next_open[position], position = end, self._next_open[position]
        return end

    def _take(self, person: str) -> int | None:
        returned = self._returned[person]
        while True:
            ahead = self._find(self._cursor[person])
            if returned and returned[0] <= ahead:
                position = heapq.heappop(returned)
            elif ahead < len(self._wanted):
                position, self._cursor[person] = ahead, ahead + 1
            else:
                return None
            if self._is_free(person, position):
                return position

    def _is_free(self, person: str, position: int) -> bool:
        leases = self._leases.get(position, {})
        if person in leases or position in self._done[person]:
            return False
        return self._given[position] + len(leases) < self._wanted[position]

    def _lease(self, person: str, position: int) -> None:
        until = self._clock() + self._lease_s
        self._leases.setdefault(position, {})[person] = until
        heapq.heappush(self._ends, (until, position, person))

    def _release(self, person: str, position: int) -> None:
        leases = self._leases.get(position)
        if leases is None or leases.pop(person, None) is None:
            return
        self._held[person].remove(position)
        if not leases:
            del self._leases[position]

    def _ask_first(self, person: str, position: int) -> None:
        if not self.is_full(position) and position not in self._held[person]:
            self._lease(person, position)
            self._held[person].insert(0, position)

    def _offer(self, position: int) -> None:
        """Let those come back to it who have walked past."""
        for person, cursor in self._cursor.items():
            if position < cursor or position in self._reopened:
                heapq.heappush(self._returned[person], position)

    def _expire(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            until, position, person = heapq.heappop(self._ends)
            if self._leases.get(position, {}).get(person) == until:
                self._release(person, position)
                self._offer(position)
