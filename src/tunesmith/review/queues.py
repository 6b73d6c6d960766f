"""A queue: items, the judgments about them so far, and what follows from both. Read this file first.

The index is rebuilt from the kept judgments when a queue is opened and kept up with each new one; nothing
that a page asks looks at all items. Nobody sees another person's verdict on an item before their own; a
disagreement shows itself, to those who adjudicate, once the item has all the verdicts it should get.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.core.canonical import canonical_json
from tunesmith.core.errors import InputError, require
from tunesmith.review.agreement import LiveAgreement
from tunesmith.review.items import Item, place
from tunesmith.review.judgment import Draft, Judgment, Kind, check_draft
from tunesmith.review.turns import Turns

Order = Literal["random", "uncertainty", "listed"]
PACE_OF = 30  # last judgments that say how long one takes


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """How a queue is worked off."""

    name: str  # "labels", "pairs", "errors"
    kind: Kind
    title: str  # "Which topic?"
    labels: tuple[str, ...] = ()  # of label items, in the order of their keys
    order: Order = "random"  # by a seeded hash; the most uncertain first; as the items come
    seed: int = 0
    overlap: float = 0.0  # share of the items that several people judge, blind
    annotators: int = 2  # how many judge such an item
    lease_s: float = 900.0  # how long an item waits for who was asked
    suggest: bool = True  # show a model's suggestion before the verdict

    def __post_init__(self) -> None:
        require(0 <= self.overlap <= 1, f"{self.name}.overlap", self.overlap, "in [0, 1]")
        require(1 <= self.annotators <= 255, f"{self.name}.annotators", self.annotators, "between 1 and 255")
        require(self.lease_s > 0, f"{self.name}.lease_s", self.lease_s, "above 0")
        require(
            self.kind == "pair" or len(set(self.labels)) == len(self.labels) > 0,
            f"{self.name}.labels", self.labels, "one label or more, each once",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """An item on which people disagree, with what each said; for the eyes of who adjudicates."""

    item: Item
    judgments: tuple[Judgment, ...]


class Queue:
    """Raises InputError if two items have one id."""

    def __init__(self, rules: QueueRules, items: Iterable[Item], *, clock: Callable[[], float] = time.monotonic):
        self.rules = rules
        self.items = _ordered(rules, items)
        self._position = {item.id: n for n, item in enumerate(self.items)}
        if len(self._position) < len(self.items):
            twice = [id for id, n in Counter(i.id for i in self.items).items() if n > 1]
            raise InputError(f"{len(twice)} ids are on several items, the first is {twice[0]}", where=rules.name)
        shared = int(rules.overlap * 2**64)
        wanted = [rules.annotators if place(rules.seed, "overlap", i.id) < shared else 1 for i in self.items]
        self.turns = Turns(wanted, lease_s=rules.lease_s, clock=clock)
        self.agreement = LiveAgreement()
        self._verdicts: dict[int, dict[str, Judgment]] = {}  # position -> person -> what stands
        self._skips: dict[int, dict[str, Judgment]] = {}
        self._rulings: dict[int, Judgment] = {}
        self._open: OrderedDict[int, str] = OrderedDict()  # disputed positions -> who has it in hand, or ""
        self._stands: dict[str, dict[str, Judgment]] = {}  # person -> id -> what can be undone, oldest first
        self._several: set[int] = set()  # positions with two verdicts or more
        self._verbs: dict[str, Counter[str]] = {}
        self._pace: dict[str, deque[float]] = {}
        self.wanted = sum(wanted)
        self.shared = sum(w > 1 for w in wanted)
        self.given = 0  # verdicts that were wanted and stand
        self.finished = 0  # items with all their verdicts
        self.elsewhere = 0  # judgments about items that are no longer in the queue

    # what is asked

    def hold(self, person: str, most: int) -> list[Item]:
        """What this person is asked next, at most `most` items; nobody else is asked these meanwhile."""
        return [self.items[p] for p in self.turns.hold(person, most)]

    def disputes(self, person: str, most: int) -> list[Dispute]:
        """What this person may adjudicate next. Items in another's hands come last."""
        mine = [p for p, who in self._open.items() if who == person][:most]
        for position, who in self._open.items():
            if len(mine) >= most:
                break
            if not who:
                mine.append(position)
        for position in mine:
            self._open[position] = person
        if not mine:  # all that is left lies in the hands of others, who may have gone
            mine = list(self._open)[:most]
        return [Dispute(item=self.items[p], judgments=tuple(self._verdicts[p].values())) for p in mine]

    def put_off(self, person: str, item: str) -> None:
        """Not this dispute now: it goes to the end of the line."""
        position = self._find(item)
        if position in self._open:
            self._open[position] = ""
            self._open.move_to_end(position)

    def last(self, person: str) -> Judgment | None:
        """What an undo of this person takes back."""
        stands = self._stands.get(person)
        return next(reversed(stands.values())) if stands else None

    def recent(self, person: str, most: int) -> list[Judgment]:
        """Newest first."""
        found: list[Judgment] = []
        for judgment in reversed(self._stands.get(person, {}).values()):
            if len(found) == most:
                break
            found.append(judgment)
        return found

    def item(self, id: str) -> Item:
        return self.items[self._find(id)]

    # what is said

    def check(self, person: str, draft: Draft) -> None:
        """Raises InputError for a judgment that can't be kept. Nothing is changed."""
        check_draft(draft, self.rules.kind, self.rules.labels)
        position = self._find(draft.item)
        if draft.verb == "undo":
            target = self._stands.get(person, {}).get(draft.value)
            if target is None or target.item != draft.item:
                raise InputError("there is nothing of yours with that id to undo", where=draft.value[:40])
            if position in self._rulings and target.verb != "adjudicate":
                raise InputError("somebody has adjudicated this item since", fix="let them undo their ruling first")
        elif draft.verb == "adjudicate":
            if position not in self._open:
                raise InputError("nobody disagrees on this item, or it is adjudicated already")
        elif self.turns.has_done(person, position):
            raise InputError("you have judged this item already", fix="undo that first")

    def apply(self, judgment: Judgment) -> None:
        """Take in a judgment that is kept. Never raises: what was said before the queue changed still counts."""
        position = self._position.get(judgment.item)
        if position is None:
            self.elsewhere += 1
        elif judgment.verb == "undo":
            self._undo(judgment, position)
        elif judgment.verb == "adjudicate":
            if position not in self._rulings:
                self._rulings[position] = judgment
                self._stand(judgment)
        elif not self.turns.has_done(judgment.annotator, position):
            self._stand(judgment)
            if judgment.verb == "skip":
                self._skips.setdefault(position, {})[judgment.annotator] = judgment
                self.turns.skip(judgment.annotator, position)
            else:
                self._count(position, -1)
                before = self._values(position)
                self._verdicts.setdefault(position, {})[judgment.annotator] = judgment
                self.turns.give(judgment.annotator, position)
                self.agreement.replace(before, self._values(position))
                self._count(position, +1)
        if position is not None:
            self._settle(position)

    def settle(self, people: Iterable[str]) -> None:
        """After a rebuild: so that nobody's first request walks over what they have done."""
        for person in people:
            self.turns.settle(person)

    def _undo(self, judgment: Judgment, position: int) -> None:
        person = judgment.annotator
        target = self._stands.get(person, {}).pop(judgment.value, None)
        if target is None:
            return
        self._verbs[person][target.verb] -= 1
        if target.verb == "adjudicate":
            del self._rulings[position]
        elif target.verb == "skip":
            del self._skips[position][person]
            self.turns.unskip(person, position)
        else:
            self._count(position, -1)
            before = self._values(position)
            del self._verdicts[position][person]
            self.turns.take_back(person, position)
            self.agreement.replace(before, self._values(position))
            self._count(position, +1)

    def _stand(self, judgment: Judgment) -> None:
        self._stands.setdefault(judgment.annotator, {})[judgment.id] = judgment
        self._verbs.setdefault(judgment.annotator, Counter())[judgment.verb] += 1
        if judgment.verb != "skip" and judgment.seconds > 0:
            self._pace.setdefault(judgment.annotator, deque(maxlen=PACE_OF)).append(judgment.seconds)

    def _count(self, position: int, sign: int) -> None:
        given, wanted = self.turns.given(position), self.turns.wanted(position)
        self.given += sign * min(given, wanted)
        self.finished += sign * (given >= wanted)

    def _values(self, position: int) -> Counter[str]:
        return Counter(category(j) for j in self._verdicts.get(position, {}).values())

    def _settle(self, position: int) -> None:
        """Is it in dispute?"""
        verdicts = self._verdicts.get(position, {})
        if len(verdicts) > 1:
            self._several.add(position)
        else:
            self._several.discard(position)
        said = {_outcome(j) for j in verdicts.values()}
        if len(said) > 1 and self.turns.is_full(position) and position not in self._rulings:
            self._open.setdefault(position, "")
        else:
            self._open.pop(position, None)

    def _find(self, item: str) -> int:
        position = self._position.get(item)
        if position is None:
            raise InputError("there is no such item in this queue", where=item[:64], fix="reload the page")
        return position

    # how far it is

    def progress(self, person: str = "") -> dict[str, Any]:
        """JSON-ready. `agreement` is live, as numbers; `left_s` at this person's pace, None if unknown."""
        pace = self.pace(person)
        mine, last = self._stands.get(person, {}), self.last(person)
        return {
            "items": len(self.items),
            "finished": self.finished,
            "wanted": self.wanted,
            "given": self.given,
            "shared": self.shared,
            "mine": len(mine),
            "undo": None if last is None else {"id": last.id, "item": last.item},
            "left_s": None if pace is None else pace * (self.wanted - self.given),
            "disputes": len(self._open),
            "adjudicated": len(self._rulings),
            "agreement": {
                "items": self.agreement.items,
                "percent": self.agreement.percent,
                "alpha": self.agreement.alpha,
            },
        }

    def pace(self, person: str) -> float | None:
        """Median seconds of the last judgments."""
        pace = self._pace.get(person)
        return statistics.median(pace) if pace else None

    def by_person(self) -> dict[str, dict[str, Any]]:
        """How often each said what, of what stands, and their pace."""
        return {
            person: {"verbs": {v: n for v, n in sorted(verbs.items()) if n}, "seconds": self.pace(person)}
            for person, verbs in sorted(self._verbs.items())
        }

    def set_aside(self, most: int) -> tuple[int, list[tuple[Item, dict[str, str]]]]:
        """Items that were skipped and lack a verdict: how many, and the first with each person's reason."""
        open_ = [p for p, skips in self._skips.items() if skips and not self.turns.is_full(p)]
        shown = [(self.items[p], {a: j.reason for a, j in self._skips[p].items()}) for p in sorted(open_)[:most]]
        return len(open_), shown

    def votes(self) -> list[tuple[str, str, str]]:
        """(item, annotator, value) of items with several verdicts, for measures with intervals."""
        return [
            (self.items[p].id, person, category(judgment))
            for p in sorted(self._several)
            for person, judgment in self._verdicts[p].items()
        ]

    def rulings(self) -> dict[str, str]:
        """item -> what was ruled."""
        return {self.items[p].id: category(judgment) for p, judgment in self._rulings.items()}


def category(judgment: Judgment) -> str:
    """What agreement is measured on: the label, or what became of the pair."""
    if judgment.verb == "adjudicate" and isinstance(judgment.value, dict):
        return judgment.value["verb"]
    return judgment.value if isinstance(judgment.value, str) else judgment.verb


def _outcome(judgment: Judgment) -> bytes:
    """What would come of it; two corrections differ where their texts do."""
    return canonical_json(judgment.value if judgment.value is not None else judgment.verb)


def _ordered(rules: QueueRules, items: Iterable[Item]) -> Sequence[Item]:
    """By the queue's own rule; ties, and items of unknown uncertainty, at random."""
    listed = list(items)
    if rules.order == "listed":
        return listed
    if rules.order == "random":
        return sorted(listed, key=lambda i: place(rules.seed, "order", i.id))
    return sorted(
        listed,
        key=lambda i: (-(i.uncertainty if i.uncertainty is not None else -1e9), place(rules.seed, "order", i.id)),
    )
