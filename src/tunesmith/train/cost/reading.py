"""What a supervised training reads, in tokens, where `prepare` could not know: it counts rows in their plain wording.

The recipe's own pool and schedule are asked, so the count is the training's own, but for rows that a guard leaves out,
general data that is replayed past a budget, and an early stop. Loads torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.text.render import Renderer
from tunesmith.train.recipes import sft
from tunesmith.train.stages import SftInputs, SftSpec


def reading(spec: SftSpec, dataset: Path, base: Path, general: Path | None) -> dict[str, Any]:
    """{"steps", "trained": tokens of all of them, "mean" of a row, "longest", "answer_mean", "answer_longest"}. Raises DataError
    for rows that cannot be learnt from in one of their wordings, as training would."""
    renderer = Renderer.load(base, system=spec.system, user=spec.template, new_tokens=spec.new_tokens)
    pool = sft.pool_of(spec, SftInputs(dataset=dataset, base=base, general=general), renderer)
    schedule = pool.schedule(spec.mixture, epochs=spec.epochs, global_batch=spec.global_batch)
    trained = sum(
        len(d.ids)
        for step in range(schedule.steps)
        for d in pool.batch(schedule.batch(step), schedule.epoch(step)).documents
    )
    sizes = [len(d.ids) for d in pool.documents]
    answers = [sum(d.trained) for d in pool.documents]
    return {
        "steps": schedule.steps,
        "trained": trained,
        "mean": round(sum(sizes) / len(sizes), 3),
        "longest": max(sizes),
        "answer_mean": round(sum(answers) / len(answers), 3),
        "answer_longest": max(answers),
    }
