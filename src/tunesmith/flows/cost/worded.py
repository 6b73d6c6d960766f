"""The data set's token counts as training will read them, under its templates, system prompts, new tokens and mixture.

`prepare` counts rows in their plain wording: a template must not make the data set, and with it every baseline, anew.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.canonical import content_id, plain
from tunesmith.flows import auto
from tunesmith.flows.journey import Journey
from tunesmith.train.stages import SftSpec

READ_BY = (  # the values of a spec that the count depends on
    "system", "template", "templates", "systems", "turns", "mixture", "new_tokens", "epochs", "global_batch",
    "max_tokens", "seed",
)  # fmt: skip


def as_trained(journey: Journey, spec: Any, inputs: dict[str, Any], *, count: bool) -> dict[str, Any]:
    """dataset.json with `tokens` as this training reads them, all of them in `tokens.trained`, and its steps in
    `tokens.steps`. As `prepare` counted where that is the same, for texts, and where nothing is remembered and `count`
    is off. Raises DataError for rows that training would refuse."""
    dataset = journey.dataset
    if not isinstance(spec, SftSpec) or not _differs(spec):
        return dataset
    context, ledger = journey.context, journey.context.ledger
    values = {name: plain(spec)[name] for name in READ_BY}
    question: dict[str, Any] = {
        "read": content_id({"spec": values, "dataset": inputs["dataset"], "general": inputs.get("general")})
    }
    question |= {"base": journey.base.artifact.id, "version": 2}

    def counted() -> dict[str, Any]:
        from tunesmith.train.cost.reading import reading

        context.progress(0, 1, "counting tokens as training words them")
        general = inputs.get("general")
        return reading(
            spec, ledger.path(inputs["dataset"]), journey.base.folder, ledger.path(general) if general else None
        )

    if count:
        found = auto.remembered(context, "reading", question, counted)
    else:
        found = auto.known(context, "reading", question)
    if found is None:
        return dataset
    answer = {**dataset["tokens"]["answer"], "mean": found["answer_mean"], "longest": found["answer_longest"]}
    tokens = {
        **dataset["tokens"],
        "answer": answer,
        "longest": found["longest"],
        "total": round(found["mean"] * sum(dataset["counts"].values())),
        "trained": found["trained"],
        "steps": found["steps"],
    }
    return {**dataset, "tokens": tokens}


def _differs(spec: SftSpec) -> bool:
    """Whether training reads other tokens than `prepare` counted: turns say which are trained, not which are read."""
    return bool(spec.template != "{text}" or spec.templates or spec.systems or spec.new_tokens or spec.mixture)
