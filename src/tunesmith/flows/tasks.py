"""Several projects trained by one command, each in its own ledger, as it would be by itself.

One after another: each keeps its data, Run, checkpoint and gate, so what comes out is what training it alone gives,
to the bit, and a kill costs what it costs there. What would keep their adapters off one base is said beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import Stopped
from tunesmith.core.nouns import Run
from tunesmith.flows.context import Context
from tunesmith.flows.run import walk

VIRTUAL = ("prompt", "p_tuning", "prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The projects side by side."""

    tasks: tuple[dict[str, Any], ...]  # project, kind, method, validation, seconds, reused, checkpoint
    apart: tuple[str, ...]  # why not all can be served on one base

    def __str__(self) -> str:
        names = ("project", "kind", "method", "best", "seconds", "checkpoint")
        rows = [[_cell(t[n]) for n in names] for t in self.tasks]
        widths = [max(len(r[i]) for r in (list(names), *rows)) for i in range(len(names))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in (list(names), *rows)]
        if self.apart:
            return "\n".join([*lines, "", *(f"! {a}" for a in self.apart)])
        return "\n".join([*lines, "", "next:  tunesmith run in each, then  tunesmith serve --adapter NAME=PROJECT ..."])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def train_tasks(contexts: Sequence[Context]) -> Trained:
    """Raises what training any of them raises; run it again to go on with the next."""
    rows = []
    for context in contexts:
        if context.stop.is_set():
            raise Stopped("stopped between two projects", fix="run the same command again to go on")
        run = walk(context, "train").runs["train"]
        rows.append(_row(context, run))
    return Trained(tasks=tuple(rows), apart=apart(contexts))


def _row(context: Context, run: Run) -> dict[str, Any]:
    found = run.metrics
    best = found.get("best") if found.get("best") is not None else found.get("validation_loss")
    return {
        "project": context.name,
        "kind": context.task.kind,
        "method": context.settings.train.method.kind,
        "best": best,
        "seconds": run.seconds,
        "reused": run.reused,
        "checkpoint": run.outputs["checkpoint"][:12],
    }


def apart(contexts: Sequence[Context]) -> tuple[str, ...]:
    """What keeps the adapters off one base, from the settings alone."""
    found = []
    first = contexts[0]
    for c in contexts[1:]:
        if c.settings.model != first.settings.model:
            found.append(f"{c.name} has the base {c.settings.model}, and {first.name} {first.settings.model}")
        if c.settings.train.start != first.settings.train.start:
            found.append(f"{c.name} and {first.name} are trained on top of different checkpoints (train.start)")
    for c in contexts:
        if c.settings.train.method.kind in ("full", "qlora"):
            found.append(f"{c.name} is trained with {c.settings.train.method.kind}, whose result shares no base")
    kinds = {c.settings.train.method.kind for c in contexts} - {*VIRTUAL, "full", "qlora"}
    if len(kinds) > 1:
        found.append(f"{' and '.join(sorted(kinds))} change layers in two ways: one base can have one of them")
    return tuple(found)
