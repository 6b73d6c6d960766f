"""Does a tuned model follow instructions it was never trained on? Whole tasks that only the test set has.

A row's task is what its column "task" says (`data.keep: [task]`), or its group where groups are tasks. A task is
held out when no training or validation row is of it: split by group with the task as group, or by the values of a
field. Each is scored with the base model's answers (before) and the tuned model's (after), and so are the tasks that
were trained, because gain there with loss here is what overfitting to tasks looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tunesmith.core.nouns import Interval, Row
from tunesmith.evaluate.measured import Measured
from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import difference, holm

DECIMALS = 10
KINDS = ("instruct", "chat", "extract", "summarize")
FEWEST = 2  # items of a task that can have an interval


def task_of(row: Row, *, by_group: bool) -> str:
    """The row's task, or "" where the data names none. `by_group`: its group, where it has one, is the task."""
    if by_group:
        return row.group if row.group != row.id else ""
    named = row.fields.get("task")
    return named.strip() if isinstance(named, str) else ""


def held_out_tasks(trained: Iterable[Row], test: Sequence[Row], *, by_group: bool = False) -> dict[str, list[int]]:
    """Task -> places of its rows in `test`, in name order, for tasks that no row of `trained` is of."""
    known = {task_of(row, by_group=by_group) for row in trained}
    found: dict[str, list[int]] = {}
    for i, row in enumerate(test):
        task = task_of(row, by_group=by_group)
        if task and task not in known:
            found.setdefault(task, []).append(i)
    return dict(sorted(found.items()))


def before_and_after(
    held_out: Mapping[str, Sequence[int]],
    test: Sequence[Row],
    measured: Measured,
    metric: str,
    *,
    confidence: float,
    before: str = "zero_shot",
    after: str = "tuned",
) -> dict[str, Any]:
    """Facts for the report: each held-out task, all of them together (resampled by task), and the trained ones.

    `measured` has the rows of `test` in their order. A task's p value is two-sided, and p_holm is corrected over the
    tasks. A task of one item has scores, low and high as far apart as
    they can be, and no p value. `improved` and `worse` count tasks that differ beyond doubt.
    """
    tasks = [
        {"task": task, **_compared(_part(measured, places, test), metric, before, after, confidence)}
        for task, places in held_out.items()
    ]
    tested = [t for t in tasks if "p" in t]
    for t, adjusted in zip(tested, holm([t["p"] for t in tested]), strict=True):
        t["p_holm"] = adjusted
    better = 1 if catalog.find(metric).higher_is_better else -1
    sure = [better * t["difference"]["value"] for t in tested if t["p_holm"] <= 1 - confidence]
    named = {i: task for task, places in held_out.items() for i in places}
    every = list(named)
    other = sorted(set(range(len(test))) - set(every))
    found: dict[str, Any] = {
        "metric": metric,
        "before": before,
        "after": after,
        "tasks": tasks,
        "improved": sum(1 for gap in sure if gap > 0),
        "worse": sum(1 for gap in sure if gap < 0),
        "all": _compared(_part(measured, every, test, tasks=named), metric, before, after, confidence),
    }
    if other:
        found["trained"] = _compared(_part(measured, other, test), metric, before, after, confidence)
    return found


def _part(
    measured: Measured, places: Sequence[int], test: Sequence[Row], *, tasks: Mapping[int, str] | None = None
) -> Measured:
    """The items at these places. What is resampled: tasks, or within a task its groups where it has several."""
    groups = [tasks[i] if tasks else measured.groups[i] for i in places]
    if len(set(groups)) == 1:
        groups = [test[i].id for i in places]
    return replace(
        measured,
        targets=tuple(measured.targets[i] for i in places),
        groups=tuple(groups),
        answers={arm: tuple(said[i] for i in places) for arm, said in measured.answers.items()},
    )


def _compared(part: Measured, metric: str, before: str, after: str, confidence: float) -> dict[str, Any]:
    sums = {arm: part.sums(arm, metric) for arm in (before, after)}
    found: dict[str, Any] = {"n": len(part.targets), "clusters": len(set(part.groups))}
    if found["clusters"] < FEWEST:
        alone = {
            name: {"value": round(sums[arm].score, DECIMALS), "low": 0.0, "high": sums[arm].highest}
            for name, arm in (("score_before", before), ("score_after", after))
        }
        gap_alone = round(sums[after].score - sums[before].score, DECIMALS)
        most = sums[after].highest
        return {**found, **alone, "difference": {"value": gap_alone, "low": -most, "high": most}}
    gap = difference(sums[after], sums[before], part.resampler(confidence))
    return {
        **found,
        "score_before": _rounded(part.spread(before, metric, confidence=confidence).interval(confidence)),
        "score_after": _rounded(part.spread(after, metric, confidence=confidence).interval(confidence)),
        "difference": _rounded(gap.interval(confidence)),
        "p": gap.p(),
    }


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in asdict(interval).items()}
