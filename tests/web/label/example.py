"""A room as people would have it: support tickets, a few generated pairs, some labels in doubt."""

from __future__ import annotations

from typing import Any

from tunesmith.review.items import Item, Source
from tunesmith.review.queues import Queue, QueueRules
from tunesmith.review.room import Journal, Room

LABELS = ("billing", "delivery", "account", "technical problem", "cancellation", "praise")
TICKETS = (
    "I was charged twice for order 4471. Can I have the second payment back, and when?",
    "The parcel has been 'out for delivery' since Monday.",
    "I can't log in: the reset mail never arrives, not even in the spam folder.",
    "The app closes by itself when I open the map.\n\nPhone: Fairphone 5, Android 14\nApp: 8.2.1",
    "Please end my subscription at the end of the month.",
    "Just wanted to say that Maria on the phone was wonderful.",
)
PASSAGE = (
    "The package maintenance scripts must be idempotent. If dpkg fails for any reason, the script may be run again, "
    "and the second invocation must not fail where the first one had succeeded. Maintainer scripts should also "
    "clean up temporary files that an earlier, interrupted run has left behind."
)


def tickets(n: int) -> list[Item]:
    return [
        Item(
            id=f"ticket{i:05d}",
            kind="label",
            text=TICKETS[i % len(TICKETS)] + (f" (case {i})" if i >= len(TICKETS) else ""),
            suggested=LABELS[i % len(LABELS)] if i % 2 else "",
            confidence=0.55 + (i % 40) / 100 if i % 2 else None,
            uncertainty=0.45 - (i % 40) / 100 if i % 2 else None,
            source=Source(file="tickets.csv", line=i + 2),
        )
        for i in range(n)
    ]


def pairs(n: int) -> list[Item]:
    source = Source(
        file="developers-reference.pdf", page=41, heading=("Best practices", "Maintainer scripts"), passage=PASSAGE
    )
    return [
        Item(
            id=f"pair{i:04d}",
            kind="pair",
            prompt="Why must maintainer scripts be idempotent?" + (f" ({i})" if i else ""),
            completion="Because dpkg may run the script again after it fails for any reason, and the second invocation "
            "must not fail where the first one had succeeded. Debian policy forbids more than three attempts.",
            missing=("three", "Debian"),
            source=source,
        )
        for i in range(n)
    ]


def example_room(
    journal: Journal, *, n: int = 60, pairs_n: int = 6, hostile: str = "", pairs_overlap: float = 0.0, **rules: Any
) -> Room:
    labelled = tickets(n)
    if hostile:
        labelled = [Item(id="hostile", kind="label", text=hostile, suggested="billing", source=Source(file=hostile))]
    labels = rules.pop("labels", LABELS)
    queues = [
        Queue(
            QueueRules(
                **{
                    "name": "labels",
                    "kind": "label",
                    "title": "What is this ticket about?",
                    "labels": labels,
                    "order": "listed",
                    **rules,
                }
            ),
            labelled,
        ),
        Queue(
            QueueRules(
                name="pairs",
                kind="pair",
                title="Is this answer right, by its passage?",
                order="listed",
                overlap=pairs_overlap,
            ),
            pairs(pairs_n),
        ),
        Queue(
            QueueRules(name="doubts", kind="label", title="Is this label right?", labels=labels, order="listed"),
            [
                Item(
                    id=f"doubt{i}",
                    kind="label",
                    text=t,
                    given=labels[(i + 1) % 6],
                    suggested=labels[i % 6],
                    confidence=0.97,
                )
                for i, t in enumerate(TICKETS)
            ],
        ),
    ]
    return Room("tickets", queues, journal)
