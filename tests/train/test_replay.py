"""Mixtures: stated shares, the same in any order of files, and no item lost between epochs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Row
from tunesmith.model.flat_layout import Document
from tunesmith.train.batches import Schedule, shuffled
from tunesmith.train.pool import Pool
from tunesmith.train.replay import Item, Mixture, Stream, more_of, source_of


def items_of(counts: dict[str, int], size: int = 1) -> list[Item]:
    return [
        Item(key=f"{source}-{i}", file=f"{source}.jsonl", line=i + 1, source=source, size=size)
        for source, count in counts.items()
        for i in range(count)
    ]


def taken(items: list[Item], mixture: Mixture, epoch: int) -> Counter[str]:
    return Counter(items[i].source for i in mixture.epoch(epoch))


def test_without_shares_an_epoch_is_what_it_was_before_there_were_mixtures() -> None:
    rows = data.make_rows(30, seed=1)
    items = [Item(key=r.id, file=r.file, line=r.line) for r in rows]
    mixture = Mixture(items, shares={}, seed=7)
    for epoch in range(3):
        assert mixture.epoch(epoch) == shuffled(rows, 7, epoch)


def test_a_share_of_general_data_is_added_to_all_of_ones_own() -> None:
    items = items_of({"own": 90, "general": 1000})
    mixture = Mixture(items, shares={"general": 0.1}, seed=0)
    for epoch in range(5):
        assert taken(items, mixture, epoch) == {"own": 90, "general": 10}
    seen = [i for e in range(5) for i in mixture.epoch(e) if items[i].source == "general"]
    assert len(set(seen)) == 50  # each epoch goes on where the last one stopped


def test_a_small_source_repeats_in_another_order_and_evenly() -> None:
    items = items_of({"own": 80, "general": 8})
    mixture = Mixture(items, shares={"general": 0.2}, seed=0)
    counts = Counter(i for i in mixture.epoch(0) if items[i].source == "general")
    assert sum(counts.values()) == 20 and set(counts.values()) == {2, 3}
    assert mixture.facts() == {"general": {"size": 8, "an_epoch": 20.0, "rounds": 2.5}}


def test_with_a_share_for_every_source_an_epoch_is_as_large_as_all_of_them() -> None:
    items = items_of({"a": 60, "b": 20, "c": 20})
    mixture = Mixture(items, shares={"a": 0.2, "b": 0.3, "c": 0.5}, seed=0)
    assert taken(items, mixture, 0) == {"a": 20, "b": 30, "c": 50}
    seen = Counter(i for e in range(3) for i in mixture.epoch(e) if items[i].source == "a")
    assert len(seen) == 60 and set(seen.values()) == {1}


def test_shares_count_tokens_where_sizes_are_tokens() -> None:
    items = [*items_of({"own": 30}, size=100), *items_of({"general": 500}, size=10)]
    mixture = Mixture(items, shares={"general": 0.25}, seed=0)
    assert taken(items, mixture, 0) == {"own": 30, "general": 100}


def test_the_order_of_files_changes_nothing() -> None:
    items = items_of({"own": 20, "general": 30})
    turned = items[::-1]
    a = Mixture(items, shares={"general": 0.3}, seed=1)
    b = Mixture(turned, shares={"general": 0.3}, seed=1)
    for epoch in range(3):
        assert [items[i].key for i in a.epoch(epoch)] == [turned[i].key for i in b.epoch(epoch)]
    assert a.epoch(0) != a.epoch(1)
    assert Mixture(items, shares={"general": 0.3}, seed=2).epoch(0) != a.epoch(0)


def pool_of(rows: list[Row], general: list[Row], seed: int) -> Pool:
    documents = [Document(ids=(1, 2), trained=(False, True), key=r.id) for r in (*rows, *general)]
    return Pool(
        rows, [[d] for d in documents[: len(rows)]], list(zip(general, documents[len(rows) :], strict=True)), seed=seed
    )


def test_rows_in_steps_are_those_of_a_plain_schedule_where_nothing_is_mixed() -> None:
    rows = data.make_rows(21, seed=1)
    plain = Schedule(rows, epochs=2.0, global_batch=8, seed=3)
    mixed = pool_of(rows, [], 3).schedule((), epochs=2.0, global_batch=8)
    assert [mixed.batch(s) for s in range(mixed.steps)] == [plain.batch(s) for s in range(plain.steps)]
    assert plain.tokens == [len(plain.batch(s)) for s in range(plain.steps)]
    assert [plain.epoch(s) for s in range(plain.steps)] == [0, 0, 0, 1, 1, 1]


def test_general_rows_are_mixed_into_the_steps_of_instruction_tuning() -> None:
    rows, general = data.make_rows(18, seed=1, file="own.csv"), data.make_rows(50, seed=2, file="other.csv")
    pool = pool_of(rows, general, 0)
    schedule = pool.schedule((("general", 0.25),), epochs=3.0, global_batch=8)
    taken = [i for s in range(schedule.steps) for i in schedule.batch(s)]
    assert Counter(i < 18 for i in taken) == {True: 54, False: 18}
    assert len({i for i in taken if i >= 18}) == 18
    by_file = pool.schedule((("own.*", 1.0),), epochs=1.0, global_batch=8)
    assert sorted(by_file.batch(0) + by_file.batch(1) + by_file.batch(2)) == list(range(18))


def test_replay_takes_its_share_of_each_step_from_where_it_began() -> None:
    items = items_of({"general": 7})
    stream = Stream(items, range(7), 0)
    sizes = [8, 8, 8, 3]
    taken = [more_of(stream, 0.5, sizes, 1, step) for step in range(4)]
    assert [len(t) for t in taken] == [0, 8, 8, 3]
    assert max(Counter(i for t in taken for i in t).values()) - 19 // 7 <= 1  # all of them by turns
    assert more_of(stream, 0.5, sizes, None, 3) == []


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    cuts=st.lists(st.floats(0, 200, allow_nan=False), min_size=1, max_size=8),
)
def test_a_stream_cut_anywhere_is_the_stream(sizes: list[int], cuts: list[float]) -> None:
    items = [Item(key=str(i), file="f", line=i, size=s) for i, s in enumerate(sizes)]
    members = list(range(len(items)))
    borders = [0.0, *sorted(cuts), 200.0]
    parts = [x for low, high in itertools.pairwise(borders) for x in Stream(items, members, 0).take(low, high)]
    assert parts == Stream(items, members, 0).take(0.0, 200.0)
    counts = Counter(parts)
    assert set(counts.values()) == {1}


def test_a_source_is_named_by_file_last_part_or_pattern() -> None:
    names = ("manual.txt", "faq/*.md", "*.jsonl", "general")
    assert source_of("docs/manual.txt", names) == "manual.txt"
    assert source_of("faq/a.md", names) == "faq/*.md"
    assert source_of("x/rows.jsonl", names) == "*.jsonl"
    assert source_of("general", names) == "" and source_of("other.pdf", names) == ""


@pytest.mark.parametrize(
    "shares, message",
    [
        ({"own": 0.0}, "0 is no share"),
        ({"own": 0.4, "missing": 0.2}, "no file with training rows has this name"),
        ({"general": 0.2}, "there is no general data to replay"),
        ({"own": 1.0}, "leave nothing to the other files"),
        ({"own": 0.5, "more": 0.4}, "every file has a share, and they add up to 0.9"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float], message: str) -> None:
    items = items_of({"own": 10, "more": 10})
    with pytest.raises(InputError, match=message):
        Mixture(items, shares=shares, seed=0)
