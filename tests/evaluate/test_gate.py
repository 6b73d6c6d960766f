"""The gate's truth table, its sentences, and what must never happen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.built import LABELS, class_rows, make_report, make_row, measured, say
from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Goal, Verdict
from tunesmith.core.stage import Workspace
from tunesmith.evaluate.gate import gate, judge, overall
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.stages import GateInputs, GateSpec

ROWS = class_rows(120, seed=1, group_size=1)
ORDER = {"fail": 0, "unproven": 1, "pass": 2}


def at(share: float, salt: int = 0) -> list[str]:
    """Answers of which that share is right, spread evenly over the items."""
    return say(ROWS, lambda i: (i * 61 + salt * 37) % 120 < share * 120)


def threshold(bar: float, **more: object) -> Goal:
    return Goal(metric="accuracy", threshold=bar, **more)  # type: ignore[arg-type]


def one(goal: Goal, items: Measured):
    return judge([goal], items).goals[0]


@pytest.mark.parametrize(
    "bar, status",
    [
        (0.60, "pass"),
        (0.72, "pass"),
        (0.79, "unproven"),
        (0.80, "unproven"),
        (0.85, "unproven"),
        (0.88, "fail"),
        (0.99, "fail"),
    ],
)
def test_a_threshold_passes_by_its_lower_bound_and_fails_by_its_upper(bar: float, status: str) -> None:
    result = one(threshold(bar), measured(ROWS, {"tuned": at(0.8)}))
    assert result.status == status
    assert result.measured is not None and result.measured.value == pytest.approx(0.8)
    assert (result.next == "") == (status == "pass")


@pytest.mark.parametrize("bar, status", [(0.95, "pass"), (0.82, "unproven"), (0.60, "fail")])
def test_an_upper_limit_is_judged_the_other_way_round(bar: float, status: str) -> None:
    assert one(threshold(bar, op="<="), measured(ROWS, {"tuned": at(0.8)})).status == status


def test_a_perfect_score_on_few_items_is_not_a_pass() -> None:
    rows = class_rows(6, seed=2, group_size=1)
    result = one(threshold(0.9), measured(rows, {"tuned": [r.target for r in rows]}))
    assert result.status == "unproven" and result.measured is not None and result.measured.value == 1.0
    assert "only known to be at least 0.6" in result.because
    assert result.next.startswith("label about ") and "more test items" in result.next


def test_alike_items_prove_less() -> None:
    alone, grouped = class_rows(120, seed=3, group_size=1), class_rows(120, seed=3, group_size=12)
    right = [i // 12 % 5 > 0 for i in range(120)]
    goal = threshold(0.70)
    said = {"tuned": say(alone, lambda i: right[i])}
    assert one(goal, measured(alone, said)).status == "pass"
    assert one(goal, measured(alone, said, groups=tuple(r.group for r in grouped))).status == "unproven"


@pytest.mark.parametrize(
    "other, status, words",
    [
        (0.5, "pass", "better beyond doubt"),
        (0.78, "unproven", "this could be chance"),
        (0.97, "fail", "worse beyond doubt"),
    ],
)
def test_beats_is_a_paired_comparison(other: float, status: str, words: str) -> None:
    goal = Goal(metric="accuracy", op="beats", beats=("tfidf",))
    result = one(goal, measured(ROWS, {"tuned": at(0.8), "tfidf": at(other, salt=1)}))
    assert result.status == status and words in result.because and "paired" in result.because


def test_beats_needs_every_arm_and_names_the_one_that_is_open() -> None:
    arms = {"tuned": at(0.8), "majority": at(0.33, 2), "tfidf": at(0.78, 1)}
    result = one(Goal(metric="accuracy", op="beats", beats=("majority", "tfidf")), measured(ROWS, arms))
    assert result.status == "unproven"
    assert "tfidf's" in result.because and "it does beat majority" in result.because


def test_more_arms_to_beat_ask_for_stronger_evidence() -> None:
    """Holm: what is enough against one arm may not be against one of five."""
    rows = class_rows(60, seed=4, group_size=1)
    tuned, other = [r.target for r in rows], say(rows, lambda i: i >= 5)  # 5 better, 0 worse: p = 1/32
    arms = {"tuned": tuned, "tfidf": other, "majority": other, "zero_shot": other, "few_shot": other, "lead": other}
    alone = Goal(metric="accuracy", op="beats", beats=("tfidf",))
    assert one(alone, measured(rows, arms, resamples=4000)).status == "pass"
    all_ = Goal(metric="accuracy", op="beats", beats=("tfidf", "majority", "zero_shot", "few_shot", "lead"))
    assert one(all_, measured(rows, arms, resamples=4000)).status == "unproven"


def test_an_arm_that_was_not_run_leaves_the_goal_unproven() -> None:
    result = one(Goal(metric="accuracy", op="beats", beats=("few_shot",)), measured(ROWS, {"tuned": at(0.8)}))
    assert result.status == "unproven" and result.measured is None
    assert "no answers of few_shot" in result.because and result.next == "tunesmith baselines"


@pytest.mark.parametrize(
    "slice_, metric, reason",
    [
        ("label=chess", "f1", "'chess' is not one of the labels"),
        ("label=politics", "f1", "the class 'politics' is not judged: 3 rows"),
        ("label=sports", "accuracy", "no test item has the label 'sports'"),
        ("group=nowhere", "accuracy", "no test item has the group 'nowhere'"),
        ("colour=red", "accuracy", "the report has no column 'colour'"),
        ("all", "f1", "f1 is the score of one class"),
    ],
)
def test_a_slice_that_cannot_be_judged_is_unproven_and_says_why(slice_: str, metric: str, reason: str) -> None:
    rows = [r for r in ROWS if r.target != "sports"]
    items = measured(rows, {"tuned": [r.target for r in rows]}, not_judged={"politics": "3 rows"})
    result = one(Goal(metric=metric, threshold=0.1, slice=slice_), items)
    assert result.status == "unproven" and result.measured is None and reason in result.because


def test_a_class_goal_counts_what_was_wrongly_taken_for_the_class() -> None:
    rows = [make_row(f"{i}", "sports" if i < 20 else "business") for i in range(60)]
    items = measured(rows, {"tuned": ["sports"] * 40 + ["business"] * 20})
    f1 = one(Goal(metric="f1", threshold=0.99, slice="label=sports"), items)
    assert f1.measured is not None and f1.measured.value == pytest.approx(2 * 20 / (20 + 40))
    assert "20 items" in f1.because
    recall = one(Goal(metric="accuracy", threshold=0.5, slice="label=sports"), items)
    assert recall.measured is not None and recall.measured.value == 1.0 and recall.status == "pass"


def test_within_one_group_its_items_are_the_sample() -> None:
    rows = [make_row(f"{i}", LABELS[i % 3], group="C50" if i < 60 else f"other {i}") for i in range(90)]
    result = one(
        Goal(metric="accuracy", threshold=0.9, slice="group=C50"), measured(rows, {"tuned": [r.target for r in rows]})
    )
    assert result.status == "pass" and "60 items" in result.because


@pytest.mark.parametrize(
    "statuses, want",
    [
        (["pass", "pass"], "pass"),
        (["pass", "unproven"], "unproven"),
        (["pass", "fail"], "fail"),
        (["unproven", "fail"], "fail"),
        (["unproven"], "unproven"),
        ([], "unproven"),
    ],
)
def test_any_fail_fails_and_any_doubt_leaves_doubt(statuses: list, want: str) -> None:
    assert overall(statuses) == want


def test_no_goals_prove_nothing_and_one_is_told_to_set_one() -> None:
    verdict = judge([], measured(ROWS, {"tuned": at(0.8)}))
    assert verdict.status == "unproven" and verdict.exit_code == 3
    assert any("Set a goal in tunesmith.yaml, for example `goals: [macro_f1 >= 0.7]`" in a for a in verdict.advice)


def test_the_cheapest_arm_that_meets_the_thresholds_is_named() -> None:
    goals = [threshold(0.6), Goal(metric="accuracy", op="beats", beats=("tfidf",))]
    arms = {"few_shot": at(0.9), "tfidf": at(0.8), "majority": at(0.33), "tuned": at(0.97)}
    advice = judge(goals, measured(ROWS, arms)).advice
    assert [a for a in advice if "do not fine-tune" in a] == [
        "tfidf already meets every threshold goal (accuracy 0.800) and is cheaper: "
        "do not fine-tune unless being better than that is worth its cost."
    ]
    arms["tfidf"] = arms["few_shot"] = at(0.6)
    assert not any("do not fine-tune" in a for a in judge(goals, measured(ROWS, arms)).advice)


def test_a_summary_gate_on_one_metric_is_warned_about() -> None:
    rows = [make_row(f"text {i}", f"the short summary {i}") for i in range(40)]
    items = measured(rows, {"tuned": [r.target for r in rows]}, kind="summarize", labels=())
    verdict = judge([Goal(metric="rougeL", threshold=0.2)], items)
    assert verdict.status == "pass" and any("One automatic metric" in a for a in verdict.advice)


def test_goals_that_can_never_be_judged_are_refused_all_at_once() -> None:
    goals = [Goal(metric="rogue1", threshold=0.2), threshold(0.5), Goal(metric="rouge1", threshold=0.2)]
    with pytest.raises(InputError) as e:
        judge(goals, measured(ROWS, {"tuned": at(0.5)}))
    assert [p.where for p in e.value.problems] == ["goals[0]", "goals[2]"]
    assert "there is no metric 'rogue1'" in str(e.value) and "rouge1 cannot judge a classify task" in str(e.value)
    with pytest.raises(InputError, match="no answers of the tuned model"):
        judge([threshold(0.5)], measured(ROWS, {"tfidf": at(0.5)}))


@settings(max_examples=40, deadline=None)
@given(
    right=st.floats(0, 1),
    bars=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
    metric=st.sampled_from(["accuracy", "macro_f1"]),
)
def test_raising_a_threshold_never_improves_a_verdict(
    right: float, bars: tuple[float, float], confidence: float, metric: str
) -> None:
    low, high = sorted(bars)
    items = measured(ROWS[:30], {"tuned": at(right)[:30]}, resamples=150)
    easy = one(Goal(metric=metric, threshold=low, confidence=confidence), items)
    hard = one(Goal(metric=metric, threshold=high, confidence=confidence), items)
    assert ORDER[hard.status] <= ORDER[easy.status]


@settings(max_examples=20, deadline=None)
@given(right=st.floats(0.3, 1), bar=st.floats(0, 1))
def test_asking_for_more_confidence_never_decides_more(right: float, bar: float) -> None:
    items = measured(ROWS[:30], {"tuned": at(right)[:30]}, resamples=2000)
    lax = one(threshold(bar, confidence=0.8), items).status
    strict = one(threshold(bar, confidence=0.99), items).status
    assert strict in (lax, "unproven")


def test_the_stage_reads_a_report_and_writes_the_same_verdict_each_time(tmp_path: Path) -> None:
    report = make_report(tmp_path / "r", ROWS, {"tuned": at(0.8), "tfidf": at(0.6, 1)})
    goals = (Goal(metric="macro_f1", threshold=0.6), Goal(metric="macro_f1", op="beats", beats=("tfidf",)))
    spec = GateSpec(goals=goals, resamples=500, seed=3)
    folders = [gate(spec, GateInputs(report=report), Workspace(root=tmp_path / name)).verdict for name in "ab"]
    first, second = ((f / "verdict.json").read_bytes() for f in folders)
    assert first == second
    verdict = read_json(folders[0] / "verdict.json", Verdict)
    assert verdict.status == "pass" and [g.goal for g in verdict.goals] == ["macro_f1 >= 0.6", "beats tfidf"]


def test_empty_and_unparseable_answers_fail_and_break_nothing() -> None:
    items = measured(ROWS, {"tuned": ["", "??", "\x00"] * 40, "tfidf": at(0.8)})
    verdict = judge([threshold(0.5), Goal(metric="macro_f1", op="beats", beats=("tfidf",))], items)
    assert [g.status for g in verdict.goals] == ["fail", "fail"]
    assert verdict.goals[0].measured is not None and verdict.goals[0].measured.value == 0.0
