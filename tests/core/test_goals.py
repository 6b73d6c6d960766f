"""Goals as people write them, and every way to write them wrong."""

from __future__ import annotations

from typing import get_args

import pytest

from tunesmith.core.errors import InputError
from tunesmith.core.goals import ARMS, ARMS_OF, USUAL_METRIC, metrics_of, parse_goals, usual_arms, warnings
from tunesmith.core.nouns import Goal, Kind, Task
from tunesmith.core.settings import EvaluateSettings, GoalSettings
from tunesmith.metrics import catalog

CLASSIFY = Task(kind="classify", group="patient")


def parsed(*goals: str | GoalSettings, task: Task = CLASSIFY) -> tuple[Goal, ...]:
    return parse_goals(goals, task, usual_arms(task.kind))


def complaint(*goals: str | GoalSettings, task: Task = CLASSIFY, arms: tuple[str, ...] | None = None) -> str:
    with pytest.raises(InputError) as e:
        parse_goals(goals, task, usual_arms(task.kind) if arms is None else arms)
    return str(e.value)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("macro_f1 >= 0.70", Goal(metric="macro_f1", threshold=0.7)),
        ("macro_f1>=.7", Goal(metric="macro_f1", threshold=0.7)),
        ("  accuracy  <=  9e-1 ", Goal(metric="accuracy", op="<=", threshold=0.9)),
        ("f1 >= 0.2 @ label=sports", Goal(metric="f1", threshold=0.2, slice="label=sports")),
        ("accuracy >= 0.2 @ group = C50", Goal(metric="accuracy", threshold=0.2, slice="group=C50")),
        ("accuracy >= 0.2 @ label=a @ b = c", Goal(metric="accuracy", threshold=0.2, slice="label=a @ b = c")),
    ],
)
def test_short_goals(text: str, want: Goal) -> None:
    assert parsed(text) == (want,)


def test_long_goals() -> None:
    said = GoalSettings(metric="accuracy", at_least=0.8, slice="group=C50", confidence=0.9)
    assert parsed(said) == (Goal(metric="accuracy", threshold=0.8, slice="group=C50", confidence=0.9),)
    assert parsed(GoalSettings(metric="accuracy", at_most=0.8)) == (Goal(metric="accuracy", op="<=", threshold=0.8),)


def test_beats_means_the_first_bars_metric_or_the_usual_one() -> None:
    beats = GoalSettings(beats=["tfidf"])
    assert parsed(beats, "accuracy >= 0.5", "macro_f1 >= 0.5")[0].metric == "accuracy"
    assert parsed(beats)[0].metric == "macro_f1"
    assert parsed(GoalSettings(beats=["tfidf"], metric="micro_f1"), "accuracy >= 0.5")[0].metric == "micro_f1"
    summary = parsed(GoalSettings(beats=["lead"]), task=Task(kind="summarize"))
    assert summary == (Goal(metric="rougeLsum", op="beats", beats=("lead",)),)


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ("macro_f1", '"macro_f1" is not a goal\n  fix:   write macro_f1 >= 0.70'),
        ("macro_f1 > 0.7", "is not a goal"),
        ("macro_f1 == 0.7", "is not a goal"),
        ("", '"" is not a goal'),
        ("macro_f1 >= high", '"high" in "macro_f1 >= high" is not a number'),
        ("macro_f1 >= nan", '"nan" in'),
        ("macro_f1 >= 1_0", "is not a number"),
        ("macrof1 >= 0.7", "macrof1 is not a metric\n  fix:   Did you mean macro_f1?"),
        ("Macro_F1 >= 0.7", "Did you mean macro_f1?"),
        ("rougeL >= 0.2", "rougeL is not for classify tasks"),
        ("macro_f1 >= 70", "macro_f1 lies between 0 and 1, so 70 says nothing\n  fix:   write macro_f1 >= 0.7"),
        ("macro_f1 >= -1", "macro_f1 lies between 0 and 1"),
        ("f1 >= 0.7", "f1 is of one class, and the goal names none"),
        ("macro_f1 >= 0.7 @ sports", 'slice "sports" is not column=value'),
        ("macro_f1 >= 0.7 @", 'slice "" is not column=value'),
        ("macro_f1 >= 0.7 @ labl=x", "slice column labl is not known\n  fix:   Did you mean label?"),
        (GoalSettings(beats=[]), "beats names no arm"),
        (GoalSettings(), "says none of at_least, at_most and beats"),
        (GoalSettings(metric="accuracy", at_least=1, at_most=0), "says at_least and at_most: only one of"),
        (GoalSettings(at_least=0.5), "says at_least but not of which metric"),
        (GoalSettings(beats=["tfdif"]), "beats names tfdif: there is no such arm\n  fix:   Did you mean tfidf?"),
        (GoalSettings(beats=["tuned"]), "beats names tuned, which is the model the goal is about"),
        (GoalSettings(beats=["tfidf", "tfidf"]), "beats names tfidf twice"),
        (GoalSettings(beats=["lead"]), "beats names lead: it cannot do a classify task"),
    ],
)
def test_a_wrong_goal_says_what_to_write(goal: str | GoalSettings, says: str) -> None:
    message = complaint(goal)
    assert says in message
    assert message.startswith("goals[0]: ")


def test_every_wrong_goal_is_named_at_once() -> None:
    message = complaint("macrof1 >= 0.7", "accuracy >= 0.5", "accuracy >= x")
    assert [line[:8] for line in message.splitlines() if line.startswith("goals")] == ["goals[0]", "goals[2]"]


def test_slices_must_exist() -> None:
    no_group = Task(kind="classify", labels=("sports", "politics"))
    assert "task.group names no column" in complaint("accuracy >= 0.5 @ group=x", task=no_group)
    message = complaint("accuracy >= 0.5 @ label=sport", task=no_group)
    assert "names class sport, which task.labels does not\n  fix:   Did you mean sports?" in message
    assert "has no classes to slice by" in complaint("rougeL >= 0.1 @ label=x", task=Task(kind="summarize"))


def test_an_arm_left_out_of_the_comparison_cannot_be_beaten() -> None:
    message = complaint(GoalSettings(beats=["tfidf"]), arms=("majority",))
    assert "beats names tfidf, which evaluate.arms leaves out" in message


def test_a_domain_task_is_judged_by_how_well_it_predicts_texts() -> None:
    domain = Task(kind="domain")
    assert parsed("bits_per_byte <= 1.2", task=domain) == (Goal(metric="bits_per_byte", op="<=", threshold=1.2),)
    assert "rougeL is not for domain tasks" in complaint("rougeL >= 0.1", task=domain)
    assert "is better when lower" in complaint("perplexity >= 20", task=domain)
    assert "write perplexity <= 20" in complaint("perplexity >= 20", task=domain)
    assert "bits_per_byte lies above 0" in complaint("bits_per_byte <= -1", task=domain)


def test_one_automatic_metric_for_a_summary_is_warned_about() -> None:
    summary, chat = Task(kind="summarize"), Task(kind="chat")
    one = parsed("rougeL >= 0.2", GoalSettings(beats=["zero_shot"]), task=summary)
    assert "Every goal rests on rougeL" in warnings(summary, one)[0]
    assert "faithful" in warnings(summary, one)[0]
    assert "conversation" in warnings(chat, parsed("chrf >= 20", task=chat))[0]
    assert warnings(summary, parsed("rougeL >= 0.2", "chrf >= 20", task=summary)) == ()
    assert warnings(CLASSIFY, parsed("macro_f1 >= 0.2")) == ()
    assert "There are no goals" in warnings(CLASSIFY, ())[0]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_has_metrics_and_arms_that_exist(kind: Kind) -> None:
    assert set(metrics_of(kind)) == {m.name for m in catalog.METRICS.values() if kind in m.kinds}
    assert USUAL_METRIC[kind] == next(iter(catalog.USUAL[kind]), "")
    assert set(ARMS_OF[kind]) <= set(ARMS)


def test_settings_accept_just_the_known_arms() -> None:
    for arm in ARMS:
        assert EvaluateSettings.model_validate({"arms": [arm]}).arms == [arm]
