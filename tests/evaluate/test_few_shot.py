"""Few-shot examples: balanced, seeded, from train, chosen on validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.evaluate.built import LABELS, class_rows, make_row
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Answer, Message, Row
from tunesmith.evaluate.few_shot import Prompt, Room, as_turns, choose, draw_examples, with_examples
from tunesmith.evaluate.stages import ArmSpec

TRAIN, VALIDATION, TEST = class_rows(60, seed=1), class_rows(30, seed=2), class_rows(12, seed=3)
WIDE = Room(context=None, answer=1, length=lambda p: 0)


def spec(**changes: object) -> ArmSpec:
    values: dict = {
        "arm": "few_shot",
        "kind": "classify",
        "split": "test",
        "system": "s",
        "few_shot_counts": (3, 6),
        "few_shot_draws": 2,
        "few_shot_rows": 10,
        "precision": "fp32",
        "max_new_tokens": 8,
        "max_tokens": 0,
        "probabilities": True,
        "metric": "accuracy",
        "seed": 0,
    }
    return ArmSpec(**{**values, **changes})


def test_a_draw_holds_every_class_before_one_comes_twice_and_no_group_twice() -> None:
    for count, most in ((2, 1), (3, 1), (6, 2), (7, 3)):
        picked = draw_examples(TRAIN, LABELS, count, seed="0")
        assert len(picked) == count and len({r.group for r in picked}) == count
        assert max(Counter(r.target for r in picked).values()) <= most
    assert draw_examples(TRAIN, LABELS, 6, seed="0") == draw_examples(TRAIN, LABELS, 6, seed="0")
    assert draw_examples(TRAIN, LABELS, 6, seed="0") != draw_examples(TRAIN, LABELS, 6, seed="1")


def test_a_draw_of_more_rows_than_groups_or_rows_takes_what_there_is() -> None:
    rows = class_rows(6, seed=1, group_size=3)
    assert len(draw_examples(rows, LABELS, 4, seed="0")) == 4
    assert sorted(r.id for r in draw_examples(rows, (), 99, seed="0")) == sorted(r.id for r in rows)


def test_examples_are_earlier_turns_after_the_rows_own_system_prompt() -> None:
    shot = make_row("Q", "A")
    own = (Message(role="system", content="mine"), Message(role="user", content="q"))
    assert [(m.role, m.content) for m in with_examples(as_turns([shot]), own)] == [
        ("system", "mine"),
        ("user", "Q"),
        ("assistant", "A"),
        ("user", "q"),
    ]


def test_validation_chooses_and_the_test_rows_never_do() -> None:
    """The answerer is right only if it is shown six examples, of the second draw."""
    wanted = [r.id for r in draw_examples(TRAIN, LABELS, 6, seed="0:6:1")]
    tried_rows: set[str] = set()

    def try_out(rows: Sequence[Row], examples: Prompt, name: str) -> list[Answer]:
        tried_rows.update(r.id for r in rows)
        good = examples == as_turns([r for i in wanted for r in TRAIN if r.id == i])
        return [Answer(text=r.target if good else "sports") for r in rows]

    chosen = choose(spec(), TRAIN, VALIDATION, TEST, LABELS, WIDE, try_out)
    assert (chosen.choice["count"], chosen.choice["draw"], chosen.choice["ids"]) == (6, 1, wanted)
    assert chosen.choice["score"] == 1.0 and len(chosen.choice["candidates"]) == 4
    assert tried_rows <= {r.id for r in VALIDATION} and len(tried_rows) == 10


def test_among_equals_the_fewest_examples_win() -> None:
    chosen = choose(
        spec(), TRAIN, VALIDATION, TEST, LABELS, WIDE, lambda rows, e, n: [Answer(text=r.target) for r in rows]
    )
    assert (chosen.choice["count"], chosen.choice["draw"]) == (3, 0)


def test_a_candidate_that_does_not_fit_the_model_is_left_out_with_its_reason() -> None:
    room = Room(context=10, answer=2, length=len)  # one token a message: six examples are twelve

    def try_out(rows: Sequence[Row], examples: Prompt, name: str) -> list[Answer]:
        assert len(examples) == 6
        return [Answer(text="sports") for _ in rows]

    chosen = choose(spec(), TRAIN, VALIDATION, TEST, LABELS, room, try_out)
    left_out = [c["left_out"] for c in chosen.choice["candidates"]]
    assert left_out[:2] == ["", ""] and "longest prompt has 13 tokens" in left_out[2]
    with pytest.raises(InputError, match="no number of examples fits the model: the longest prompt has 7 tokens"):
        choose(spec(), TRAIN, VALIDATION, TEST, LABELS, Room(context=5, answer=2, length=len), try_out)


def test_without_validation_rows_nothing_can_be_chosen() -> None:
    with pytest.raises(DataError, match="chosen on validation"):
        choose(spec(), TRAIN, [], TEST, LABELS, WIDE, lambda rows, e, n: [])
