"""Templates of a user's turn: strict placeholders, and literal braces where they are doubled."""

from __future__ import annotations

import pytest

from tunesmith.core.wording import filled, problem_of


def test_the_user_s_text_is_put_in_as_it_stands() -> None:
    assert filled("{text}", {"text": "{a} {0} %s"}) == "{a} {0} %s"  # braces of people's texts are text
    assert filled('Answer as {{"x": 1}}: {text} ({unit})', {"text": "7", "unit": "kg"}) == 'Answer as {"x": 1}: 7 (kg)'


@pytest.mark.parametrize(
    ("wording", "said"),
    [
        ("{txt}", "{txt} is not known, did you mean {text}? (fields: source, text)"),
        ("{text} of {sorce}", "did you mean {source}?"),
        ("Say it.", "does not hold {text}"),
        ("{text!r}", "no name of a field"),
        ("{text:>5}", "no name of a field"),
        ("{text.upper} {}", "no name of a field"),
        ("{", "Single '{'"),
        ("{text} }", "Single '}'"),
    ],
)
def test_what_names_no_field_is_refused(wording: str, said: str) -> None:
    assert said.lower() in problem_of(wording, {"text", "source"}).lower()


def test_what_can_be_used_has_no_problem() -> None:
    assert problem_of("{{}} {text} {source}", {"text", "source"}) == ""
