"""The stage that compares several trained models on the validation rows, with the arithmetic of the report.

Each has its score with an interval, resampled by group, and its paired difference to the best one; Holm corrects the
p values over these differences. The best is found on the same rows, so it is a little lucky: a difference that
survives the correction is real, one that does not is called noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, read_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Answer, Interval, Row
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.report import DECIMALS, answer_of
from tunesmith.evaluate.stages import CellsInputs, CellsOutputs, CellsSpec
from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import difference, holm, resamples_for, spread

SPLIT = "validation"


def compare_cells(spec: CellsSpec, inputs: CellsInputs, work: Workspace) -> CellsOutputs:
    """Raises DataError for answers that are not of this data set's validation rows."""
    dataset: dict[str, Any] = read_json(inputs.dataset / "dataset.json")
    rows = list(read_lines(inputs.dataset / f"{SPLIT}.jsonl", Row))
    answers, seconds = read_cells(inputs.answers, rows, dataset)
    unsupported = not_judged(dataset, rows)
    measured = Measured(
        kind=dataset["kind"],
        targets=tuple(r.target for r in rows),
        groups=tuple(r.group for r in rows),
        answers={name: tuple(a if dataset["kind"] == "domain" else a.text for a in s) for name, s in answers.items()},
        labels=tuple(dataset["labels"]),
        not_judged=unsupported,
        resamples=resamples_for(spec.confidence, max(1, len(answers) - 1), spec.resamples),
        seed=spec.seed,
    )
    cells = compared(measured, spec)
    best = next(name for name, cell in cells.items() if cell["difference"] is None)
    facts = {
        "metric": spec.metric,
        "higher_is_better": catalog.find(spec.metric).higher_is_better,
        "signature": catalog.signature(spec.metric),
        "confidence": spec.confidence,
        "resamples": measured.resamples,
        "n": len(rows),
        "clusters": len(set(measured.groups)),
        "not_judged": dict(unsupported),
        "best": best,
        "cells": {name: {**cell, "answer_seconds": seconds[name]} for name, cell in cells.items()},
    }
    folder = work.scratch / "comparison"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "comparison.json", canonical_json(facts) + b"\n")
    work.summarize(metric=spec.metric, best=best, value=cells[best]["score"]["value"])
    return CellsOutputs(comparison=folder)


def compared(measured: Measured, spec: CellsSpec) -> dict[str, dict[str, Any]]:
    """Score, difference to the best (None for itself) and whether that may be noise, by cell."""
    names, metric = sorted(measured.answers), spec.metric  # the order given is not part of what makes equal runs equal
    sums = {name: measured.sums(name, metric) for name in names}
    sign = 1 if catalog.find(metric).higher_is_better else -1
    best = max(names, key=lambda name: (sign * sums[name].score, -names.index(name)))
    others = [name for name in names if name != best]
    resampler = measured.resampler(spec.confidence)
    gaps = {name: difference(sums[name], sums[best], resampler) for name in others}
    adjusted = dict(zip(others, holm([gaps[name].p() for name in others]), strict=True))
    found = {}
    for name in names:
        gap = gaps.get(name)
        found[name] = {
            "score": rounded(spread(sums[name], resampler).interval(spec.confidence)),
            "difference": rounded(gap.interval(spec.confidence)) if gap else None,
            "p": gap.p() if gap else None,
            "p_holm": adjusted.get(name),
            "is_noise": gap is None or adjusted[name] > 1 - spec.confidence,
        }
    return found


def not_judged(dataset: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """The classes that cannot be judged, and why: those that the test set cannot judge, so that the choice is made
    by the classes of the verdict, and those without a validation item."""
    support = {row.target for row in rows}
    missing = {label: f"no {SPLIT} item" for label in dataset["labels"] if label not in support}
    return dict(sorted({**missing, **dataset["not_judged"]}.items()))


def read_cells(
    folders: Mapping[str, Path], rows: Sequence[Row], dataset: Mapping[str, Any]
) -> tuple[dict[str, list[Answer]], dict[str, float]]:
    """Answers by cell in row order, and the seconds that they took. Raises DataError naming every mismatch."""
    answers, seconds, problems = {}, {}, []
    wanted = [row.id for row in rows]
    for name, folder in folders.items():
        head = read_json(folder / "answers.json", dict[str, Any])
        said = list(read_lines(folder / "answers.jsonl", dict[str, Any]))
        ids = [s.pop("id") for s in said]
        if head["split"] != SPLIT or head["seal"] != dataset["seal"] or ids != wanted:
            what = f"they answer other rows than the {len(rows)} of {SPLIT}"
            problems.append(Problem(where=f"answers of {name}", what=what, fix="tunesmith matrix"))
        answers[name], seconds[name] = [answer_of(s) for s in said], float(head["seconds"])
    if not rows:
        problems.append(Problem(where=SPLIT, what="has no rows", fix="--set data.split.validation=0.1"))
    if problems or not answers:
        raise DataError(problems or [Problem(where="answers", what="no cell has answered", fix="tunesmith matrix")])
    return answers, seconds


def rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in asdict(interval).items()}
