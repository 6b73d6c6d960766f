"""Goals as people write them: `macro_f1 >= 0.70`, `rougeL >= 0.2 @ label=sports`, `beats: [tfidf]`.

In come the strings and mappings of the project file's `goals:`; out come nouns.Goal values, or every
reason why not. The names of metrics and arms stand here because the project file must know them
before anything heavy is imported; metrics/catalog.py holds the functions, and a test keeps the two
in step.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Goal, Kind, Task

if TYPE_CHECKING:  # settings.py imports pydantic, which a goal does not need
    from tunesmith.core.settings import GoalSettings

CLASSES: tuple[Kind, ...] = ("classify",)
TEXTS: tuple[Kind, ...] = ("extract", "summarize", "instruct", "chat")
DOMAIN: tuple[Kind, ...] = ("domain",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """What a goal may say about a metric: for which kinds of task, and its largest value; the smallest is 0."""

    kinds: tuple[Kind, ...]
    highest: float = 1.0
    of_one_class: bool = False  # means something only on a slice label=NAME
    higher_is_better: bool = True


METRIC_NAMES: dict[str, MetricName] = {
    "macro_f1": MetricName(kinds=CLASSES),
    "accuracy": MetricName(kinds=CLASSES),
    "balanced_accuracy": MetricName(kinds=CLASSES),
    "micro_f1": MetricName(kinds=CLASSES),
    "weighted_f1": MetricName(kinds=CLASSES),
    "f1": MetricName(kinds=CLASSES, of_one_class=True),
    "rouge1": MetricName(kinds=TEXTS),
    "rouge2": MetricName(kinds=TEXTS),
    "rougeL": MetricName(kinds=TEXTS),
    "rougeLsum": MetricName(kinds=TEXTS),
    "rouge1_unicode": MetricName(kinds=TEXTS),
    "rouge2_unicode": MetricName(kinds=TEXTS),
    "rougeL_unicode": MetricName(kinds=TEXTS),
    "rougeLsum_unicode": MetricName(kinds=TEXTS),
    "bleu": MetricName(kinds=TEXTS, highest=100.0),
    "chrf": MetricName(kinds=TEXTS, highest=100.0),
    "exact_match": MetricName(kinds=(*CLASSES, *TEXTS)),
    "exact_match_squad": MetricName(kinds=TEXTS),
    "bits_per_byte": MetricName(kinds=DOMAIN, highest=math.inf, higher_is_better=False),
    "perplexity": MetricName(kinds=DOMAIN, highest=math.inf, higher_is_better=False),
    "token_f1": MetricName(kinds=TEXTS),
}
USUAL_METRIC: dict[Kind, str] = {  # the one that `beats` means when no goal names another
    "classify": "macro_f1",
    "extract": "exact_match",
    "summarize": "rougeLsum",
    "instruct": "chrf",
    "chat": "chrf",
    "domain": "bits_per_byte",
}

CLASSIFIERS = ("majority", "tfidf")
ARMS = (*CLASSIFIERS, "lead", "zero_shot", "few_shot")  # "tuned" is the arm that the goals are about
ARMS_OF: dict[Kind, tuple[str, ...]] = {
    "classify": (*CLASSIFIERS, "zero_shot", "few_shot"),
    "extract": ("zero_shot", "few_shot"),
    "summarize": ("lead", "zero_shot", "few_shot"),  # lead: the first sentences of the text
    "instruct": ("zero_shot", "few_shot"),
    "chat": ("zero_shot", "few_shot"),
    "domain": ("zero_shot",),
}

LONGEST_NAME = 100  # characters; no metric, arm or setting comes near
LONGEST_GOAL = 1_000
FORM = "macro_f1 >= 0.70, or macro_f1 >= 0.70 @ label=NAME, or beats: [zero_shot, few_shot]"
_GOAL = re.compile(r"\s*(?P<metric>[^\s<>=@]+)\s*(?P<op>>=|<=)\s*(?P<bar>[^\s@]+)\s*(@\s*(?P<slice>.*?)\s*)?")


def usual_arms(kind: Kind) -> tuple[str, ...]:
    """Every arm that can do such a task; the tuned model is compared with them unless `evaluate.arms` says otherwise."""
    return ARMS_OF[kind]


def metrics_of(kind: Kind) -> tuple[str, ...]:
    return tuple(name for name, metric in METRIC_NAMES.items() if kind in metric.kinds)


def parse_goals(given: Sequence[str | GoalSettings], task: Task, arms: Sequence[str]) -> tuple[Goal, ...]:
    """The goals, in order. `arms` are those that will be compared with the tuned model.

    Raises InputError with every problem; `where` is "goals[0]", and the project file knows its line.
    """
    parts = [_Parts.of(item) for item in given]
    bars = (p.metric for p in parts if p.op != "beats" and p.metric in metrics_of(task.kind))
    usual = next(bars, USUAL_METRIC[task.kind])
    problems = [
        Problem(where=f"goals[{i}]", what=what, fix=fix)
        for i, part in enumerate(parts)
        for what, fix in part.problems(task, arms, usual)
    ]
    if problems:
        raise InputError(problems)
    return tuple(part.goal(usual) for part in parts)


def parse_goal(text: str, kind: Kind) -> Goal:
    """One goal in its short form, checked for a kind of task; for `init --goal`."""
    return parse_goals([text], Task(kind=kind, group="group"), usual_arms(kind))[0]


def warnings(task: Task, goals: Sequence[Goal]) -> tuple[str, ...]:
    """What is allowed and yet unwise, one sentence each."""
    found = []
    if not goals:
        found.append("There are no goals, so the gate can prove nothing: every verdict will be not enough evidence.")
    metrics = {goal.metric for goal in goals}
    if task.kind in ("summarize", "chat") and len(metrics) == 1:
        found.append(
            f"Every goal rests on {metrics.pop()}. One automatic metric says little about whether a "
            f"{'summary is faithful' if task.kind == 'summarize' else 'conversation helps'}: "
            "add a second metric, and have people read some answers."
        )
    return tuple(found)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, or "" if none is."""
    if len(name) > LONGEST_NAME:
        return ""  # comparing takes time that grows with its square
    folded = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.55)
    return folded[found[0]] if found else ""


def clipped(text: str) -> str:
    """For a message: its beginning."""
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    found = nearest(name, known)
    return f"Did you mean {found}?" if found else f"Known: {', '.join(known) or 'none'}."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A goal taken apart, before anything about it is believed."""

    wrong: str = ""  # why it could not even be taken apart
    metric: str = ""  # "": the usual one
    op: Literal[">=", "<=", "beats"] = ">="
    bar: float = 0.0
    beats: tuple[str, ...] = ()
    slice: str = "all"
    confidence: float = 0.95

    @classmethod
    def of(cls, item: str | GoalSettings) -> _Parts:
        return cls._of_text(item) if isinstance(item, str) else cls._of_mapping(item)

    @classmethod
    def _of_text(cls, text: str) -> _Parts:
        match = _GOAL.fullmatch(text) if len(text) <= LONGEST_GOAL else None
        if not match:
            return cls(wrong=f'"{clipped(text)}" is not a goal')
        bar = _number(match["bar"])
        if bar is None:
            return cls(wrong=f'"{clipped(match["bar"])}" in "{clipped(text)}" is not a number')
        op: Literal[">=", "<="] = ">=" if match["op"] == ">=" else "<="
        where = "all" if match["slice"] is None else re.sub(r"\s*=\s*", "=", match["slice"], count=1)
        return cls(metric=match["metric"], op=op, bar=bar, slice=where)

    @classmethod
    def _of_mapping(cls, given: GoalSettings) -> _Parts:
        said = [
            name
            for name, is_set in (
                ("at_least", given.at_least is not None),
                ("at_most", given.at_most is not None),
                ("beats", "beats" in given.model_fields_set),
            )
            if is_set
        ]
        if len(said) != 1:
            how = "says none of" if not said else f"says {' and '.join(said)}: only one of"
            return cls(wrong=f"the goal {how} at_least, at_most and beats" + ("" if said else " (one is needed)"))
        if said != ["beats"] and not given.metric:
            return cls(wrong=f"the goal says {said[0]} but not of which metric")
        if said == ["beats"] and not given.beats:
            return cls(wrong="beats names no arm")
        return cls(
            metric=given.metric or "",
            op="beats" if said == ["beats"] else ">=" if said == ["at_least"] else "<=",
            bar=next((b for b in (given.at_least, given.at_most) if b is not None), 0.0),
            beats=tuple(given.beats),
            slice=given.slice,
            confidence=given.confidence,
        )

    def goal(self, usual: str) -> Goal:
        return Goal(
            metric=self.metric or usual,
            op=self.op,
            threshold=None if self.op == "beats" else self.bar,
            beats=self.beats,
            slice=self.slice,
            confidence=self.confidence,
        )

    def problems(self, task: Task, arms: Sequence[str], usual: str) -> list[tuple[str, str]]:
        if self.wrong:
            return [(self.wrong, f"write {FORM}")]
        return [
            *self._metric_problems(task, self.metric or usual),
            *self._arm_problems(task.kind, arms),
            *self._slice_problems(task),
        ]

    def _metric_problems(self, task: Task, metric: str) -> list[tuple[str, str]]:
        if why := metric_problem(metric, task.kind):
            return [why]
        if METRIC_NAMES[metric].of_one_class and not self.slice.startswith("label="):
            return [
                (f"{metric} is of one class, and the goal names none", f"add @ label=NAME, or use {usual_of(task)}")
            ]
        known, highest = METRIC_NAMES[metric], METRIC_NAMES[metric].highest
        if self.op == ">=" and not known.higher_is_better:
            return [(f"{metric} is better when lower, and the goal asks for more", f"write {metric} <= {self.bar:g}")]
        if self.op != "beats" and not 0 <= self.bar <= highest:
            span = f"between 0 and {highest:g}" if math.isfinite(highest) else "above 0"
            what = f"{metric} lies {span}, so {self.bar:g} says nothing"
            percent = highest == 1 and 1 < self.bar <= 100
            return [(what, f"write {metric} {self.op} {self.bar / 100:g}" if percent else "choose a bar in that range")]
        return []

    def _arm_problems(self, kind: Kind, arms: Sequence[str]) -> list[tuple[str, str]]:
        found = []
        for i, name in enumerate(self.beats):
            if name == "tuned":
                found.append(("beats names tuned, which is the model the goal is about", "name a baseline"))
            elif name in self.beats[:i]:
                found.append((f"beats names {clipped(name)} twice", "name each arm once"))
            elif why := arm_problem(name, kind):
                found.append((f"beats names {clipped(name)}: {why[0]}", why[1]))
            elif name not in arms:
                found.append(
                    (f"beats names {name}, which evaluate.arms leaves out", "add it there, or name another arm")
                )
        return found

    def _slice_problems(self, task: Task) -> list[tuple[str, str]]:
        if self.slice == "all":
            return []
        column, equals, value = self.slice.partition("=")
        if not equals or not column or not value:
            return [(f'slice "{self.slice}" is not column=value', "write @ label=NAME or @ group=NAME")]
        if column not in ("label", "group"):
            return [(f"slice column {column} is not known", did_you_mean(column, ("label", "group")))]
        if column == "label" and task.kind != "classify":
            return [(f"a {task.kind} task has no classes to slice by", "slice by group, or leave the slice out")]
        if column == "group" and not task.group:
            return [("the slice names a group, but task.group names no column", "set task.group")]
        if column == "label" and task.labels and value not in task.labels:
            return [(f"slice names class {value}, which task.labels does not", did_you_mean(value, task.labels))]
        return []


def usual_of(task: Task) -> str:
    return USUAL_METRIC[task.kind]


def arm_problem(name: str, kind: Kind) -> tuple[str, str] | None:
    """What is wrong with comparing with this arm, and what to do."""
    if name not in ARMS:
        return "there is no such arm", did_you_mean(name, usual_arms(kind))
    if name not in usual_arms(kind):
        return f"it cannot do a {kind} task", f"use {', '.join(usual_arms(kind))}"
    return None


def metric_problem(name: str, kind: Kind) -> tuple[str, str] | None:
    """What is wrong with naming this metric for this kind of task, and what to do."""
    if not metrics_of(kind):
        return f"no metric can judge a {kind} task yet", "leave the goal out"
    if name not in METRIC_NAMES:
        return f"{clipped(name)} is not a metric", did_you_mean(name, metrics_of(kind))
    if kind not in METRIC_NAMES[name].kinds:
        return f"{name} is not for {kind} tasks", f"use one of {', '.join(metrics_of(kind))}"
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
