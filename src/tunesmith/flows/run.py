"""Walk the steps: each is answered from the ledger or executed, and only a pass moves `prod`.

Running again resumes: a finished step is not repeated, a killed one continues from its saved state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.nouns import Run, Verdict
from tunesmith.core.stage import Clock
from tunesmith.core.words import duration
from tunesmith.flows.context import Context
from tunesmith.flows.cost import forecast
from tunesmith.flows.cost import planned as planned_facts
from tunesmith.flows.cost.elsewhere import prices_for
from tunesmith.flows.journey import Journey, Step
from tunesmith.flows.plan import Plan, plan_steps, whole
from tunesmith.flows.preflight import refuse_early
from tunesmith.flows.steps import begin, exec_for, method_spec, steps_for
from tunesmith.launch.check import check
from tunesmith.launch.perform import perform
from tunesmith.ledger.execute import execute

PROD = "prod"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    name: str
    run: str  # run id
    seconds: float  # what the step took when it was executed
    planned: float | None  # what the plan said beforehand; None: the plan had nothing to say
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What `tunesmith run` has to say."""

    project: str
    verdict: Verdict
    steps: tuple[StepResult, ...]
    bundle: str  # artifact id
    prod: bool  # whether `prod` points to this bundle now
    seconds: float
    limit: int | None
    compared: tuple[str, ...]  # the training: planned, and happened
    forecast: str  # of the whole, after a proof of concept; else ""
    report: str = ""  # path of the page, once it is written

    @property
    def exit_code(self) -> int:
        return self.verdict.exit_code

    def __str__(self) -> str:
        lines = [f"{'stage':<18} {'planned':>12} {'took':>12}"]
        for s in self.steps:
            planned = "–" if s.planned is None else duration(s.planned)
            took = f"{duration(s.seconds)}" if not s.reused else "reused"
            lines.append(f"{s.name:<18} {planned:>12} {took:>12}")
        lines += [f"train: {line}" for line in self.compared]
        lines += ["", verdict_text(self.verdict), ""]
        if self.forecast:
            lines.append(self.forecast)
        if self.prod:
            lines.append(f"bundle {self.bundle[:12]} is live as `{PROD}`")
            lines.append('next:  tunesmith ask "..."   or   tunesmith serve')
        elif self.limit:
            lines.append("a proof of concept never moves `prod`")
            lines.append("next:  tunesmith run")
        else:
            lines.append(f"`{PROD}` was not moved; the candidate can be tried by its id:")
            lines.append(f"       tunesmith serve --model {self.bundle[:12]}")
            lines.append("next:  tunesmith report   (what went wrong, and what would help)")
        if self.report:
            lines.append(f"report {self.report}")
        return "\n".join(lines)


def verdict_text(verdict: Verdict) -> str:
    """The verdict as lines for a terminal."""
    words = {"pass": "PASS", "fail": "FAIL", "unproven": "NOT ENOUGH EVIDENCE"}
    marks = {"pass": "✓", "fail": "✕", "unproven": "…"}
    lines = [words[verdict.status]]
    for g in verdict.goals:
        numbers = f"  {g.measured.value:.3f} ({g.measured.low:.3f} – {g.measured.high:.3f})" if g.measured else ""
        lines.append(f"  {marks[g.status]} {g.goal}{numbers}: {g.because}")
        if g.next:
            lines.append(f"      {g.next}")
    lines += [f"  ! {a}" for a in verdict.advice]
    return "\n".join(lines)


def walk(
    context: Context,
    verb: str,
    *,
    before: Callable[[Journey, Step], None] = lambda j, s: None,
    checkpoint: str | None = None,
) -> Journey:
    """Execute every step that `verb` stands for; `before` is called ahead of each. `checkpoint`: an artifact that
    stands in for what the step train would make."""
    check(context.settings.exec, context.settings.train)
    journey = begin(context)
    steps = steps_for(context, verb)
    trains = checkpoint is None and any(s.name == "train" for s in steps)
    if trains:
        method_spec(context.settings.train.method)
    for i, step in enumerate(steps):
        if trains and i == 1:  # after the first look at the rows, which needs no model
            refuse_early(journey)
        if step.name == "train" and checkpoint is not None:
            journey.runs["train"] = _given(context, checkpoint)
            continue
        before(journey, step)
        journey.runs[step.name] = take(journey, step)
    return journey


def _given(context: Context, checkpoint: str) -> Run:
    """The run that made it, or, for one that came from elsewhere, one that says so."""
    made = context.ledger.made_by(checkpoint)
    if made is not None and checkpoint in made.outputs.values():
        return replace(made, outputs={**made.outputs, "checkpoint": checkpoint}, reused=True)  # or one kept beside it
    return Run(
        id="", key="", stage="given", version=0, spec={}, inputs={}, outputs={"checkpoint": checkpoint},
        status="finished", started="", seconds=0.0, reused=True,
    )  # fmt: skip


def take(journey: Journey, step: Step) -> Run:
    context = journey.context
    spec, inputs = step.build(journey)

    def progress(done: float, total: float, label: str, **facts: Any) -> None:
        context.progress(done, total, label if label == step.name else f"{step.name}: {label}", **facts)

    if step.name == "train":
        forecast.before_training(journey)
    context.progress(0, 1, step.name)
    return execute(
        context.ledger,
        step.stage,
        spec,
        inputs,
        exec=exec_for(journey, step),
        progress=progress,
        stop=context.stop,
        perform=perform,
    )


def run(context: Context) -> RunResult:
    """The whole journey, with what was planned beside what it took."""
    clock = Clock()
    planned: dict[str, float] = {}
    prepared = {s.name for s in steps_for(context, "prepare")}

    def plan_when_possible(journey: Journey, step: Step) -> None:
        if prepared <= journey.runs.keys() and not planned:
            planned.update({s.name: s.seconds for s in plan_steps(journey).steps if s.seconds is not None})
            if planned:
                dataset = journey.dataset_id
                context.ledger.note("plan", {"dataset": dataset, "seconds": planned})

    journey = walk(context, "run", before=plan_when_possible)
    verdict = read_json(journey.folder("gate", "verdict") / "verdict.json", Verdict)
    bundle = journey.made("bundle", "bundle")
    limit = context.settings.data.limit
    if verdict.status == "pass" and not limit and context.ledger.reference(PROD) != bundle:
        context.ledger.move_reference(PROD, bundle, f"passed {len(verdict.goals)} goals")
    return RunResult(
        project=context.name,
        verdict=verdict,
        steps=tuple(
            StepResult(name=name, run=r.id, seconds=r.seconds, planned=planned.get(name), reused=r.reused)
            for name, r in journey.runs.items()
        ),
        bundle=bundle,
        prod=context.ledger.reference(PROD) == bundle,
        seconds=clock.seconds,
        limit=limit,
        compared=tuple(str(c) for c in planned_facts.compared(context.ledger, journey.runs["train"])),
        forecast=whole(journey) if limit else "",
    )


def plan(context: Context, *, probe: bool, gpus: tuple[str, ...]) -> Plan:
    """Check and prepare (seconds, and kept), then say what the rest will cost."""
    prices_for(context, gpus)  # a wrong name is said before the data are read
    journey = walk(context, "prepare")
    refuse_early(journey)
    return plan_steps(journey, probe=probe, gpus=gpus)
