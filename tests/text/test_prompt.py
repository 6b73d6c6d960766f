"""The default system prompt speaks the task's terms and says the same each time."""

from __future__ import annotations

from typing import get_args

import pytest

from tunesmith.core.nouns import Kind, Task
from tunesmith.text.prompt import system_prompt

TASK = Task(kind="classify", text="description", label="icd_chapter", audience="clinical coders", tone="terse")


def test_classify_asks_for_one_label_in_the_columns_words() -> None:
    assert system_prompt(TASK, ["Neoplasms", "Injury"], list_labels=False) == (
        "Give the icd chapter of the description. Answer with exactly one icd chapter and nothing else. "
        "Your readers: clinical coders. Tone: terse."
    )


def test_labels_are_listed_in_the_given_order_when_asked() -> None:
    prompt = system_prompt(TASK, ["Neoplasms", "Injury, poisoning"], list_labels=True)
    assert prompt.endswith("\n\nThe possible answers:\n- Neoplasms\n- Injury, poisoning")
    assert system_prompt(TASK, [], list_labels=True) == system_prompt(TASK, [], list_labels=False)


def test_only_classify_lists_labels() -> None:
    for kind in get_args(Kind):
        if kind != "classify":
            task = Task(kind=kind, text="a", label="b")
            assert system_prompt(task, ["X"], list_labels=True) == system_prompt(task, [], list_labels=False)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_a_short_prompt(kind: Kind) -> None:
    prompt = system_prompt(Task(kind=kind), [], list_labels=False)
    assert len(prompt) < 150
    assert (prompt == "") == (kind == "domain")


def test_audience_and_tone_are_left_out_when_empty_and_end_as_sentences() -> None:
    assert system_prompt(Task(kind="chat"), [], list_labels=False) == "You are a helpful assistant."
    prompt = system_prompt(Task(kind="chat", audience="children, aged 8.", tone="warm!"), [], list_labels=False)
    assert prompt == "You are a helpful assistant. Your readers: children, aged 8. Tone: warm!"


def test_the_users_own_prompt_is_taken_as_it_stands() -> None:
    own = Task(kind="classify", system=" Mine.\n", audience="x", tone="y")
    assert system_prompt(own, ["A"], list_labels=True) == " Mine.\n"
    assert system_prompt(Task(kind="chat", system=""), [], list_labels=False) == ""
