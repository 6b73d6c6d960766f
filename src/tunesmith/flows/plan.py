"""What a run will do and cost, before it does it: steps, tokens, memory, minutes, disk.

Speed comes from the ledger where this project has done the like before on this kind of machine, else
from a probe of a step or two, remembered as a fact. Every number is a forecast and is shown beside
what happened afterwards.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.nouns import Row, Run
from tunesmith.flows import auto
from tunesmith.flows.cost import forecast
from tunesmith.flows.cost.elsewhere import OnGpu, on_gpus
from tunesmith.flows.cost.forecast import Training
from tunesmith.flows.cost.planned import Compared, compared
from tunesmith.flows.journey import Journey, Step
from tunesmith.flows.steps import steps
from tunesmith.ledger.execute import key_of

FIXED_SECONDS = {"evaluate": 5.0, "gate": 2.0, "bundle": 1.0}
DATA_WORDS = {
    "documents": "manuals to passages", "corpus": "passages to texts", "pairs": "passages to questions and answers",
    "approve": "people's approval", "check": "the raw files", "clean": "named steps over the texts",
    "dedup": "near copies", "audit": "personal data, secrets, bias", "label": "judgments and label errors",
    "general check": "general texts", "general": "general texts",
    "prepare": "split and token lengths", "augment": "rows made from training rows",
}  # fmt: skip
DATA_SECONDS = 1.0  # of a step over the rows, and so much more for each 1,000 of them:
SECONDS_PER_1000 = {"audit": 1.0, "prepare": 0.6, "augment": 1.0, "label": 1.0}
ARM_FIXED_SECONDS = {"majority": 0.2, "tfidf": 6.0, "lead": 0.2}
# Tokens a second against training's, as the demo and, for texts and writing, examples/debian-domain.sh measured them:
VALIDATING_SPEED = 3.0  # forward only, through training's own path
ANSWERING_SPEED = 0.7  # with the probabilities of every label, in thin passes
LABELS_SHARE = 0.25  # of the labels' tokens that pruned scoring still evaluates
WRITING_SPEED = 1.6  # a batch of answers at once
WRITTEN_UNTAUGHT = 2.0  # times the length: a model that was not trained on the task does not know where to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    name: str
    cached: bool
    seconds: float | None  # None: nothing to say, or nothing to do
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[PlannedStep, ...]
    rows: dict[str, int]
    tokens: int  # of all examples, once
    optimizer_steps: int
    tokens_per_second: float  # in training
    precision: str
    memory_mib: dict[str, float]  # by part
    training: Training
    gpus: tuple[OnGpu, ...]  # the same training on named GPUs, computed
    currency: str
    happened: tuple[Compared, ...]  # where this training is done: planned beside what it took
    disk_mib: float  # what the run adds to the project
    free_disk_mib: float
    provable: tuple[str, ...]  # whether a test set of this size can prove each goal

    @property
    def seconds(self) -> float:
        return sum(s.seconds or 0.0 for s in self.steps if not s.cached)

    def __str__(self) -> str:
        lines = [f"{'stage':<18} {'minutes':>8}  what"]
        for s in self.steps:
            time = "cached" if s.cached else "–" if s.seconds is None else f"{s.seconds / 60:.1f}"
            lines.append(f"{s.name:<18} {time:>8}  {s.words}")
        lines += [
            "",
            f"about {self.seconds / 60:.1f} minutes, {self.training.peak_mib:,.0f} MiB of memory, "
            f"{self.disk_mib:,.0f} MiB of disk ({self.free_disk_mib:,.0f} free)",
            f"{self.rows['train']:,} train, {self.rows['validation']:,} validation, {self.rows['test']:,} test rows; "
            f"{self.tokens:,} tokens; {self.optimizer_steps} optimizer steps in {self.precision} "
            f"at {self.tokens_per_second:,.0f} tokens/s",
            "",
            "training here:",
            *(f"  {line}" for line in self.training.lines()),
            *(f"  {c}" for c in self.happened),
        ]
        if self.gpus:
            lines.append("training elsewhere (computed, not measured):")
            lines += [f"  {g.words(self.currency)}" for g in self.gpus]
        lines += self.provable
        return "\n".join(lines)


def plan_steps(journey: Journey, *, probe: bool = False, gpus: tuple[str, ...] = ()) -> Plan:
    """For a journey on which check and prepare are done. `probe`: take three real steps of the training where none
    are remembered, in place of a timing. `gpus`: in place of those that the project names."""
    context, dataset = journey.context, journey.dataset
    elsewhere, currency = on_gpus(journey, gpus)  # a wrong name or price file is said before time is spent
    training = forecast.training(journey, probe=probe, timed=timed_speed)
    speed = training.tokens_per_second or 1.0
    forecast.note(context, training)
    facts = {"seconds": training.tokens / speed, "tokens": training.tokens, "steps": training.steps}
    planned = [planned_step(journey, step, facts, speed) for step in walkable(journey)]
    done = context.ledger.finished(training.key)
    return Plan(
        steps=tuple(planned),
        rows=dataset["counts"],
        tokens=dataset["tokens"]["total"],
        optimizer_steps=training.steps,
        tokens_per_second=speed,
        precision=training.precision,
        memory_mib=training.memory_mib,
        training=training,
        gpus=elsewhere,
        currency=currency,
        happened=compared(context.ledger, done) if done else (),
        disk_mib=training.checkpoint_mib * (context.settings.train.keep + context.settings.train.keep_last + 1) + 2,
        free_disk_mib=shutil.disk_usage(context.root).free / 2**20,
        provable=provable(journey),
    )


def walkable(journey: Journey) -> list[Step]:
    """All steps, with those already in the ledger entered into the journey so that later keys are known."""
    found = []
    for step in steps(journey.context):
        found.append(step)
        if step.name in journey.runs or any(n not in journey.runs for n in step.needs):
            continue
        spec, inputs = step.build(journey)
        done = journey.context.ledger.finished(key_of(step.stage, spec, inputs))
        if done:
            journey.runs[step.name] = done
    return found


def planned_step(journey: Journey, step: Step, training: dict[str, Any], speed: float) -> PlannedStep:
    done: Run | None = journey.runs.get(step.name)
    seconds, words = cost(journey, step, training, speed)
    return PlannedStep(name=step.name, cached=done is not None, seconds=None if done else seconds, words=words)


def cost(journey: Journey, step: Step, training: dict[str, Any], speed: float) -> tuple[float | None, str]:
    dataset = journey.dataset
    if step.name == "train":
        rows = min(journey.context.settings.train.validation_rows, dataset["counts"]["validation"])
        validating = journey.context.settings.train.validate_times * rows * validated_tokens(journey) / speed
        seconds = training["seconds"] + validating
        return seconds, f"{training['tokens']:,} tokens in {training['steps']} steps"
    if step.name.startswith("answer "):
        arm = step.name.removeprefix("answer ")
        rows = dataset["counts"]["test"]
        if arm in ARM_FIXED_SECONDS:
            return ARM_FIXED_SECONDS[arm], f"{rows} test rows"
        few = journey.context.settings.evaluate.few_shot
        tried = len(few.counts) * few.draws * min(few.rows, dataset["counts"]["validation"]) if arm == "few_shot" else 0
        seconds = 3.0 + (rows + tried) * answer_tokens(journey, arm) / speed
        words = f"{rows} test rows" + (f" after {tried} tries on validation rows" if tried else "")
        return seconds, words
    if step.name in DATA_WORDS:
        rows = sum(dataset["counts"].values())
        return DATA_SECONDS + SECONDS_PER_1000.get(step.name, 0.1) * rows / 1000, DATA_WORDS[step.name]
    return FIXED_SECONDS[step.name], ""


def validated_tokens(journey: Journey) -> float:
    """What validating one row costs, in tokens of training: its loss, and what it would answer."""
    tokens = journey.dataset["tokens"]
    if journey.context.task.kind == "classify":
        return float(tokens["prompt"]["mean"] + tokens["answer"]["mean"]) / VALIDATING_SPEED
    return answer_tokens(journey, "tuned")


def answer_tokens(journey: Journey, arm: str) -> float:
    """What one answer costs, in tokens of training, the shared prefix apart."""
    tokens, kind = journey.dataset["tokens"], journey.context.task.kind
    own, answer = tokens["prompt"]["mean"], tokens["answer"]["mean"]
    if kind == "classify":
        labels = 0 if arm == "tuned" else LABELS_SHARE * len(journey.dataset["labels"]) * answer
        return float(own + answer + labels) / ANSWERING_SPEED
    if kind == "domain":  # held-out texts are scored, and nothing is written
        return float(own + answer) / VALIDATING_SPEED
    written = answer if arm == "tuned" else WRITTEN_UNTAUGHT * answer
    return float(own / VALIDATING_SPEED + written / WRITING_SPEED)


def timed_speed(journey: Journey, precision: str) -> float:
    """Tokens a second in training, from a timing of made-up rows in this process."""
    context = journey.context

    def measure() -> float:
        from tunesmith.train.precision import tokens_per_second

        context.progress(0, 1, "timing a training step")
        spec, _ = next(s for s in steps(context) if s.name == "train").build(journey)
        return tokens_per_second(journey.base.folder, auto.typical_tokens(journey.dataset), spec)

    question = {"base": journey.base.artifact.id, "precision": precision, "method": context.settings.train.method.kind}
    return float(auto.remembered(context, "tokens_per_second", question, measure))


def provable(journey: Journey) -> tuple[str, ...]:
    """Before training: could a test set of this size prove each goal at all?"""
    from tunesmith.evaluate.power import feasibility

    rows = list(read_lines(journey.context.ledger.path(journey.dataset_id) / "test.jsonl", Row))
    return tuple(
        feasibility(
            journey.context.goals,
            [r.target for r in rows],
            [r.group for r in rows],
            labels=journey.dataset["labels"],
            not_judged=journey.dataset["not_judged"],
            kind=journey.context.task.kind,
        )
    )


def whole(journey: Journey) -> str:
    """After a proof of concept: what the whole would take, by this run's own speed."""
    limited = journey.dataset
    kept = read_json(journey.folder("check", "examples") / "check.json")["kept"]
    used = sum(limited["counts"].values())
    factor = kept / max(1, used)
    seconds = 0.0
    for name, run in journey.runs.items():
        grows = name == "train" or name.startswith("answer ") or name in ("check", "prepare")
        seconds += run.seconds * (factor if grows and name not in ("check",) else 1.0)
    return (
        f"forecast: all {kept:,} rows ({factor:.0f} times as many) would take about {seconds / 60:.0f} minutes; "
        "more rows narrow every interval by about the square root of that factor"
    )
