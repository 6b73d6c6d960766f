"""Checkpoints into one, and a checkpoint judged in place of the one that the project trains."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Run
from tunesmith.export.stages import MERGE, MergeSpec
from tunesmith.flows.context import Context
from tunesmith.flows.steps import begin, checkpoint_of
from tunesmith.ledger.execute import execute


def merge(
    context: Context,
    places: Sequence[str],
    *,
    how: str,
    weights: Sequence[float],
    density: float,
    rank: int,
    seed: int,
    prompts_of: int | None,
    precision: str,
    out: Path | None,
) -> Run:
    """`places`: ids, aliases or projects' folders. Raises InputError before any weight is read."""
    if out is not None and out.exists():
        raise InputError(Problem(where=str(out), what="exists already", fix="give a new folder"))
    ids = [checkpoint_of(context, p, where=f"checkpoint {i + 1}") for i, p in enumerate(places)]
    if how != "whole" and not weights:
        weights = [1.0] * len(ids) if how == "ties" else [1 / len(ids)] * len(ids)
    journey = begin(context)
    spec = MergeSpec(
        how=how,  # type: ignore[arg-type]
        weights=tuple(map(float, weights)),
        density=density,
        rank=rank,
        seed=seed,
        prompts_of=prompts_of,
        precision=precision,  # type: ignore[arg-type]
        base=journey.base.name,
    )
    from tunesmith.export.merge import refuse  # late: torch

    refuse(spec, [context.ledger.path(id) for id in ids])
    inputs: dict[str, Any] = {
        "base": journey.base.artifact.id,
        "checkpoints": {str(i): id for i, id in enumerate(ids)},
    }
    run = execute(context.ledger, MERGE, spec, inputs, progress=context.progress, stop=context.stop)
    if out is not None:
        shutil.copytree(context.ledger.path(run.outputs["checkpoint"]), out)
    return run
