"""The few-shot arm's examples: how many and which, chosen on validation and never on test.

Candidates are count × draw, class-balanced and seeded. Examples become earlier turns of the conversation,
the same for every item, so that all prompts share one prefix.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Answer, Message, Row
from tunesmith.evaluate.stages import ArmSpec
from tunesmith.metrics import catalog

Prompt = tuple[Message, ...]
TryOut = Callable[[Sequence[Row], Prompt, str], list[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a prompt may hold."""

    context: int | None  # tokens the model reads at most; None: no stated limit
    answer: int  # tokens an answer may take
    length: Callable[[Prompt], int]  # tokens of a prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    examples: Prompt
    choice: dict[str, Any]  # count, draw, ids, score, and what every other candidate reached


def choose(
    spec: ArmSpec,
    train: Sequence[Row],
    validation: Sequence[Row],
    rows: Sequence[Row],
    labels: Sequence[str],
    room: Room,
    try_out: TryOut,
) -> Chosen:
    """The candidate with the best score on a seeded subset of validation; the fewer examples among equals.

    A candidate whose prompts would not fit the model is left out with its reason. Raises InputError if none
    fits, DataError without train or validation rows.
    """
    if not train or not validation:
        raise DataError(
            "few-shot examples come from train and are chosen on validation, and one of them has no rows",
            where="arm few_shot",
            fix="raise data.split.validation, or take few_shot out of evaluate.arms",
        )
    chooser = random.Random(f"{spec.seed}:validation")
    tried = [
        validation[i] for i in sorted(chooser.sample(range(len(validation)), min(spec.few_shot_rows, len(validation))))
    ]
    higher = catalog.find(spec.metric, spec.kind).higher_is_better
    candidates: list[dict[str, Any]] = []
    best: tuple[float, dict[str, Any], Prompt] | None = None
    for count in sorted(set(spec.few_shot_counts)):
        for draw in range(spec.few_shot_draws):
            picked = draw_examples(train, labels, count, seed=f"{spec.seed}:{count}:{draw}")
            examples = as_turns(picked)
            candidate: dict[str, Any] = {"count": count, "draw": draw, "ids": [r.id for r in picked], "score": None}
            candidates.append(candidate)
            candidate["left_out"] = too_long(examples, (*tried, *rows), room)
            if candidate["left_out"]:
                continue
            answers = try_out(tried, examples, f"{count} examples, draw {draw + 1}")
            targets = [r.target for r in tried]
            candidate["score"] = catalog.score(spec.metric, targets, answers, labels=labels)
            gain = candidate["score"] if higher else -candidate["score"]
            if best is None or gain > best[0]:
                best = (gain, candidate, examples)
    if best is None:
        raise InputError(
            f"no number of examples fits the model: {candidates[0]['left_out'] if candidates else 'none was asked for'}",
            where="evaluate.few_shot.counts",
            fix="ask for fewer examples, or take few_shot out of evaluate.arms",
        )
    _, winner, examples = best
    about = {"metric": spec.metric, "validation_rows": len(tried), "candidates": candidates}
    return Chosen(examples=examples, choice={**{k: winner[k] for k in ("count", "draw", "ids", "score")}, **about})


def draw_examples(train: Sequence[Row], labels: Sequence[str], count: int, *, seed: str) -> list[Row]:
    """`count` rows, no two of one group where possible, classes in turn so that none has two before all have one."""
    rng = random.Random(seed)
    shuffled = list(train)
    rng.shuffle(shuffled)
    if labels:
        order = list(labels)
        rng.shuffle(order)
        by_class: dict[str, list[Row]] = {label: [] for label in order}
        for row in shuffled:
            by_class.setdefault(row.target, []).append(row)
        deepest = max(len(rows) for rows in by_class.values())
        shuffled = [rows[i] for i in range(deepest) for rows in by_class.values() if i < len(rows)]
    picked: list[Row] = []
    seen: set[str] = set()
    for row in shuffled:
        if row.group not in seen:
            picked.append(row)
            seen.add(row.group)
    picked += [row for row in shuffled if all(row is not p for p in picked)] if len(picked) < count else []
    picked = picked[:count]
    rng.shuffle(picked)
    return picked


def as_turns(rows: Sequence[Row]) -> Prompt:
    """Each row's own turns and its target as the assistant's; a row's own system prompt is the item's to give."""
    turns: list[Message] = []
    for row in rows:
        turns += [m for m in row.messages if m.role != "system"]
        turns.append(Message(role="assistant", content=row.target))
    return tuple(turns)


def with_examples(examples: Prompt, messages: Sequence[Message]) -> Prompt:
    """The examples before the row's own turns, after its system prompt if it carries one."""
    systems = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    return (*messages[:systems], *examples, *messages[systems:])


def too_long(examples: Prompt, rows: Sequence[Row], room: Room) -> str:
    """Why these examples do not fit, or ""."""
    if room.context is None:
        return ""
    longest = max(room.length(with_examples(examples, row.messages)) for row in rows)
    if longest + room.answer <= room.context:
        return ""
    return f"the longest prompt has {longest} tokens and an answer up to {room.answer}; the model reads {room.context}"


def context_length(base: Path) -> int | None:
    """Tokens that the model reads at most, by its config.json."""
    config = read_json(base / "config.json", dict[str, Any])
    config = config.get("text_config", config)
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return None
