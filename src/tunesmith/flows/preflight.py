"""What a training would refuse, said before anything is read, answered or trained.

A run's baselines may take an hour, and the method is wrapped after them: its spec, its fit to the base's modules and
the checkpoint it starts on are judged from configurations first, and what was found right is noted.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.flows import auto
from tunesmith.flows.journey import Journey
from tunesmith.flows.steps import method_spec, start_of


def refuse_early(journey: Journey) -> None:
    """Raises InputError or ModelError for a method that its own values, the base or the start cannot have."""
    context = journey.context
    spec = method_spec(context.settings.train.method)
    folder = journey.base.folder

    def fits() -> bool:
        from tunesmith.model.methods.catalog import check
        from tunesmith.model.methods.prompts import refuse_recomputing_kind
        from tunesmith.train.optimizers.catalog import ratios_of

        context.progress(0, 1, "does the method fit the base")
        names = check(folder, spec)
        if names:
            ratios_of(names, ratios)
        if twice:
            refuse_recomputing_kind(spec.kind)
        return True

    twice, ratios = context.settings.exec.gradient_checkpointing, tuple(context.settings.train.lr_ratios.items())
    question: dict[str, Any] = {
        "base": journey.base.artifact.id,
        "method": plain(spec),
        "twice": twice,
        "ratios": ratios,
    }
    auto.remembered(context, "method_fits", question, fits)
    start = start_of(context)
    if start is None:
        return

    def joins() -> bool:
        from tunesmith.text.render import Renderer
        from tunesmith.train.start import refuse_start

        refuse_start(context.ledger.path(start), folder, Renderer.load(folder, system=context.system))
        return True

    auto.remembered(context, "start_fits", {"base": journey.base.artifact.id, "start": start}, joins)
