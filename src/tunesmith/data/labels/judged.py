"""The judgments that still stand: what was undone or said anew no longer counts.

A snapshot lists judgments in the order in which they were made, and that order decides. For each annotator
and item the last word holds; `undo` takes back the last one of the same queue, or the one whose id it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError, Problem
from tunesmith.metrics.consensus import Vote

VOTES = ("label", "correct")
ABOUT_LABELS = (*VOTES, "adjudicate", "skip", "undo")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a Judgment that decides labels."""

    id: str
    item: str
    annotator: str
    verb: str
    queue: str = ""
    value: Any = None
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Standing:
    """What is left once everything taken back is gone."""

    votes: list[Vote] = field(default_factory=list)
    adjudicated: dict[str, str] = field(default_factory=dict)  # item -> label
    skipped: Counter[str] = field(default_factory=Counter)  # item -> annotators who skipped it
    verbs: Counter[str] = field(default_factory=Counter)  # of all judgments read
    undone: int = 0
    replaced: int = 0  # by a later word of the same annotator
    other_queues: int = 0
    other_verbs: int = 0  # approvals of generated pairs: no labels


def read_judgments(folder: Path, queues: Sequence[str]) -> Standing:
    return standing(read_lines(folder / "judgments.jsonl", Judged), queues)


def standing(judgments: Iterable[Judged], queues: Sequence[str] = ()) -> Standing:
    """`queues`: those that count; empty: all. Raises DataError for a label that is no text, listing all."""
    found = Standing()
    said: dict[tuple[str, str], list[tuple[int, Judged]]] = {}  # (item, annotator) -> words and when, last on top
    problems = []
    for when, j in enumerate(judgments):
        found.verbs[j.verb] += 1
        if queues and j.queue not in queues:
            found.other_queues += 1
        elif j.verb not in ABOUT_LABELS:
            found.other_verbs += 1
        elif j.verb == "undo":
            found.undone += _undo(j, said.get((j.item, j.annotator), []))
        elif j.verb != "skip" and not (isinstance(j.value, str) and j.value):
            what = f"{j.annotator!r} says {j.verb} with no text as the label"
            problems.append(Problem(where=f"judgment {j.id[:12]}", what=what, fix="undo it and label the item again"))
        else:
            said.setdefault((j.item, j.annotator), []).append((when, j))
    if problems:
        raise DataError(problems)
    rulings: dict[str, list[tuple[int, str]]] = {}
    for (item, annotator), words in sorted(said.items()):
        rulings.setdefault(item, []).extend((when, j.value) for when, j in words if j.verb == "adjudicate")
        own = [j for _, j in words if j.verb != "adjudicate"]
        found.replaced += max(len(own) - 1, 0)
        if own and own[-1].verb == "skip":
            found.skipped[item] += 1
        elif own:
            found.votes.append((item, annotator, own[-1].value))
    for item, ruled in rulings.items():
        if ruled:
            found.replaced += len(ruled) - 1
            found.adjudicated[item] = max(ruled)[1]
    return found


def _undo(undo: Judged, words: list[tuple[int, Judged]]) -> int:
    """Takes one judgment of this annotator back; 0 where there is none."""
    for i in reversed(range(len(words))):
        j = words[i][1]
        if j.queue == undo.queue and (not undo.value or j.id == undo.value):
            del words[i]
            return 1
    return 0
