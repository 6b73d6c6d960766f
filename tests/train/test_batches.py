"""Which rows a step takes, and how its batch is split."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train import data
from tunesmith.model.flat_layout import Document
from tunesmith.train.batches import Schedule, shuffled, split
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
