"""Which rows a step takes, and how its batch is split."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train import data
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message
from tunesmith.model.flat_layout import Document
from tunesmith.train.batches import Schedule, render_rows, shuffled, split
from tunesmith.train.stages import many_epochs
from tunesmith.train.validate import validation_steps

ROWS = data.make_rows(10, seed=0)


def test_every_row_is_taken_once_an_epoch_and_the_last_small_batch_is_kept() -> None:
    schedule = Schedule(ROWS, epochs=2.0, global_batch=4, seed=0)
    assert schedule.steps == 6
    batches = [schedule.batch(step) for step in range(6)]
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(i for b in epoch for i in b) == list(range(10))
    assert batches[:3] != batches[3:]


def test_a_part_of_an_epoch_takes_the_first_rows_of_its_order() -> None:
    whole = Schedule(ROWS, epochs=2.0, global_batch=4, seed=0)
    part = Schedule(ROWS, epochs=1.5, global_batch=4, seed=0)
    assert part.steps == 5
    assert part.batch(3) == whole.batch(3)
    assert part.batch(4) == whole.batch(4)[:1]


def test_a_batch_depends_on_the_step_alone() -> None:
    schedule = Schedule(ROWS, epochs=2.0, global_batch=4, seed=0)
    forwards = [schedule.batch(step) for step in range(6)]
    assert [schedule.batch(step) for step in reversed(range(6))] == forwards[::-1]


def test_the_order_follows_content_not_places() -> None:
    turned = ROWS[::-1]
    assert [ROWS[i].id for i in shuffled(ROWS, 0, 0)] == [turned[i].id for i in shuffled(turned, 0, 0)]
    assert shuffled(ROWS, 0, 0) != shuffled(ROWS, 1, 0)
    same = [msgspec.structs.replace(ROWS[0], line=n) for n in (9, 3, 7)]
    assert shuffled(same, 0, 0) == [1, 2, 0]


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=20),
    st.integers(16, 200),
    st.integers(0, 2),
)
def test_micro_batches_hold_every_document_once_within_the_limit(lengths: list[int], limit: int, shared: int) -> None:
    documents = [Document(ids=(1,) * n, trained=(True,) * n, key=str(i)) for i, n in enumerate(lengths)]
    groups = split(documents, limit, shared=shared)
    assert sorted(d.key for g in groups for d in g) == sorted(d.key for d in documents)
    for group in groups:
        longest = max(len(d.ids) for d in group)
        assert len(group) == 1 or shared + len(group) * (longest - shared) <= limit


@pytest.mark.parametrize(
    ("steps", "times", "want"), [(10, 4, {2, 5, 8, 10}), (3, 8, {1, 2, 3}), (1, 4, {1}), (7, 1, {7})]
)
def test_validations_are_even_and_end_with_the_last_step(steps: int, times: int, want: set[int]) -> None:
    assert validation_steps(steps, times) == want


def test_a_turn_of_weight_0_is_read_and_not_learnt_and_a_row_s_weight_counts_for_all_its_tokens(
    tiny_llama: Path,
) -> None:
    from tunesmith.text.render import Renderer

    renderer = Renderer.load(tiny_llama, system="s")

    def supervised(turn_weight: float, row_weight: float) -> Document:
        messages = (
            Message(role="user", content="ball"),
            Message(role="assistant", content="sports sports", weight=turn_weight),
            Message(role="user", content="aktie"),
        )
        row = msgspec.structs.replace(ROWS[0], messages=messages, target="business", weight=row_weight)
        return render_rows([row], renderer, 128)[0]

    both, last = supervised(1.0, 1.0), supervised(0.0, 1.0)
    assert both.ids == last.ids
    assert sum(both.trained) > sum(last.trained) == len(renderer.answer("business"))
    assert supervised(0.0, 2.5).supervised == 2.5 * last.supervised


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_rows_of_no_weight_are_all_refused_before_training(tiny_llama: Path, weight: float) -> None:
    """A batch of them alone would have no mean loss: 0 / 0 (a frozen data set of another tool may hold such rows)."""
    from tunesmith.text.render import Renderer

    wrong = [msgspec.structs.replace(r, weight=weight) for r in ROWS[:2]]
    with pytest.raises(DataError) as e:
        render_rows([*wrong, *ROWS[2:4]], Renderer.load(tiny_llama, system="s"), 128)
    assert [p.where for p in e.value.problems] == [f"{r.file}:{r.line}" for r in wrong]
    assert all("weight" in p.what and "above 0" in p.fix for p in e.value.problems)


def test_many_epochs_over_a_small_set_are_remarked() -> None:
    assert "8 epochs over 100 rows" in many_epochs(8.0, 100)
    assert many_epochs(3.0, 100) == "" == many_epochs(8.0, 100_000)
