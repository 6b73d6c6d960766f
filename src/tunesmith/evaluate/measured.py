"""The items of a report side by side with every arm's answers, and the slices goals may speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.nouns import Answer, Kind
from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import Resampler, Spread, difference, resamples_for, spread
from tunesmith.metrics.sums import Items, Sums


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Targets, groups and each arm's answers, in the same order."""

    kind: Kind
    targets: tuple[str, ...]
    groups: tuple[str, ...]  # what is resampled
    answers: Mapping[str, tuple[str | Answer, ...]]  # arm -> texts; for domain, Answers with their log-probabilities
    labels: tuple[str, ...]  # declared; () unless classify
    not_judged: Mapping[str, str]  # label -> why
    resamples: int
    seed: int
    only: tuple[str, ...] = ()  # classes that a slice narrows the score to; () for all judged

    @cached_property
    def judged(self) -> tuple[str, ...]:
        support = set(self.targets)
        return self.only or tuple(x for x in self.labels if x in support and x not in self.not_judged)

    @classmethod
    def of_report(cls, folder: Path, *, resamples: int, seed: int) -> Measured:
        report = read_json(folder / "report.json", dict[str, Any])
        items = list(read_lines(folder / "items.jsonl", dict[str, Any]))
        return cls(
            kind=report["kind"],
            targets=tuple(i["target"] for i in items),
            groups=tuple(i["group"] for i in items),
            answers={arm: tuple(_said(i["answers"][arm]) for i in items) for arm in report["arms"]},
            labels=tuple(report["labels"]),
            not_judged=report["not_judged"],
            resamples=resamples,
            seed=seed,
        )

    def sums(self, arm: str, metric: str) -> Sums:
        return self.measure(self.answers[arm], metric)

    def measure(self, answers: Sequence[str | Answer], metric: str) -> Sums:
        items = Items.of(self.targets, answers, labels=self.labels, judged=self.judged)
        return catalog.measure(metric, items)

    def spread(self, arm: str, metric: str, *, confidence: float = 0.95) -> Spread:
        return spread(self.sums(arm, metric), self.resampler(confidence))

    def difference(self, a: str, b: str, metric: str, *, confidence: float = 0.95, tests: int = 1) -> Spread:
        return difference(self.sums(a, metric), self.sums(b, metric), self.resampler(confidence, tests))

    def resampler(self, confidence: float = 0.95, tests: int = 1) -> Resampler:
        resamples = resamples_for(confidence, tests, self.resamples)
        return Resampler.of(self.groups, resamples=resamples, seed=self.seed)

    def slice(self, name: str, metric: str) -> Measured | str:
        """The items of "all", "label=X" or "group=Y", or one sentence why nothing can be said of them.

        A score made of each class's own (F1, balanced accuracy) keeps all items on label=X, since what was
        wrongly taken for X counts too; any other keeps the items whose truth is X. Within one group its items
        are the sample, so they are resampled one by one.
        """
        found = catalog.find(metric)
        column, _, value = name.partition("=")
        if name == "all":
            return self._whole(found)
        if column == "label":
            return self._label(value, found)
        if column != "group":
            return f"the report has no column {column!r}; slices are label=NAME and group=NAME"
        kept = [i for i, g in enumerate(self.groups) if g == value]
        if not kept:
            return f"no test item has the group {value!r}"
        part = self._keep(kept, groups=tuple(str(i) for i in kept))
        return part._whole(found)

    def _whole(self, metric: catalog.Metric) -> Measured | str:
        if "class" in metric.needs:
            return f"{metric.name} is the score of one class: name it as a slice, label=NAME"
        if metric.by_class and not self.judged:
            return "none of the classes here can be judged"
        return self

    def _label(self, label: str, metric: catalog.Metric) -> Measured | str:
        if self.kind != "classify":
            return f"a {self.kind} task has no labels to slice by"
        if label not in self.labels:
            return f"{label!r} is not one of the labels"
        if label in self.not_judged:
            return f"the class {label!r} is not judged: {self.not_judged[label]}"
        kept = [i for i, t in enumerate(self.targets) if t == label]
        if not kept:
            return f"no test item has the label {label!r}"
        return replace(self, only=(label,)) if metric.by_class else self._keep(kept)

    def _keep(self, kept: Sequence[int], groups: tuple[str, ...] = ()) -> Measured:
        return replace(
            self,
            targets=tuple(self.targets[i] for i in kept),
            groups=groups or tuple(self.groups[i] for i in kept),
            answers={arm: tuple(texts[i] for i in kept) for arm, texts in self.answers.items()},
        )

    @property
    def size(self) -> int:
        """Items the score rests on: those of the classes a slice names, else all."""
        return sum(1 for t in self.targets if t in self.only) if self.only else len(self.targets)

    def __str__(self) -> str:
        """How much evidence there is: "362 items in 190 groups"."""
        of_class = [g for t, g in zip(self.targets, self.groups, strict=True) if not self.only or t in self.only]
        groups = len(set(of_class))
        items = f"{len(of_class)} item{'' if len(of_class) == 1 else 's'}"
        return items if groups == len(of_class) else f"{items} in {groups} group{'' if groups == 1 else 's'}"


def _said(kept: Mapping[str, Any]) -> str | Answer:
    """An arm's answer to one item as items.jsonl holds it."""
    if "logprob" not in kept:
        return str(kept["text"])
    return Answer(text=kept["text"], logprob=kept["logprob"], answer_tokens=kept["tokens"])
