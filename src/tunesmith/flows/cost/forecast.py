"""What a training will cost, counted, checked by three real steps, and later compared with what happened.

A forecast is a fact: it is noted under the key of the run it speaks of, before that run starts. The three steps are
taken in a process of their own (train/cost/probe.py) and remembered, so that the next plan is instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tunesmith.core.canonical import content_id, plain, read_json
from tunesmith.core.errors import ModelError
from tunesmith.core.stage import Exec
from tunesmith.core.words import duration
from tunesmith.flows import auto
from tunesmith.flows.context import Context
from tunesmith.flows.cost import planned
from tunesmith.flows.cost.worded import as_trained
from tunesmith.flows.journey import Journey, Step
from tunesmith.flows.steps import exec_for, steps
from tunesmith.ledger.execute import key_of
from tunesmith.train.cost import machine, work
from tunesmith.train.cost.measure import Measured, measure
from tunesmith.train.cost.skeleton import Skeleton, from_json, skeleton_of, to_json
from tunesmith.train.cost.work import Cost

NOT_IN_STEPS = (  # of Exec: what the three steps do not do, or do alike
    "save_every_s", "log_every", "isolate", "processes", "engine", "nodes", "node_rank", "rendezvous",
)  # fmt: skip
UNKNOWN_SPEED = "no speed is known yet: tunesmith plan measures it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training on this machine, beforehand."""

    key: str  # of the run it speaks of
    steps: int
    tokens: int
    weights: int
    trained_weights: int
    path: str
    precision: str
    memory_mib: dict[str, float]  # counted, by part
    memory_low_mib: int
    memory_high_mib: int
    measured_peak_mib: float | None  # in three steps at the longest batch
    not_measured: str  # why not; "" where it was
    ranks: int  # processes that will train; the figures are of one
    device: str  # cpu or cuda: whose memory it is
    tokens_per_second: float | None
    cost: Cost | None  # None: no speed is known
    free_mib: int | None  # None: of a GPU that was not asked
    checkpoint_mib: float

    @property
    def peak_mib(self) -> float:
        """The best figure there is: measured, else counted."""
        return self.measured_peak_mib or sum(self.memory_mib.values())

    @property
    def fits(self) -> bool | None:
        """None within the uncertainty. What the system can take back is not counted."""
        if self.free_mib is None:
            return None
        back = self.memory_mib.get("file", 0.0)
        if self.measured_peak_mib is not None:
            return self.measured_peak_mib - back <= self.free_mib
        low, high = self.memory_low_mib - back, self.memory_high_mib - back
        return True if high <= self.free_mib else False if low > self.free_mib else None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        parts = ", ".join(f"{k} {v:,.0f}" for k, v in self.memory_mib.items() if v >= 1)
        counted = f"{sum(self.memory_mib.values()):,.0f} MiB ({self.memory_low_mib:,} to {self.memory_high_mib:,})"
        found = [f"memory counted: {counted}: {parts}"]
        if self.measured_peak_mib is not None:
            found.append(f"memory measured: {self.measured_peak_mib:,.0f} MiB in three steps at the longest batch")
        elif self.not_measured:
            found.append(f"memory not measured: {self.not_measured}")
        if self.ranks > 1:
            found.append(f"of one process by itself: that exec makes {self.ranks} of them is not taken into account")
        if self.fits is not True:
            free = "unknown" if self.free_mib is None else f"{self.free_mib:,}"
            sure = "does not fit" if self.fits is False else "may not fit"
            found.append(
                f"! it {sure}: {free} MiB are free. What would: exec.gradient_checkpointing: true, a smaller"
                " exec.micro_batch_tokens, or another method (tunesmith plan --methods)"
            )
        found.append(cost_words(self.cost) if self.cost else UNKNOWN_SPEED)
        return found


def cost_words(cost: Cost, currency: str = "") -> str:
    """`12 to 19 min (measured: ...), 0.02 to 0.03 kWh, 0.01 USD`"""
    words = f"{duration(cost.seconds.low)} to {duration(cost.seconds.high)} ({cost.basis})"
    if cost.kwh is not None:
        words += f", {cost.kwh.low:.2g} to {cost.kwh.high:.2g} kWh"
    if cost.money is not None:
        words += f", {cost.money.low:.2g} to {cost.money.high:.2g} {currency}".rstrip()
    return words


def training(journey: Journey, *, probe: bool, timed: Callable[[Journey, str], float] | None = None) -> Training:
    """`probe`: take three real steps where none are remembered. `timed`: gives tokens a second in a precision, for
    want of better, where the training fits. Raises ModelError for an architecture that cannot be counted."""
    from tunesmith.train.precision import estimate, training_memory

    context, step = journey.context, train_step_of(journey)
    spec, inputs = step.build(journey)
    exec, skeleton, config = exec_for(journey, step), skeleton_for(journey), config_of(journey)
    device = "cuda" if machine.on_gpu(exec.device) else "cpu"
    dataset = as_trained(journey, spec, inputs, count=probe or timed is not None)
    counted = estimate(config, dataset, spec, 1.0, exec=exec, skeleton=skeleton, device=device)
    memory = training_memory(config, skeleton, dataset, spec, exec, device=device)
    free = machine.free_bytes()
    hopeless = device == "cpu" and memory.needed * (1 - memory.unsure) > free
    measured, why = _checked(journey, step, spec, inputs, exec, probe=probe, hopeless=hopeless)
    speed, basis = _speed(journey, spec, exec, measured)
    if speed is None and timed is not None and not hopeless:
        speed, basis = timed(journey, spec.precision), "measured: a timing of made-up rows here"
    settings = context.settings.plan
    watts = settings.watts or (measured.watts if measured else None)
    cost = None
    if speed:
        seconds, unsure = counted["tokens"] / speed, work.MEASURED_UNSURE
        cost = work.here(seconds, unsure=unsure, watts=watts, energy_price=settings.energy_price, basis=basis)
    return Training(
        key=key_of(step.stage, spec, inputs),
        steps=counted["steps"],
        tokens=counted["tokens"],
        weights=counted["weights"],
        trained_weights=counted["trained_weights"],
        path=measured.path if measured else counted["path"],
        precision=spec.precision,
        memory_mib=counted["memory"],
        memory_low_mib=counted["memory_low_mib"],
        memory_high_mib=counted["memory_high_mib"],
        measured_peak_mib=measured.peak_mib if measured else None,
        not_measured=why,
        ranks=exec.ranks,
        device=device,
        tokens_per_second=speed,
        cost=cost,
        free_mib=round(free / machine.MIB) if device == "cpu" else measured.free_mib if measured else None,
        checkpoint_mib=counted["checkpoint_mib"],
    )


def train_step_of(journey: Journey) -> Step:
    return next(s for s in steps(journey.context) if s.name == "train")


def config_of(journey: Journey) -> dict[str, Any]:
    return read_json(journey.base.folder / "config.json", dict[str, Any])


def skeleton_for(journey: Journey) -> Skeleton:
    """Remembered by the base's content: the next plan needs no torch for it."""
    context, question = journey.context, {"base": journey.base.artifact.id, "version": 2}
    return from_json(auto.remembered(context, "skeleton", question, lambda: to_json(skeleton_of(config_of(journey)))))


def _checked(
    journey: Journey, step: Step, spec: Any, inputs: dict[str, Any], exec: Exec, *, probe: bool, hopeless: bool
) -> tuple[Measured | None, str]:
    """What three steps took, remembered or taken now; else why there are none."""
    context, question = journey.context, probe_question(journey, spec, inputs, exec)
    if exec.ranks > 1:
        return None, f"the three steps are of one process, and exec makes {exec.ranks} of them"
    found = auto.known(context, "steps", question)
    if found is not None:
        return msgspec.convert(found, Measured), ""
    if not probe:
        return None, "tunesmith plan takes three steps"
    if hopeless:
        return None, "the steps were not tried, since by the count they do not fit"
    context.progress(0, 1, "three steps at the longest batch")
    taken = _measure(journey, step, spec, exec, inputs)
    if isinstance(taken, str):
        return None, taken
    auto.remembered(context, "steps", question, lambda: plain(taken))
    return taken, ""


def probe_question(journey: Journey, spec: Any, inputs: dict[str, Any], exec: Exec) -> dict[str, Any]:
    """What the three steps depend on: all of the Spec but what changes neither memory nor speed."""
    values = plain(spec)
    for name in ("lr", "epochs", "schedule", "warmup", "decay", "seed", "metric", "validate_times", "patience"):
        values.pop(name, None)
    how = {n: v for n, v in plain(exec).items() if n not in NOT_IN_STEPS}
    return {"asked": content_id({"spec": values, "inputs": inputs, "exec": how}), "base": journey.base.artifact.id}


def _measure(journey: Journey, step: Step, spec: Any, exec: Exec, inputs: dict[str, Any]) -> Measured | str:
    def folder(name: str) -> Any:
        return journey.context.ledger.path(inputs[name]) if inputs.get(name) else None

    return measure(
        step.stage.name,
        spec,
        exec,
        dataset=folder("dataset"),
        base=journey.base.folder,
        start=folder("start"),
        general=folder("general"),
    )


def _speed(journey: Journey, spec: Any, exec: Exec, measured: Measured | None) -> tuple[float | None, str]:
    """(tokens a second, what it rests on): a finished training like this one, else the three steps."""
    for run in journey.context.ledger.runs(limit=20):
        same = run.stage in ("sft", "domain") and run.status == "finished" and run.metrics.get("tokens_per_s")
        alike = all(run.spec.get(n) == plain(spec)[n] for n in ("method", "precision", "optimizer"))
        alike = alike and run.metrics.get("ranks", 1) == exec.ranks
        if same and alike and run.inputs.get("base") == journey.base.artifact.id:
            return float(run.metrics["tokens_per_s"]), "measured: an earlier training here"
    if measured is not None:
        return measured.tokens_per_s, "measured: three steps here"
    return None, ""


# -- before, and afterwards ------------------------------------------------------------------------------------


def note(context: Context, found: Training) -> None:
    """Write the forecast down, unless the very same was the last word on this run."""
    span = found.cost.seconds if found.cost else None
    planned.note(
        context.ledger,
        {
            "key": found.key,
            "steps": found.steps,
            "tokens": found.tokens,
            "seconds": span.middle if span else None,
            "seconds_low": span.low if span else None,
            "seconds_high": span.high if span else None,
            "counted_mib": round(sum(found.memory_mib.values())),
            "measured_mib": found.measured_peak_mib,
        },
    )


def before_training(journey: Journey) -> None:
    """Note what is known of the training that is about to start, and warn where it cannot fit. Costs no step."""
    try:
        found = training(journey, probe=False)
    except ModelError:
        return  # an architecture that cannot be counted from its config can still be trained
    if journey.context.ledger.finished(found.key) is None:
        note(journey.context, found)
        if found.fits is False:
            words = f"warning: about {found.peak_mib:,.0f} MiB are needed and {found.free_mib:,} are free"
            journey.context.progress(0, 1, f"{words}; tunesmith plan --methods says what would fit")
