"""What a training would refuse, said before anything is read, answered or trained.

A run's baselines may take an hour, and the method is wrapped after them: its spec, its fit to the base's modules and
the checkpoint it starts on are judged from configurations first, and what was found right is noted.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError
from tunesmith.flows import auto
from tunesmith.flows.journey import Journey
from tunesmith.flows.steps import method_spec, start_of
from tunesmith.model.methods.spec import new_token_problems


def refuse_early(journey: Journey) -> None:
    """Raises InputError or ModelError for a method that its own values, the base or the start cannot have."""
    context = journey.context
    spec = method_spec(context.settings.train.method)
    folder = journey.base.folder

    def fits() -> bool:
        from tunesmith.model.methods.catalog import check
        from tunesmith.model.methods.prompts import refuse_recomputing_kind
        from tunesmith.model.new_tokens import check_rows
        from tunesmith.train.optimizers.catalog import ratios_of

        context.progress(0, 1, "does the method fit the base")
        names = check(folder, spec)
        if tokens:
            names = check_rows(folder, tokens, names)
        if names:
            ratios_of(names, ratios)
        if twice:
            refuse_recomputing_kind(spec.kind)
        return True

    tokens = tuple(context.settings.train.new_tokens)
    if problems := new_token_problems(tokens, spec):
        raise InputError(problems)
    twice, ratios = context.settings.exec.gradient_checkpointing, tuple(context.settings.train.lr_ratios.items())
    question: dict[str, Any] = {
        "base": journey.base.artifact.id,
        "method": plain(spec),
        "twice": twice,
        "ratios": ratios,
    }
    if tokens:
        question["new_tokens"] = tokens
    auto.remembered(context, "method_fits", question, fits)
    start = start_of(context)
    if start is None:
        return

    def joins() -> bool:
        from tunesmith.text.render import Renderer
        from tunesmith.train.start import refuse_start

        renderer = Renderer.load(folder, system=context.system, new_tokens=tokens)
        refuse_start(context.ledger.path(start), folder, renderer)
        return True

    joined: dict[str, Any] = {"base": journey.base.artifact.id, "start": start}
    auto.remembered(context, "start_fits", joined | ({"new_tokens": tokens} if tokens else {}), joins)
