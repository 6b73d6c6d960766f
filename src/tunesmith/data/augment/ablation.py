"""Did the added rows help? The cheap model with and without them, on the same validation rows.

The proxy is TF-IDF with logistic regression: it says in seconds whether copies and weights move a classifier
at all. What they do to the real model is measured by two runs that differ in data.augment alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.canonical import read_lines
from tunesmith.core.nouns import Row
from tunesmith.data.proxy import fit, rank_of, row_text, vectorizer
from tunesmith.metrics.classification import accuracy, macro_f1
from tunesmith.metrics.statistics import Resampler, difference
from tunesmith.metrics.sums import Items

RESAMPLES = 2_000
CONFIDENCE = 0.95


def ablation(without: Path, augmented: Path, *, seed: int, most_rows: int) -> dict[str, Any]:
    """Two `dataset` folders of a classify task with the same validation rows, compared on macro-F1 and accuracy.

    Above `most_rows` training rows, groups drawn by hash, with the copies of their rows. Returns JSON-ready
    facts: {metric: {without, with, difference: {value, low, high}, p}}.
    """
    validation = list(read_lines(augmented / "validation.jsonl", Row))
    targets = [row.target for row in validation]
    groups = _groups(without / "train.jsonl", most_rows, seed)
    answers, rows = {}, {}
    for arm, dataset in (("without", without), ("with", augmented)):
        train = list(_taken(dataset / "train.jsonl", groups))
        rows[arm] = len(train)
        answers[arm] = _answers(train, validation, seed)
    labels = sorted({*targets, *answers["without"], *answers["with"]})
    sampled = Resampler.of([row.group for row in validation], resamples=RESAMPLES, seed=seed)
    found: dict[str, Any] = {"model": "tfidf", "validation_rows": len(validation), "train_rows": rows}
    for name, metric in (("macro_f1", macro_f1), ("accuracy", accuracy)):
        a, b = (metric(Items.of(targets, answers[arm], labels=labels)) for arm in ("with", "without"))
        moved = difference(a, b, sampled)
        interval = moved.interval(CONFIDENCE)
        found[name] = {
            "without": round(b.score, 6),
            "with": round(a.score, 6),
            "difference": {k: round(float(getattr(interval, k)), 6) for k in ("value", "low", "high")},
            "p": round(moved.p(), 6),
        }
    return {**found, "confidence": CONFIDENCE, "words": ablation_words(found)}


def _groups(train: Path, most_rows: int, seed: int) -> set[str] | None:
    """The groups to learn from; None: all."""
    sizes: dict[str, int] = {}
    for row in read_lines(train, Row):
        sizes[row.group] = sizes.get(row.group, 0) + 1
    if sum(sizes.values()) <= most_rows:
        return None
    taken, rows = set(), 0
    for group in sorted(sizes, key=lambda g: (rank_of(g, f"ablation {seed}"), g)):
        rows += sizes[group]
        if rows > most_rows:
            break
        taken.add(group)
    return taken


def _taken(train: Path, groups: set[str] | None) -> Iterator[Row]:
    return (row for row in read_lines(train, Row) if groups is None or row.group in groups)


def _answers(train: Sequence[Row], validation: Iterable[Row], seed: int) -> list[str]:
    names = sorted({row.target for row in train})
    place = {name: k for k, name in enumerate(names)}
    y = np.array([place[row.target] for row in train], dtype=np.int64)
    weights = np.array([row.weight for row in train])
    asked = [row_text(row) for row in validation]
    if len(names) < 2:
        return [names[0]] * len(asked)
    words = vectorizer()
    model = fit(words.fit_transform(row_text(row) for row in train), y, seed=seed, weights=weights)
    return [names[k] for k in model.predict(words.transform(asked))]


def ablation_words(found: dict[str, Any]) -> str:
    """For the terminal; macro-F1 decides."""
    f = found["macro_f1"]
    d = f["difference"]
    if d["low"] > 0:
        verdict = "a gain"
    elif d["high"] < 0:
        verdict = "a loss: leave it off"
    else:
        verdict = "no proven effect"
    return (
        f"  effect on validation ({found['validation_rows']:,} rows), cheap model: macro-F1 {f['without']:.3f} without, "
        f"{f['with']:.3f} with, difference {d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}): {verdict}\n"
        "  for the model itself, run once with data.augment and once without, and compare the two reports"
    )
