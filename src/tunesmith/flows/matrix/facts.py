"""The facts of a matrix: what each cell came to, and what the page says about the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.flows.context import Context
from tunesmith.flows.journey import Journey
from tunesmith.flows.matrix.plan import Cell, method_words, metric_of
from tunesmith.flows.page import SHOWN_VERSIONS, dataset_facts, machine_words
from tunesmith.ledger.ledger import Ledger
from tunesmith.model.methods.spec import METHODS

WEIGHTS = (".safetensors",)
NOTHING: dict[str, Any] = {"score": None, "difference": None, "p": None, "p_holm": None, "is_noise": None}


def cell_facts(ledger: Ledger, cell: Cell, comparison: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the table."""
    measured = (comparison or {"cells": {}})["cells"].get(cell.name, NOTHING)
    train, answer = cell.train, cell.answer
    facts = train.metrics if train else {}
    return {
        "name": cell.name,
        "on": cell.on,
        "rows": cell.rows,
        "method": method_words(cell.spec),
        "lr": cell.spec.lr,
        "epochs": cell.spec.epochs,
        "servable": METHODS[cell.spec.method.kind].servable,
        **{name: measured[name] for name in NOTHING},
        "is_best": bool(comparison) and comparison["best"] == cell.name,  # type: ignore[index]
        "trained_weights": facts.get("trained_weights"),
        "bytes": weight_bytes(ledger, train.outputs["checkpoint"]) if train else None,
        "peak_mib": facts.get("peak_mib"),
        "tokens_per_s": facts.get("tokens_per_s"),
        "seconds": train.seconds if train else None,
        "answer_seconds": answer.seconds if answer else None,
        "path": facts.get("path", ""),
        "precision": facts.get("precision", ""),
        "notes": list(facts.get("notes", [])),
        "train_run": train.id if train else None,
        "answer_run": answer.id if answer else None,
        "reused": bool(train and train.reused and answer and answer.reused),
        "failure": cell.failure,
    }


def weight_bytes(ledger: Ledger, checkpoint: str) -> int:
    """Of the weight files: the adapter, or the whole model where all of it was trained."""
    return sum(f.bytes for path, f in ledger.artifact(checkpoint).files.items() if path.endswith(WEIGHTS))


def page_facts(
    context: Context,
    cells: Sequence[Cell],
    shown: Sequence[dict[str, Any]],
    comparisons: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    whole = next((c for c in cells if c.subset is None), cells[0]).journey
    ran = [c.train for c in cells if c.train]
    environment = ran[-1].environment if ran else {}
    some = comparisons["all"] or comparisons["subset"] or {}
    counts = dict(whole.dataset["counts"])
    return {
        "project": context.name,
        "at": max((r.started for r in ran), default="")[:16].replace("T", " ") + " UTC",
        "kind": context.task.kind,
        "model": whole.base.name,
        "metric": metric_of(context),
        "higher_is_better": some.get("higher_is_better", True),
        "confidence": context.settings.matrix.confidence,
        "n": some.get("n", counts["validation"]),
        "clusters": some.get("clusters", 0),
        "not_judged": some.get("not_judged", {}),
        "counts": counts | {"train": whole.dataset.get("subset", {}).get("of", counts["train"])},
        "subset": min(c.rows for c in cells),
        "seal": whole.dataset["seal"],
        "machine": machine_words(environment),
        "version": environment.get("tunesmith", ""),
        "versions": ", ".join(
            f"{p} {v}" for p, v in sorted(environment.get("libraries", {}).items()) if p in SHOWN_VERSIONS
        ),
        "cells": list(shown),
    }


def tuned_looks(ledger: Ledger, seal: str) -> int:
    """How often a tuned model has answered this sealed test set: each run, begun or finished, is one look."""
    seals: dict[str, str] = {}
    count = 0
    for run in ledger.runs(stage="answer"):
        if run.spec.get("split") != "test" or run.spec.get("arm") != "tuned":
            continue
        dataset = run.inputs["dataset"]
        if dataset not in seals:
            seals[dataset] = str(dataset_facts(ledger, dataset)["seal"])
        count += seals[dataset] == seal
    return count


def look_facts(ledger: Ledger, journey: Journey, metric: str, before: int, after: int) -> dict[str, Any]:
    """The verdict on the chosen cell. `looks` counts tuned models on this test set, this one included."""
    verdict = read_json(journey.folder("gate", "verdict") / "verdict.json")
    report = read_json(journey.folder("evaluate", "report") / "report.json")
    arms = {name: arm["metrics"].get(metric) for name, arm in report["arms"].items()}
    return {
        "status": verdict["status"],
        "goals": verdict["goals"],
        "metric": metric,
        "arms": arms,
        "n": report["n"],
        "looks": after,
        "is_new": after > before,
        "gate_run": journey.runs["gate"].id,
    }
