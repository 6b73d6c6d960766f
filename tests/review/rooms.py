"""Small rooms, and a journal in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.review.items import Item
from tunesmith.review.queues import Queue, QueueRules
from tunesmith.review.room import Room

LABELS = ("sports", "politics", "science")


class Memory:
    """A journal that forgets when the test ends."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.people: list[dict[str, Any]] = []

    def append(self, judgment: Mapping[str, Any]) -> Mapping[str, Any]:
        self.kept.append(dict(judgment))
        return judgment

    def list(self) -> Iterable[Mapping[str, Any]]:
        return iter(self.kept)

    def add_annotator(self, annotator: Mapping[str, Any]) -> None:
        self.people.append(dict(annotator))

    def annotators(self) -> Iterable[Mapping[str, Any]]:
        return iter(self.people)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def texts(n: int) -> list[Item]:
    return [Item(id=f"item{i:03d}", kind="label", text=f"text number {i}", uncertainty=i / n) for i in range(n)]


def pairs(n: int) -> list[Item]:
    return [
        Item(id=f"pair{i:03d}", kind="pair", prompt=f"What is {i}?", completion=f"{i} is a number") for i in range(n)
    ]


def rules(**changes: Any) -> QueueRules:
    return QueueRules(**({"name": "labels", "kind": "label", "title": "Which topic?", "labels": LABELS} | changes))


def room(n: int = 6, *, journal: Memory | None = None, clock: Clock | None = None, **changes: Any) -> Room:
    queue = Queue(rules(**changes), texts(n), clock=clock or Clock())
    approval = Queue(
        rules(name="pairs", kind="pair", labels=(), title="Is it right?"), pairs(4), clock=clock or Clock()
    )
    return Room("test", [queue, approval], journal if journal is not None else Memory())


_ids = iter(range(10**9))


def say(room: Room, person: str, verb: str, item: str, value: Any = None, **more: Any) -> dict[str, Any]:
    draft = {"id": f"judgment{next(_ids)}", "queue": "labels", "item": item, "verb": verb, "value": value} | more
    return room.judge(person, draft)


def asked(room: Room, person: str, queue: str = "labels") -> list[str]:
    return [i["id"] for i in room.ask(person, queue)["items"]]
