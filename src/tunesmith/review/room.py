"""A review room: queues, people, and a journal in which every judgment is on disk before it counts.

All answers are JSON-ready: pages and programs ask the same room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError
from tunesmith.metrics.agreement import Ratings
from tunesmith.metrics.agreement_facts import agreement_facts
from tunesmith.metrics.consensus import Vote
from tunesmith.review.assignment import People, Person, Role, check_name
from tunesmith.review.items import Item
from tunesmith.review.judgment import Draft, Judgment
from tunesmith.review.queues import Dispute, Queue
from tunesmith.review.reliability import reliability
from tunesmith.review.support import parts

AHEAD = 3  # items a page holds: the one shown and those that appear at once after a keypress
RESAMPLES = 500  # of the overview's intervals
STALE = 0.01  # share of new verdicts from which on intervals are computed anew
AT_ONCE = 1_000  # votes whose intervals take milliseconds; of more they are computed beside the page


class Journal(Protocol):
    """Where judgments are kept: ledger/judgments.py, which this room may not import."""

    def append(self, judgment: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def list(self) -> Iterable[Mapping[str, Any]]: ...
    def add_annotator(self, annotator: Mapping[str, Any]) -> None: ...
    def annotators(self) -> Iterable[Mapping[str, Any]]: ...


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Room:
    """Opened on a journal, the room is as it was when the last judgment was kept. One process at a time."""

    def __init__(self, name: str, queues: Sequence[Queue], journal: Journal, *, now: Callable[[], str] = now) -> None:
        self.name = name
        self._queues = {q.rules.name: q for q in queues}
        if not queues or len(self._queues) < len(queues):
            raise InputError("a review room has one queue or more, each with a name of its own", where=name)
        self._journal = journal
        self._now = now
        self._lock = threading.RLock()
        self._kept: dict[str, Judgment] = {}
        self._measured: dict[str, tuple[int, dict[str, Any]]] = {}  # queue -> (votes then, facts)
        self._measuring: set[str] = set()
        self._people = People(journal.annotators())
        self.elsewhere = 0  # judgments of queues that this room does not have
        for kept in journal.list():
            self._learn(msgspec.convert(kept, Judgment))
        for queue in queues:
            queue.settle(p.name for p in self._people)

    # people

    def person(self, token: str) -> Person | None:
        return self._people.find(token)

    def owner(self, name: str) -> Person:
        """The person at this computer, who needs no link."""
        with self._lock:
            if self._people.named(name) is None:
                self._add({"name": check_name(name), "role": "owner", "token_sha256": ""})
            return Person(name=name, role="owner")

    def invite(self, name: str, role: Role = "annotator") -> str:
        """A new token for this name; the one before no longer opens anything."""
        with self._lock:
            fact, token = self._people.invite(name, role)
            self._add(fact)
            return token

    def _add(self, fact: dict[str, Any]) -> None:
        self._journal.add_annotator(fact)
        self._people.learn(fact)

    # asking

    def queues(self) -> list[dict[str, Any]]:
        return [
            {"name": q.rules.name, "title": q.rules.title, "kind": q.rules.kind, "labels": list(q.rules.labels)}
            for q in self._queues.values()
        ]

    def ask(self, person: str, queue: str) -> dict[str, Any]:
        """The next items for this person, and how far the queue is."""
        with self._lock:
            found = self._queue(queue)
            items = [self._shown(found, i) for i in found.hold(person, AHEAD)]
            return {"items": items, "progress": found.progress(person) | {"elsewhere": found.turns.elsewhere(person)}}

    def ask_disputes(self, person: str, queue: str) -> dict[str, Any]:
        """The next disagreements to adjudicate, with what everybody said."""
        with self._lock:
            found = self._queue(queue)
            items = [self._disputed(found, d) for d in found.disputes(person, AHEAD)]
            return {"items": items, "progress": found.progress(person)}

    def put_off(self, person: str, queue: str, item: str) -> None:
        with self._lock:
            self._queue(queue).put_off(person, item)

    def recent(self, person: str, queue: str, most: int = 10) -> list[dict[str, Any]]:
        """This person's last judgments, newest first, each with the start of its item."""
        with self._lock:
            found = self._queue(queue)
            return [plain(j) | {"text": _start(found.item(j.item))} for j in found.recent(person, most)]

    # saying

    def judge(self, person: str, draft: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a judgment; when this returns it is on disk. Sent again, it is acknowledged again.

        Raises InputError for one that can't be kept, StorageError where the disk refuses.
        """
        try:
            said = msgspec.convert(draft, Draft)
        except msgspec.ValidationError as e:
            raise InputError(f"this is no judgment: {e}") from None
        with self._lock:
            before = self._kept.get(said.id)
            if before is not None:
                if before.annotator != person or not before.says(said):
                    raise InputError("another judgment has that id", where=said.id)
                return plain(before)
            self._queue(said.queue).check(person, said)
            judgment = msgspec.convert(
                msgspec.structs.asdict(said) | {"annotator": person, "at": self._now()}, Judgment
            )
            kept = msgspec.convert(self._journal.append(plain(judgment)), Judgment)
            self._learn(kept)
            return plain(kept)

    def _learn(self, judgment: Judgment) -> None:
        self._kept[judgment.id] = judgment
        queue = self._queues.get(judgment.queue)
        if queue is None:
            self.elsewhere += 1
        else:
            queue.apply(judgment)

    # the owner's view

    def overview(self) -> dict[str, Any]:
        """Every queue's progress, people, agreement with intervals, and what was set aside."""
        return {
            "name": self.name,
            "people": [{"name": p.name, "role": p.role} for p in self._people],
            "queues": [self._overview(q) for q in self._queues.values()],
        }

    def _overview(self, queue: Queue) -> dict[str, Any]:
        with self._lock:
            count, skipped = queue.set_aside(20)
            facts = {
                "name": queue.rules.name,
                "title": queue.rules.title,
                "order": queue.rules.order,
                "overlap": queue.rules.overlap,
                "annotators": queue.rules.annotators,
                "progress": queue.progress(),
                "people": queue.by_person(),
                "set_aside": count,
                "skipped": [{"text": _start(i), "reasons": reasons} for i, reasons in skipped],
                "no_longer_asked": queue.elsewhere,
            }
            votes, rulings = queue.votes(), queue.rulings()
        return facts | {"measures": self._measures(queue.rules.name, votes, rulings)}

    def _measures(self, queue: str, votes: list[Vote], rulings: dict[str, str]) -> dict[str, Any] | None:
        """Agreement and each person's reliability, with intervals: the newest there are. Never under the lock, as resampling takes its time."""
        known = len(votes) + len(rulings)
        then, facts = self._measured.get(queue, (0, None))
        if abs(known - then) <= STALE * known or queue in self._measuring:
            return facts
        self._measuring.add(queue)
        if len(votes) <= AT_ONCE:
            return self._measure(queue, votes, rulings)
        threading.Thread(target=self._measure, args=(queue, votes, rulings), name="agreement", daemon=True).start()
        return facts

    def _measure(self, queue: str, votes: list[Vote], rulings: dict[str, str]) -> dict[str, Any]:
        try:
            facts = agreement_facts(Ratings.of_votes(votes), scale="nominal", resamples=RESAMPLES)
            relied = reliability(votes, method="majority", adjudicated=rulings, resamples=RESAMPLES)
            facts["reliability"] = relied["annotators"]
            self._measured[queue] = (len(votes) + len(rulings), facts)
            return facts
        finally:
            self._measuring.discard(queue)

    def _queue(self, name: str) -> Queue:
        found = self._queues.get(name)
        if found is None:
            raise InputError("there is no such queue", where=name[:64], fix=f"queues: {', '.join(self._queues)}")
        return found

    def _shown(self, queue: Queue, item: Item) -> dict[str, Any]:
        shown = _as_facts(item)
        if not queue.rules.suggest:
            shown |= {"suggested": "", "confidence": None}
        return shown

    def _disputed(self, queue: Queue, dispute: Dispute) -> dict[str, Any]:
        votes = [
            {"annotator": j.annotator, "verb": j.verb, "value": j.value, "reason": j.reason} for j in dispute.judgments
        ]
        return _as_facts(dispute.item) | {"votes": votes}


def _as_facts(item: Item) -> dict[str, Any]:
    """Every field, also those that are their default."""
    facts: dict[str, Any] = {f: plain(getattr(item, f)) for f in item.__struct_fields__ if f != "source"}
    facts["source"] = {f: plain(getattr(item.source, f)) for f in item.source.__struct_fields__}
    if item.source.passage:  # which words of either stand in the other
        facts["passage_parts"] = parts(item.source.passage, item.completion)
        facts["completion_parts"] = parts(item.completion, item.source.passage)
    return facts


def _start(item: Item, most: int = 120) -> str:
    text = " ".join((item.text or item.prompt).split())
    return text if len(text) <= most else text[: most - 1] + "…"
