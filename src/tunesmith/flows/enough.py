"""Is there enough data, and is it the right data? Asked of the latest split; kept in the ledger like all work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError
from tunesmith.data.enough.stages import COMPARE, CURVE, CompareSpec, CurveSpec
from tunesmith.data.enough.words import compare_words, curve_words
from tunesmith.flows.context import Context
from tunesmith.flows.run import walk
from tunesmith.ledger.execute import execute


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found, and its own words."""

    facts: dict[str, Any]
    words: Callable[[dict[str, Any]], str]

    def __str__(self) -> str:
        return self.words(self.facts)


def curve(context: Context, *, points: int = 8, repeats: int = 4, classes: int = 3, most_rows: int = 20_000) -> Facts:
    """Raises InputError for a task without classes."""
    if context.task.kind != "classify":
        raise InputError(
            f"the cheap model that draws the curve sorts texts into classes, and a {context.task.kind} task has none",
            where="task.kind",
            fix="tunesmith run --limit N, at two or three sizes, draws it with the model itself",
        )
    dataset = walk(context, "prepare").dataset_id
    spec = CurveSpec(
        points=points, repeats=repeats, classes=classes, most_rows=most_rows, confidence=0.95, seed=context.settings.data.seed
    )  # fmt: skip
    run = execute(context.ledger, CURVE, spec, {"dataset": dataset}, progress=context.progress, stop=context.stop)
    facts = read_json(context.ledger.path(run.outputs["curve"]) / "curve.json")
    return Facts(facts=facts, words=curve_words)


def model_curve(context: Context, sizes: Sequence[int]) -> Facts:
    """The model itself, trained on seeded subsets; each is a run of its own, kept and resumed like any other.

    One run a size says nothing about luck, so there is no forecast: only the points. Raises InputError for sizes
    below 20.
    """
    if not sizes or min(sizes) < 20:
        raise InputError("each size must be 20 rows or more", where="--sizes", fix="--sizes 200,400,800")
    points = []
    for size in sorted(set(sizes)):
        data = context.settings.data.model_copy(update={"limit": size})
        smaller = replace(context, settings=context.settings.model_copy(update={"data": data}))
        journey = walk(smaller, "train")
        done = read_json(journey.folder("train", "checkpoint") / "checkpoint.json")
        counts = journey.dataset["counts"]
        points.append(
            {"rows": counts["train"], "validation_rows": counts["validation"], "metric": done["metric"], "score": done["best"]}
        )  # fmt: skip
    return Facts(facts={"points": points}, words=model_curve_words)


def model_curve_words(facts: dict[str, Any]) -> str:
    points = facts["points"]
    lines = [f"{points[0]['metric']} of the model itself on validation, one training a size:"]
    lines += [f"  {p['rows']:>9,} rows  {p['score']:.3f}  ({p['validation_rows']:,} validation rows)" for p in points]
    lines.append("one run a size says nothing about luck: read the direction, not the digits")
    return "\n".join(lines)


def compare(
    context: Context, sample: Path, *, text: str | None = None, most_rows: int = 2_000, permutations: int = 999
) -> Facts:
    """Raises InputError if there is no such file."""
    if not sample.is_file():
        raise InputError(
            "there is no such file", where=str(sample), fix="a file of real inputs: one text a line, CSV or JSON lines"
        )
    dataset = walk(context, "prepare").dataset_id
    held = context.ledger.add_files("source", {sample.name: sample}, move=False).id
    spec = CompareSpec(
        text=text or context.task.text, most_rows=most_rows, permutations=permutations, terms=20, seed=context.settings.data.seed
    )  # fmt: skip
    inputs = {"dataset": dataset, "sample": held}
    run = execute(context.ledger, COMPARE, spec, inputs, progress=context.progress, stop=context.stop)
    facts = read_json(context.ledger.path(run.outputs["comparison"]) / "compare.json")
    return Facts(facts=facts, words=compare_words)
