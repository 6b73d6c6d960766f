"""The review room of one project: which queues it has, and what is in them.

    labels          the rows of a classify task, the most uncertain first (out-of-fold, by a cheap model)
    errors          rows whose label is probably wrong (data.labels.errors)
    contradictions  near copies with different answers (data.dedup)
    pairs           questions with answers made from documents, to approve

Items carry the ids that rows have before the step `label`, so a judgment means the same row after others were made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Row
from tunesmith.flows.context import Context
from tunesmith.flows.data_steps import data_steps, has_documents
from tunesmith.flows.journey import Journey
from tunesmith.flows.run import walk
from tunesmith.ledger.judgments import Judgments
from tunesmith.review.items import Item, Source, doubted_items, label_items, pair_items
from tunesmith.review.queues import Queue, QueueRules
from tunesmith.review.room import Room

BEFORE = ("check", "clean", "dedup", "audit")
PROXY_ROWS = 50_000  # more are asked in a random order


def open_room(context: Context) -> Room:
    """Raises InputError where there is nothing to judge."""
    names = [s.name for s in data_steps(context)]
    queues: list[Queue] = []
    if "pairs" in names:
        queues += _pairs(context, walk(context, "pairs"))
    if context.task.kind == "classify" and not (has_documents(context) and not context.settings.data.files):
        last = [n for n in names if n in BEFORE][-1]
        journey = walk(context, "label" if "label" in names else last)
        queues += _classes(context, journey, journey.folder(last, "examples"))
    if not queues:
        raise InputError(
            f"a {context.task.kind} task without documents has nothing to label yet",
            where="tunesmith.yaml",
            fix="documents: {files: [...]} makes pairs to approve; a classify task has labels",
        )
    return Room(context.name, queues, Judgments(context.ledger))


def _rules(context: Context, name: str, title: str, **more: Any) -> QueueRules:
    said = context.settings.label
    usual: dict[str, Any] = {"overlap": said.double, "annotators": said.annotators, "seed": said.seed,
                             "suggest": said.suggest, "order": "listed"}  # fmt: skip
    return QueueRules(name=name, title=title, **(usual | more))


def _pairs(context: Context, journey: Journey) -> list[Queue]:
    items = pair_items(journey.folder("pairs", "pairs"), journey.folder("documents", "passages"))
    rules = _rules(context, "pairs", "Is the answer right, and does the source say so?", kind="pair", order="random")
    return [Queue(rules, items)] if items else []


def _classes(context: Context, journey: Journey, examples: Path) -> list[Queue]:
    rows = [r for r in read_lines(examples / "rows.jsonl", Row)]
    labels = context.task.labels or tuple(sorted({r.target for r in rows if r.target}))
    if not rows or not labels:
        return []
    by_uncertainty = context.settings.label.order == "uncertain" and len(rows) <= PROXY_ROWS
    probabilities = _probabilities(rows, labels) if by_uncertainty else None
    question = f"Which {context.task.label or 'label'}?"
    order = "uncertainty" if probabilities else "random"
    rules = _rules(context, "labels", question, kind="label", labels=labels, order=order)
    queues = [Queue(rules, label_items(rows, labels=labels, probabilities=probabilities))]
    by_id = {r.id: r for r in rows}
    judged = journey.folder("label", "examples") if "label" in journey.runs else None
    doubts = doubted_items(judged) if judged and (judged / "label_errors.jsonl").exists() else []
    if doubts:
        rules = _rules(context, "errors", "Is this label right?", kind="label", labels=labels, suggest=True)
        queues.append(Queue(rules, doubts))
    if "dedup" in journey.runs and (journey.folder("dedup", "examples") / "review.jsonl").exists():
        contrary = _contrary(journey.folder("dedup", "examples") / "review.jsonl", by_id)
        if contrary:
            rules = _rules(context, "contradictions", "Near copies, different labels: which is right?", kind="label", labels=labels)  # fmt: skip
            queues.append(Queue(rules, contrary))
    return queues


def _contrary(file: Path, rows: dict[str, Row]) -> list[Item]:
    items: dict[str, Item] = {}
    for line in read_lines(file):
        for said in (line["kept"], *line["contrary"]):
            row = rows.get(said["id"])
            if row is not None:
                source = Source(file=row.file, line=row.line)
                items[row.id] = Item(id=row.id, kind="label", text=row.example.input, given=row.target, source=source)
    return list(items.values())


def _probabilities(rows: list[Row], labels: tuple[str, ...]) -> dict[str, tuple[float, ...]] | None:
    """Of each row over `labels`, by cheap models that did not see its group. None where nothing can be learnt."""
    import numpy as np

    from tunesmith.core.errors import DataError
    from tunesmith.data.proxy import features, fit, grouped_folds, out_of_fold, probabilities, row_text

    place = {label: i for i, label in enumerate(labels)}
    known = [r for r in rows if r.target in place]
    if len({r.target for r in known}) < 2:
        return None
    try:
        x, words = features(row_text(r) for r in known)
    except DataError:
        return None
    y = np.array([place[r.target] for r in known], np.int64)
    fold = grouped_folds([r.group for r in known], y.tolist(), folds=5, salt="label page")
    p, told = out_of_fold(x, y, fold, classes=len(labels), seed=0)
    found = {r.id: tuple(map(float, p[i])) for i, r in enumerate(known) if told[i] and p[i].any()}
    new = [r for r in rows if r.target not in place]
    if new:
        guesses = probabilities(fit(x, y, seed=0), words.transform(row_text(r) for r in new), len(labels))
        found |= {r.id: tuple(map(float, g)) for r, g in zip(new, guesses, strict=True)}
    return found
