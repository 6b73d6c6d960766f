"""What a test set can prove is said before training, by the gate's own bounds."""

from __future__ import annotations

import pytest

from tests.evaluate.built import LABELS, class_rows, measured
from tunesmith.core.nouns import Goal
from tunesmith.evaluate.gate import judge
from tunesmith.evaluate.power import feasibility, prospects

ROWS = class_rows(120, seed=1)
TARGETS, GROUPS = [r.target for r in ROWS], [r.group for r in ROWS]


def look(goal: Goal, count: int = 120, **more: object):
    return prospects([goal], TARGETS[:count], GROUPS[:count], labels=LABELS, **more)[0]  # type: ignore[arg-type]


def test_a_small_test_set_cannot_prove_a_high_goal_and_says_how_many_would() -> None:
    found = look(Goal(metric="accuracy", threshold=0.95), count=20)
    assert not found.provable and found.needed is None
    assert "cannot be proven: even 1.000" in found.sentence and "on 20 items in 10 groups" in found.sentence
    enough = int(found.sentence.split("about ")[1].split()[0])
    rows = class_rows(2 * enough, seed=1)
    again = prospects(
        [Goal(metric="accuracy", threshold=0.95)], [r.target for r in rows], [r.group for r in rows], labels=LABELS
    )
    assert again[0].provable


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_score_that_would_do_does(metric: str) -> None:
    goal = Goal(metric=metric, threshold=0.7)
    found = look(goal)
    assert found.provable and found.needed is not None and 0.7 < found.needed < 0.9
    wrong = {g for g in dict.fromkeys(GROUPS) if int(g.split("-")[1]) % 12 == 0}  # well above what is needed
    said = ["" if g in wrong else t for t, g in zip(TARGETS, GROUPS, strict=True)]
    assert judge([goal], measured(ROWS, {"tuned": said})).status == "pass"


def test_larger_sets_need_less_margin() -> None:
    needed = [look(Goal(metric="macro_f1", threshold=0.6), count=n).needed for n in (30, 60, 120)]
    assert needed[0] > needed[1] > needed[2] > 0.6  # type: ignore[operator]


def test_beating_many_arms_takes_more_independent_items() -> None:
    all_ = ("a", "b", "c", "d")
    few = look(Goal(metric="macro_f1", op="beats", beats=all_), count=12)  # 6 groups
    assert not few.provable and "takes at least 7 independent items, and there are 6" in few.sentence
    one = look(Goal(metric="macro_f1", op="beats", beats=("a",)), count=12)
    assert one.provable and one.needed is not None and one.needed >= 5 / 6
    many = look(Goal(metric="macro_f1", op="beats", beats=all_))
    assert many.provable and many.needed is not None and 0.1 < many.needed < 0.2


@pytest.mark.parametrize(
    "goal, reason",
    [
        (Goal(metric="f1", threshold=0.1, slice="label=chess"), "'chess' is not one of the labels"),
        (Goal(metric="f1", threshold=0.1, slice="label=sports"), "the class 'sports' is not judged: 3 rows"),
        (Goal(metric="accuracy", threshold=0.1, slice="group=none"), "no test item has the group"),
    ],
)
def test_a_goal_on_nothing_is_told_before_training(goal: Goal, reason: str) -> None:
    found = look(goal, not_judged={"sports": "3 rows"})
    assert not found.provable and reason in found.sentence


def test_texts_are_forecast_with_the_assumption_stated() -> None:
    targets = [f"a summary number {i}" for i in range(50)]
    said = feasibility([Goal(metric="rougeL", threshold=0.3)], targets, [str(i) for i in range(50)], kind="summarize")
    assert said == [
        "rougeL >= 0.3: can be proven on 50 items; a score of about 0.335 would do, "
        "if single scores vary by about 0.15 (standard deviation)."
    ]
    blind = feasibility([Goal(metric="rougeL", threshold=0.3)], ["Мяч"] * 50, [str(i) for i in range(50)])
    assert "even 0.000, the score of answers equal to the targets" in blind[0]


def test_an_empty_test_set_proves_nothing() -> None:
    assert feasibility([Goal(metric="accuracy", threshold=0.5)], [], [], labels=LABELS) == [
        "accuracy >= 0.5: cannot be proven: the test set is empty."
    ]
