"""Which learning rate? A short seeded sweep over rising rates, and where the loss falls fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError
from tunesmith.flows.context import Context
from tunesmith.flows.data_steps import is_domain
from tunesmith.flows.run import walk
from tunesmith.flows.steps import exec_for, steps, train_step
from tunesmith.launch.check import one_process
from tunesmith.ledger.execute import execute
from tunesmith.train.lr_stages import LR_RANGE, LrRangeSpec

WIDTH = 48  # characters of the plot


@dataclass(frozen=True, slots=True, kw_only=True)
class LrRange:
    """The curve, and the rate it suggests."""

    facts: dict[str, Any]  # rates, losses, smoothed, suggestion, lowest, burst, why

    def __str__(self) -> str:
        rates, smooth = self.facts["rates"], self.facts["smoothed"]
        low, high = min(smooth), max(smooth)
        lines = []
        for rate, loss in zip(rates, smooth, strict=False):
            place = round((loss - low) / ((high - low) or 1) * (WIDTH - 1))
            mark = " <- suggested" if rate == self.facts["suggestion"] else ""
            lines.append(f"{rate:9.2e} {loss:8.4f} {' ' * place}*{mark}")
        suggestion = self.facts["suggestion"]
        if suggestion:
            lines.append(f"the loss falls fastest at {suggestion:.2e}:  --set train.lr={suggestion:.1e}")
        return "\n".join([*lines, *([self.facts["why"]] if self.facts.get("why") else [])])


def lr_range(context: Context, *, low: float, high: float, steps_tried: int) -> LrRange:
    """Raises InputError for a task that is not trained on examples."""
    if is_domain(context):
        raise InputError("the range finder trains on examples", where="task.kind", fix="set train.lr yourself")
    journey = walk(context, "prepare")
    training, inputs = train_step(journey)
    spec = LrRangeSpec(training=training, low=low, high=high, steps=steps_tried)
    train = next(s for s in steps(context) if s.name == "train")
    run = execute(
        context.ledger, LR_RANGE, spec, inputs,
        exec=one_process(exec_for(journey, train)), progress=context.progress, stop=context.stop,
    )  # fmt: skip
    return LrRange(facts=read_json(context.ledger.path(run.outputs["curve"]) / "curve.json"))
