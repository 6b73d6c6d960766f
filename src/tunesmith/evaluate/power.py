"""Before training: could a test set of this size prove the goals at all?

The same bounds as the gate's, on answers made up: all right, then ever more groups wrong until the goal
is no longer proven. So a goal out of reach is known before hours are spent on it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tunesmith.core.nouns import Goal, Kind
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.words import number, percent
from tunesmith.metrics import catalog
from tunesmith.metrics.statistics import spread

TEXT_SPREAD = 0.15  # assumed standard deviation of a text's score, as a share of the metric's range
DISAGREEMENT = 0.3  # assumed share of items that exactly one of two arms gets right
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What the test set can do for one goal."""

    goal: str
    provable: bool
    needed: float | None  # a score (or a lead, for beats) of about this would be proven
    sentence: str


def feasibility(
    goals: Sequence[Goal],
    targets: Sequence[str],
    groups: Sequence[str],
    *,
    labels: Sequence[str] = (),
    not_judged: Mapping[str, str] | None = None,
    kind: Kind | None = None,
    seed: int = 0,
) -> list[str]:
    """One sentence a goal; see `prospects`."""
    found = prospects(goals, targets, groups, labels=labels, not_judged=not_judged, kind=kind, seed=seed)
    return [p.sentence for p in found]


def prospects(
    goals: Sequence[Goal],
    targets: Sequence[str],
    groups: Sequence[str],
    *,
    labels: Sequence[str] = (),
    not_judged: Mapping[str, str] | None = None,
    kind: Kind | None = None,
    seed: int = 0,
) -> list[Prospect]:
    """`targets` and `groups` of the test rows. `kind` may be left out: classify if there are labels."""
    whole = Measured(
        kind=kind or ("classify" if labels else "instruct"),
        targets=tuple(targets),
        groups=tuple(groups),
        answers={},
        labels=tuple(labels),
        not_judged=not_judged or {},
        resamples=RESAMPLES,
        seed=seed,
    )
    return [prospect(goal, whole) for goal in goals]


def prospect(goal: Goal, whole: Measured) -> Prospect:
    if not whole.targets:
        return _no(goal, "the test set is empty")
    part = whole.slice(goal.slice, goal.metric)
    if isinstance(part, str):
        return _no(goal, part)
    if goal.op == "beats":
        return _lead(goal, part)
    if goal.op == "<=":
        return Prospect(goal=str(goal), provable=True, needed=None, sentence=f"{goal}: an upper limit; not forecast.")
    return _reachable(goal, part)


def _reachable(goal: Goal, part: Measured) -> Prospect:
    say, threshold = number(goal.metric), float(goal.threshold or 0.0)
    perfect, best = _bound(part, part.targets, goal)
    if best < threshold:
        more = _items_for_perfect(part, best, perfect, threshold)
        return _no(
            goal,
            f"even {say(perfect)}, the score of answers equal to the targets, would only show at least {say(best)} "
            f"on {part}{more}",
        )
    if "labels" in catalog.find(goal.metric).needs:
        needed = _smallest_proven(goal, part, threshold)
        assumed = ""
    else:
        deviation = TEXT_SPREAD * catalog.find(goal.metric).highest
        z = NormalDist().inv_cdf(goal.confidence)
        needed = min(perfect, threshold + z * deviation / math.sqrt(len(set(part.groups))))
        assumed = f", if single scores vary by about {deviation:g} (standard deviation)"
    sentence = f"{goal}: can be proven on {part}; a score of about {say(needed)} would do{assumed}."
    return Prospect(goal=str(goal), provable=True, needed=needed, sentence=sentence)


def _bound(part: Measured, answers: Sequence[str], goal: Goal) -> tuple[float, float]:
    """A score and its one-sided lower bound."""
    found = spread(part.measure(answers, goal.metric), part.resampler(goal.confidence))
    return found.value, found.lower(goal.confidence)


def _smallest_proven(goal: Goal, part: Measured, threshold: float) -> float:
    """By bisection over how many items are wrong, whole groups first to last: alike items fail together."""
    order = _shuffled_by_group(part)
    enough, too_many = 0, len(order)
    score = _bound(part, part.targets, goal)[0]
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        value, lower = _bound(part, _with_mistakes(part, order[:middle]), goal)
        if lower >= threshold:
            enough, score = middle, value
        else:
            too_many = middle
    return score


def _shuffled_by_group(part: Measured) -> list[int]:
    members: dict[str, list[int]] = {}
    for i, group in enumerate(part.groups):
        members.setdefault(group, []).append(i)
    names = sorted(members)
    random.Random(part.seed).shuffle(names)
    return [i for name in names for i in members[name]]


def _with_mistakes(part: Measured, wrong: Sequence[int]) -> list[str]:
    """The targets, with those items answered by another class, drawn in the proportions of the data."""
    rng = random.Random(part.seed + 1)
    answers = list(part.targets)
    classes = list(part.targets)
    for i in wrong:
        other = next((c for c in rng.choices(classes, k=20) if c != part.targets[i]), "")
        answers[i] = other
    return answers


def _items_for_perfect(part: Measured, best: float, perfect: float, threshold: float) -> str:
    if perfect <= threshold or best >= perfect:
        return ""
    needed = math.ceil(part.size * (perfect - best) / (perfect - threshold))
    return f"; about {needed:,} items would be needed"


def _lead(goal: Goal, part: Measured) -> Prospect:
    """A comparison rests on items that the arms answer differently: the sign test's smallest number of them."""
    strictest = (1 - goal.confidence) / len(goal.beats)
    units = len(set(part.groups))
    fewest = math.ceil(-math.log2(strictest))
    against = f"{len(goal.beats)} arm{'' if len(goal.beats) == 1 else 's'} at {percent(goal.confidence)} confidence"
    if units < fewest:
        return _no(goal, f"beating {against} takes at least {fewest} independent items, and there are {units}")
    if not catalog.find(goal.metric).higher_is_better:
        how = (
            f"{units} independent items are enough to prove a lead that most of them share; how large, is not forecast"
        )
        return Prospect(goal=str(goal), provable=True, needed=None, sentence=f"{goal}: {how}.")
    lead = max(fewest / units, NormalDist().inv_cdf(1 - strictest) * math.sqrt(DISAGREEMENT / units))
    lead *= catalog.find(goal.metric).highest
    sentence = (
        f"{goal}: can be proven on {part}; a lead of about {number(goal.metric)(lead)} would do, "
        f"if the arms disagree on {round(10 * DISAGREEMENT)} items in 10."
    )
    return Prospect(goal=str(goal), provable=True, needed=lead, sentence=sentence)


def _no(goal: Goal, why: str) -> Prospect:
    return Prospect(goal=str(goal), provable=False, needed=None, sentence=f"{goal}: cannot be proven: {why}.")
