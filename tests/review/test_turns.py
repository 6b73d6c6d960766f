"""Turns against a plain model that looks at everything, and the cost of a call at 100,000 items."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.review.rooms import Clock
from tunesmith.review.turns import Turns

PEOPLE = ("ann", "ben", "cy")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "give", "skip", "undo", "late", "wait"]), st.sampled_from(PEOPLE), st.integers(0, 7)
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(wanted=st.lists(st.integers(1, 3), min_size=1, max_size=8), steps=STEPS, most=st.integers(1, 3))
def test_whoever_asks_gets_exactly_what_is_free(wanted: list[int], steps: list, most: int) -> None:
    """After any history: held items are free for that person, and nothing free is left out."""
    clock = Clock()
    turns = Turns(wanted, lease_s=10, clock=clock)
    given_: dict[int, set[str]] = {p: set() for p in range(len(wanted))}
    done: dict[str, set[int]] = {a: set() for a in PEOPLE}
    verdicts: dict[str, list[tuple[str, int]]] = {a: [] for a in PEOPLE}
    held: dict[str, dict[int, float]] = {a: {} for a in PEOPLE}

    def free(person: str, position: int) -> bool:
        others = sum(1 for a in PEOPLE if a != person and held[a].get(position, -1) > clock.now)
        return position not in done[person] and len(given_[position]) + others < wanted[position]

    def give(person: str, position: int) -> None:
        turns.give(person, position)
        given_[position].add(person)
        done[person].add(position)
        verdicts[person].append(("give", position))
        held[person].pop(position, None)
        if len(given_[position]) >= wanted[position]:
            for other in PEOPLE:
                held[other].pop(position, None)

    for what, person, n in steps:
        mine = list(held[person])
        if what == "hold":
            got = turns.hold(person, most)
            held[person] = {p: t for p, t in held[person].items() if t > clock.now}
            assert len(set(got)) == len(got) <= most
            # what was undone comes back to whoever undid it, even where another has it in hand
            assert all(free(person, p) for p in got if p not in held[person])
            if len(got) < most:
                assert {p for p in range(len(wanted)) if free(person, p)} <= set(got)
            else:
                assert set(list(held[person])[:most]) <= set(got) or len(held[person]) > most
            held[person] |= dict.fromkeys(got, clock.now + 10)
            for p in list(held[person]):
                held[person][p] = clock.now + 10
        elif what == "give" and mine:
            give(person, mine[n % len(mine)])
        elif what == "late" and (n % len(wanted)) not in done[person]:
            give(person, n % len(wanted))  # a judgment that comes after its lease
        elif what == "skip" and mine:
            position = mine[n % len(mine)]
            turns.skip(person, position)
            done[person].add(position)
            verdicts[person].append(("skip", position))
            held[person].pop(position)
        elif what == "undo" and verdicts[person]:
            verb, position = verdicts[person].pop()
            done[person].discard(position)
            if verb == "give":
                given_[position].discard(person)
                turns.take_back(person, position)
            else:
                turns.unskip(person, position)
            if len(given_[position]) < wanted[position]:
                held[person][position] = clock.now + 10
        elif what == "wait":
            clock.now += n


def test_no_call_looks_at_all_items() -> None:
    """The slowest of many calls at 100,000 items, whoever asks and however late they come."""
    n, clock = 100_000, Clock()
    turns = Turns([2 if i % 10 == 0 else 1 for i in range(n)], lease_s=10, clock=clock)
    for position in range(n - 200):
        turns.give("ann", position)
    turns.settle("ann")
    slowest = 0.0
    for person in ("ann", "ben", "late"):
        for _ in range(200):
            start = time.perf_counter()
            got = turns.hold(person, 3)
            if got:
                turns.give(person, got[0])
            slowest = max(slowest, time.perf_counter() - start)
    # the first jump over what is done is one pass of the union-find, all others are short
    assert slowest < 0.1
    assert turns.hold("late", 1) and turns.hold("ben", 1)


def test_an_item_in_hand_is_asked_of_nobody_else_until_its_lease_ends() -> None:
    clock = Clock()
    turns = Turns([1, 1], lease_s=10, clock=clock)
    assert turns.hold("ann", 1) == [0] and turns.hold("ben", 2) == [1] and turns.hold("cy", 2) == []
    clock.now = 9
    assert turns.hold("ann", 1) == [0]  # asking again keeps it
    clock.now = 12
    assert turns.hold("cy", 2) == [1]  # ben's ran out, ann's did not
    clock.now = 20
    assert turns.hold("ben", 2) == [0]


def test_a_skip_gives_the_item_to_the_others_and_never_back() -> None:
    turns = Turns([1, 1], lease_s=10, clock=Clock())
    turns.hold("ann", 1)
    turns.skip("ann", 0)
    assert turns.hold("ann", 2) == [1] and turns.hold("ben", 2) == [0]


def test_an_undone_item_comes_first_and_is_open_to_people_who_came_later() -> None:
    turns = Turns([1, 1, 1], lease_s=10, clock=(clock := Clock()))
    for position in range(3):
        turns.give("ann", position)
    turns.take_back("ann", 1)
    assert turns.hold("ann", 1) == [1] and turns.hold("new", 3) == []
    clock.now = 11
    assert turns.hold("newer", 3) == [1]
