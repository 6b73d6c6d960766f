"""The gate: may this model ship? Every goal gets pass, fail or not enough evidence, and a reason.

A threshold goal passes when the one-sided bound of the score clears it, fails when the other bound is
on the wrong side, and is unproven between. `beats` is a paired comparison with each named arm, Holm-corrected.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.goals import warnings
from tunesmith.core.nouns import Goal, GoalResult, Interval, Status, Task, Verdict
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.stages import GateInputs, GateOutputs, GateSpec
from tunesmith.evaluate.words import Say, number, percent, side, signed
from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import Spread, holm, items_needed

COST_ORDER = ("majority", "lead", "tfidf", "zero_shot", "few_shot")  # cheapest first
SHOWN = 0.95  # of the two-sided intervals shown beside a one-sided decision
FAR = 50  # more than so many times the items: not a matter of more test data


def gate(spec: GateSpec, inputs: GateInputs, work: Workspace) -> GateOutputs:
    """Raises InputError for goals that can never be judged (unknown metric, wrong kind of task)."""
    measured = Measured.of_report(inputs.report, resamples=spec.resamples, seed=spec.seed)
    verdict = judge(spec.goals, measured)
    out = work.scratch / "verdict"
    out.mkdir(exist_ok=True)
    write_atomic(out / "verdict.json", canonical_json(verdict))
    work.summarize(status=verdict.status, goals={g.goal: g.status for g in verdict.goals})
    return GateOutputs(verdict=out)


def judge(goals: Sequence[Goal], measured: Measured) -> Verdict:
    """The tuned arm against every goal."""
    refuse_unjudgeable(goals, measured)
    results = tuple(judge_goal(goal, measured, "tuned") for goal in goals)
    advice = [*warnings(Task(kind=measured.kind), goals)]
    if not goals:
        usual = catalog.USUAL[measured.kind][0]
        advice.append(f"Set a goal in tunesmith.yaml, for example `goals: [{usual} {_plausible(usual, measured)}]`.")
    advice += cheaper_arm(goals, measured)
    return Verdict(status=overall([r.status for r in results]), goals=results, advice=tuple(advice))


def overall(statuses: Sequence[Status]) -> Status:
    """Any failed goal fails the whole, any unproven one leaves it unproven; so does having none."""
    if "fail" in statuses:
        return "fail"
    return "unproven" if "unproven" in statuses or not statuses else "pass"


def refuse_unjudgeable(goals: Sequence[Goal], measured: Measured) -> None:
    problems: list[Problem] = []
    for i, goal in enumerate(goals):
        try:
            catalog.find(goal.metric, measured.kind)
        except InputError as e:
            problems += [Problem(where=f"goals[{i}]", what=p.what, fix=p.fix) for p in e.problems]
    if measured.answers and "tuned" not in measured.answers:
        problems.append(Problem(where="report", what="has no answers of the tuned model", fix="tunesmith train"))
    if problems:
        raise InputError(problems)


def judge_goal(goal: Goal, measured: Measured, arm: str) -> GoalResult:
    part = measured.slice(goal.slice, goal.metric)
    if isinstance(part, str):
        return _result(goal, "unproven", None, f"Not judged: {part}.", "add test items for it, or drop the goal")
    return judge_beats(goal, part, arm) if goal.op == "beats" else judge_threshold(goal, part, arm)


def judge_threshold(goal: Goal, part: Measured, arm: str) -> GoalResult:
    """Passes by the bound on the near side of the threshold, fails by the one on the far side."""
    threshold = float(goal.threshold or 0.0)
    found = part.spread(arm, goal.metric, confidence=goal.confidence)
    lower, upper = found.lower(goal.confidence), found.upper(goal.confidence)
    near, far = (lower, upper) if goal.op == ">=" else (upper, lower)
    clears = lower >= threshold if goal.op == ">=" else upper <= threshold
    misses = upper < threshold if goal.op == ">=" else lower > threshold
    shown, sure = found.interval(SHOWN), percent(goal.confidence)
    say = number(goal.metric)
    start = f"{goal.metric} is {say(found.value)} on {part}{_classes(goal, part)}"
    if clears:
        return _result(
            goal,
            "pass",
            shown,
            f"{start}; with {sure} confidence it is {side(goal, say(near))}, which clears {say(threshold)}.",
            "",
        )
    if misses:
        other = "at most" if goal.op == ">=" else "at least"
        because = f"{start}; with {sure} confidence it is {other} {say(far)}, on the wrong side of {say(threshold)}."
        return _result(goal, "fail", shown, because, _improve(goal, abs(threshold - found.value), say))
    because = f"{start}; with {sure} confidence it is only known to be {side(goal, say(near))}, and {say(threshold)} is asked for."
    return _result(goal, "unproven", shown, because, _settle(found.value, near, far, threshold, part, say))


def judge_beats(goal: Goal, part: Measured, arm: str) -> GoalResult:
    """Passes when each difference is on the better side of zero after Holm, fails when one is on the other side."""
    missing = [a for a in goal.beats if a not in part.answers]
    if missing:
        because = f"Not judged: there are no answers of {', '.join(missing)} on this test set."
        return _result(goal, "unproven", None, because, "tunesmith baselines")
    tests = len(goal.beats)
    found = {b: part.difference(arm, b, goal.metric, confidence=goal.confidence, tests=tests) for b in goal.beats}
    higher = catalog.find(goal.metric).higher_is_better
    above = dict(zip(found, holm([s.p_above(0.0) for s in found.values()]), strict=True))
    below = dict(zip(found, holm([s.p_below(0.0) for s in found.values()]), strict=True))
    better, worse = (above, below) if higher else (below, above)
    limit = 1 - goal.confidence + 1e-9
    lost = [b for b in found if worse[b] <= limit]
    open_ = [b for b in found if better[b] > limit]
    status: Status = "fail" if lost else "unproven" if open_ else "pass"
    closest = min(lost or open_ or list(found), key=lambda b: found[b].value if higher else -found[b].value)
    shown = found[closest].interval(SHOWN)
    say = number(goal.metric)
    p = worse[closest] if lost else better[closest]
    because = (
        f"{goal.metric} differs from {closest}'s by {signed(shown.value, say)} "
        f"({percent(SHOWN)} interval {signed(shown.low, say)} to {signed(shown.high, say)}) on {part}, "
        f"paired, one-sided p = {p:.2g}{' after Holm' if tests > 1 else ''}: "
    )
    others = [b for b in found if b not in open_ and b not in lost]
    if status == "pass":
        because += "better beyond doubt" + (
            f", as it is against {', '.join(b for b in others if b != closest)}." if tests > 1 else "."
        )
        return _result(goal, status, shown, because, "")
    if status == "fail":
        return _result(goal, status, shown, because + "worse beyond doubt.", f"use {closest}, or train better")
    because += "this could be chance" + (f"; it does beat {', '.join(others)}." if others else ".")
    return _result(goal, status, shown, because, _settle_difference(found[closest], goal, part))


def cheaper_arm(goals: Sequence[Goal], measured: Measured) -> list[str]:
    """The cheapest arm that already meets every threshold goal, as advice."""
    thresholds = [g for g in goals if g.op != "beats"]
    if not thresholds:
        return []
    for arm in COST_ORDER:
        if arm not in measured.answers:
            continue
        results = [judge_goal(goal, measured, arm) for goal in thresholds]
        if all(r.status == "pass" for r in results):
            first = results[0]
            value = number(first.metric)(first.measured.value if first.measured else 0.0)
            return [
                f"{arm} already meets every threshold goal ({first.metric} {value}) and is cheaper: "
                "do not fine-tune unless being better than that is worth its cost."
            ]
    return []


def _settle(value: float, near: float, far: float, threshold: float, part: Measured, say: Say) -> str:
    """How many more items would settle a threshold goal, if the score stays what it is."""
    needed = items_needed(value, near, threshold, part.size)
    if needed is not None and needed <= FAR * part.size:
        return f"label about {_more(needed, part)}: if the score stays {say(value)}, that would show it"
    failing = items_needed(value, far, threshold, part.size)
    if failing is not None and failing <= FAR * part.size:
        return (
            f"the score has to improve by {say(abs(threshold - value))} or more; "
            f"about {_more(failing, part)} would show that it misses the goal"
        )
    return "the score is too close to the threshold for any realistic test set: improve it, or ask for less"


def _settle_difference(found: Spread, goal: Goal, part: Measured) -> str:
    strictest = 1 - (1 - goal.confidence) / len(goal.beats)
    higher = catalog.find(goal.metric).higher_is_better
    bound = found.lower(strictest) if higher else found.upper(strictest)
    needed = items_needed(found.value, bound, 0.0, part.size)
    if needed is None or needed > FAR * part.size:
        return "the two are as good as equal on this test set: train better, or use the cheaper one"
    return f"label about {_more(needed, part)}: if the difference stays, that would show it"


def _more(needed: int, part: Measured) -> str:
    """A number of further test items, rounded to what such a forecast can claim."""
    more = max(1, needed - part.size)
    step = 1 if more < 20 else 5 if more < 100 else 10 if more < 1000 else 100
    rounded = -(-more // step) * step
    return f"{rounded:,} more test item{'' if rounded == 1 else 's'}" + (f" of {part.only[0]}" if part.only else "")


def _improve(goal: Goal, gap: float, say: Say) -> str:
    way, weak = ("rise", "the mistakes and the weak classes") if goal.op == ">=" else ("fall", "the weakest items")
    return f"the score has to {way} by about {say(gap)}: `tunesmith report` lists {weak}"


def _classes(goal: Goal, part: Measured) -> str:
    metric = catalog.METRICS[goal.metric]
    if not metric.by_class or part.only or len(part.judged) == len(part.labels):
        return ""
    return f" over {len(part.judged)} of {len(part.labels)} classes (the others are not judged)"


def _plausible(metric: str, measured: Measured) -> str:
    found = catalog.find(metric)
    if not found.higher_is_better:
        return "<= 1.0"
    return ">= 0.7" if found.highest == 1.0 else ">= 30"


def _result(goal: Goal, status: Status, measured: Interval | None, because: str, next: str) -> GoalResult:
    return GoalResult(goal=str(goal), metric=goal.metric, status=status, measured=measured, because=because, next=next)
