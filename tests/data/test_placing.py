"""Splits by verified units: nothing near straddles, old rows stay, and each policy does what it says."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.making import prepare_spec
from tests.data.near.making import families, jaccard, row, write_examples
from tunesmith.core.canonical import write_lines
from tunesmith.core.errors import DataError, InputError, Stopped
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.near.join import Join
from tunesmith.data.near.shingles import shingles
from tunesmith.data.near.units import grow
from tunesmith.data.placing import Placement, place_rows
from tunesmith.data.split import NAMES, Shares, place
from tunesmith.data.survey import left_out, look

ANY = {"max_deviation": 1.0}  # placements of few rows are no test of their shares


class Split:
    """Where the rows of one data set went, by file and line."""

    def __init__(self, rows: list[Row], placed: Placement) -> None:
        self.rows = rows
        self.placed = placed
        self.split = {r.line: NAMES[placed.code[i]] for i, r in enumerate(rows) if i not in placed.left_out}
        self.left_out = {rows[i].line: why for i, why in placed.left_out.items()}

    def write(self, folder: Path) -> Path:
        """The part of the artifact `dataset` that a later split reads."""
        folder.mkdir(parents=True)
        for name in NAMES:
            write_lines(folder / f"{name}.jsonl", [r for r in self.rows if self.split.get(r.line) == name])
        return folder


def split(root: Path, rows: list[Row], *, previous: Path | None = None, **changes: Any) -> Split:
    spec = prepare_spec(**{"near": 0.6, **changes})
    folder = write_examples(root / "examples", rows)
    survey = look(folder / "rows.jsonl", spec, previous)
    return Split(rows, place_rows(spec, survey, has_previous=previous is not None))


def try_split(root: Path, rows: list[Row], **changes: Any) -> Split | None:
    """None where a split is empty: of few rows that happens."""
    try:
        return split(root, rows, **{**ANY, **changes})
    except DataError as e:
        assert "no row" in str(e) or "cannot fill three splits" in str(e)
        return None


def straddling(got: Split, threshold: float) -> list[tuple[int, int]]:
    kept = [r for r in got.rows if r.line in got.split]
    return [
        (a.line, b.line)
        for a, b in combinations(kept, 2)
        if got.split[a.line] != got.split[b.line]
        and (jaccard(a.messages[0].content, b.messages[0].content) >= threshold or a.group == b.group)
    ]


def made(texts: list[str], rng: random.Random, groups: int, first: int = 1) -> list[Row]:
    return [
        row(text or "none", rng.choice("ab"), line=i, group=f"g{rng.randrange(groups)}" if groups else "",
            fields={"day": f"2024-01-{rng.randint(1, 28):02}", "site": rng.choice("xyz")})
        for i, text in enumerate(texts, start=first)
    ]  # fmt: skip


POLICIES = st.sampled_from(
    [
        {"by": "random"},
        {"by": "stratified"},
        {"by": "kfold", "folds": 4, "fold": 1},
        {"by": "time", "time_field": "day"},
        {"by": "field", "field": "site", "test_values": ("x",)},
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    families(40),
    POLICIES,
    st.sampled_from([0, 5, 15]),
    st.sampled_from([0.4, 0.6, 0.8]),
    st.randoms(use_true_random=False),
)
def test_no_near_pair_and_no_group_straddles_and_every_row_is_accounted_for(
    texts: list[str], policy: dict[str, Any], groups: int, near: float, rng: random.Random
) -> None:
    rows = made(texts, rng, groups)
    with TemporaryDirectory() as name:
        got = try_split(Path(name) / "1", rows, near=near, train=0.5, validation=0.2, test=0.3, **policy)
        if got is None:
            return
        assert straddling(got, near) == []
        assert sorted([*got.split, *got.left_out]) == [r.line for r in rows]
        moved = try_split(Path(name) / "2", rng.sample(rows, len(rows)), near=near, train=0.5, validation=0.2, test=0.3, **policy)  # fmt: skip
        assert moved is not None and moved.split == got.split


@settings(max_examples=60, deadline=None)
@given(
    families(25),
    families(25),
    st.sampled_from([0, 8]),
    st.sampled_from(["random", "stratified", "time"]),
    st.randoms(use_true_random=False),
)
def test_with_the_earlier_data_set_no_old_row_ever_moves(
    old: list[str], new: list[str], groups: int, by: str, rng: random.Random
) -> None:
    policy = {"by": by, "time_field": "day", "train": 0.5, "validation": 0.2, "test": 0.3}
    rows = made(list(dict.fromkeys(old)), rng, groups)
    with TemporaryDirectory() as name:
        before = try_split(Path(name) / "1", rows, **policy)
        if before is None:
            return
        known = {r.messages[0].content for r in rows}
        mixed = [" ".join(t.split()[: rng.randint(1, 20)] + rng.choice(old).split()) for t in new]
        fresh = [t for t in dict.fromkeys(mixed) if t not in known]
        stays = [r for r in rows if r.line in before.split]
        grown = [*made(fresh, rng, groups, first=1000), *stays]
        after = split(Path(name) / "2", grown, previous=before.write(Path(name) / "p"), **ANY, **policy)
        assert {line: after.split.get(line) for line in before.split} == before.split
        assert all(line >= 1000 and why[0] == "bridge" for line, why in after.left_out.items())
        assert straddling(after, 0.6) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abc ", max_size=6), min_size=3, max_size=40),
    st.integers(0, 9),
    st.sampled_from(["random", "group"]),
)
def test_without_near_placement_is_by_the_hash_of_the_group_alone(groups: list[str], salt: int, by: str) -> None:
    rows = [row(f"text {i}", line=i, group=f"g{g}") for i, g in enumerate(groups, start=1)]
    with TemporaryDirectory() as name:
        got = try_split(Path(name), rows, near=0.0, by=by, salt=str(salt))
        if got is not None:
            shares = Shares(train=0.8, validation=0.1, test=0.1)
            assert got.split == {r.line: place(r.group, str(salt), shares) for r in rows} and not got.left_out
            assert got.placed.facts == {}


@settings(max_examples=40, deadline=None)
@given(families(30), families(15), st.randoms(use_true_random=False))
def test_without_it_rows_move_only_where_new_rows_join_their_unit(
    old: list[str], new: list[str], rng: random.Random
) -> None:
    near, big = 0.7, {"train": 0.34, "validation": 0.33, "test": 0.33}
    rows, more = made(list(dict.fromkeys(old)), rng, 0), made(list(dict.fromkeys(new)), rng, 0, first=1000)
    more = [m for m in more if m.messages[0].content not in set(old)]
    with TemporaryDirectory() as name:
        before = try_split(Path(name) / "1", rows, near=near, **big)
        after = try_split(Path(name) / "2", [*rows, *more], near=near, **big)
        if (
            before is None
            or after is None
            or before.placed.facts["near"]["divided"]
            or after.placed.facts["near"]["divided"]
        ):
            return
        reached = {r.line for r in more}
        for _ in range(len(rows)):  # what a chain of near pairs joins to new rows
            reached |= {
                r.line for r in rows for o in [*rows, *more]
                if o.line in reached and jaccard(r.messages[0].content, o.messages[0].content) >= near
            }  # fmt: skip
        assert all(after.split[line] == where for line, where in before.split.items() if line not in reached)


def copies(n: int, seed: int, edits: int = 1, length: int = 20) -> list[str]:
    rng = random.Random(seed)
    base = [f"s{seed}w{i}" for i in range(length)]
    out = []
    for i in range(n):
        words = list(base)
        for _ in range(edits):
            words[rng.randrange(length)] = f"e{i}"
        out.append(" ".join(words))
    return out


def plain(n: int, first: int) -> list[Row]:
    return [row(f"alone{i} stands{i} here{i}", "ab"[i % 2], line=first + i) for i in range(n)]


def bridge_rows() -> tuple[list[Row], str, str, str]:
    """Two unlike texts, and one between them that is near to both."""
    left, right = [f"l{i}" for i in range(12)], [f"r{i}" for i in range(12)]
    both = " ".join([*left, *right])
    return plain(300, 1), " ".join([*left, *right[:6]]), " ".join([*left[6:], *right]), both


def test_a_new_row_that_would_bridge_train_and_test_is_left_out(tmp_path: Path) -> None:
    rest, one, other, both = bridge_rows()
    for salt in range(100):
        rows = [*rest, row(one, line=501), row(other, line=502)]
        before = split(tmp_path / f"{salt}", rows, near=0.6, salt=str(salt), **ANY)
        if (before.split[501], before.split[502]) == ("train", "test"):
            break
    grown = [row(both, line=601), *rows]
    after = split(tmp_path / "after", grown, near=0.6, salt=str(salt), previous=before.write(tmp_path / "p"), **ANY)
    reason, detail = after.left_out[601]
    assert reason == "bridge" and (
        "r.jsonl:501, which is in train" in detail or "r.jsonl:502, which is in test" in detail
    )
    assert after.split == before.split
    assert after.placed.facts["near"]["left_out"] == 1


def test_a_new_row_follows_the_rows_it_is_near(tmp_path: Path) -> None:
    rows = [*plain(200, 1), *[row(t, line=300 + i) for i, t in enumerate(copies(2, 1))]]
    for salt in range(100):
        before = split(tmp_path / f"{salt}", rows, salt=str(salt), **ANY)
        if before.split[300] == "test":
            break
    more = [row(t, line=400 + i) for i, t in enumerate(copies(6, 1)[2:])]
    after = split(tmp_path / "a", [*more, *rows], salt="other", previous=before.write(tmp_path / "p"), **ANY)
    assert {after.split[r.line] for r in more} == {"test"}


def test_a_corrected_test_row_does_not_become_a_training_row(tmp_path: Path) -> None:
    rows = [*plain(200, 1), row(copies(1, 1)[0], line=300)]
    for salt in range(100):
        before = split(tmp_path / f"{salt}", rows, salt=str(salt), **ANY)
        if before.split[300] == "test":
            break
    previous = before.write(tmp_path / "p")
    for i, text in enumerate(copies(8, 1)[1:]):  # each another correction: its own hash might say anything
        after = split(tmp_path / f"c{i}", [*rows[:-1], row(text, line=300)], previous=previous, **ANY)
        assert after.split[300] == "test"


def test_a_component_too_large_to_place_is_divided_at_its_weakest_links(tmp_path: Path) -> None:
    rows = plain(200, 1)
    families_ = [copies(10, s, length=40) for s in range(4)]
    at = 500
    for i, family in enumerate(families_):
        rows += [row(text, line=at + j) for j, text in enumerate(family)]
        at += 100
        if i:  # a row half of one family, half of the next: near to both
            words = families_[i - 1][0].split()[:31] + family[0].split()[:31]
            rows.append(row(" ".join(words), line=at - 1))
    got = split(tmp_path / "1", rows, near=0.35, **ANY)
    facts = got.placed.facts["near"]
    assert facts["largest"] == 43 and facts["divided"] == 1
    assert straddling(got, 0.35) == []
    assert set(got.left_out) <= {699, 799, 899} and all(why[0] == "bridge" for why in got.left_out.values())
    assert all(len({got.split[500 + 100 * s + j] for j in range(10)}) == 1 for s in range(4))


def test_a_dense_cluster_has_no_bridges_and_stays_whole(tmp_path: Path) -> None:
    rows = [*plain(200, 1), *[row(t, line=500 + j) for j, t in enumerate(copies(60, 1, edits=1))]]
    got = split(tmp_path, rows, near=0.5, **ANY)
    assert got.placed.facts["near"]["largest"] == 60 and got.placed.facts["near"]["divided"] == 0
    assert not got.left_out and len({got.split[500 + j] for j in range(60)}) == 1 and straddling(got, 0.5) == []


def test_it_says_how_far_it_is_and_stops_where_it_is_asked_to(tmp_path: Path) -> None:
    rows = [row(f"some words of row number {i} and {i * 7}", line=i) for i in range(1, 40)]
    folder = write_examples(tmp_path / "examples", rows)
    spec = prepare_spec(near=0.8, **ANY)
    said: list[str] = []
    work = Workspace(root=tmp_path / "work", progress=lambda done, total, label, **facts: said.append(label))
    place_rows(spec, look(folder / "rows.jsonl", spec, work=work), has_previous=False, work=work)
    assert said[0] == "prepare: reading" and said[-1] == "prepare: proving that no near-duplicates are parted"
    work.stop.set()
    with pytest.raises(Stopped):
        look(folder / "rows.jsonl", spec, work=work)


def test_what_a_naive_split_leaks_is_counted(tmp_path: Path) -> None:
    rows = [row(t, line=100 * s + j) for s in range(1, 60) for j, t in enumerate(copies(4, s))]
    got = split(tmp_path, rows, near=0.6, **ANY)
    leak = got.placed.facts["naive_leak"]
    assert 0.8 < leak["share"] <= 1 and leak["share"] == round(leak["with_twin"] / leak["test_rows"], 6)
    for pair in leak["pairs"]:
        a, b = (next(r for r in rows if f"r.jsonl:{r.line}" == pair[side]) for side in ("test", "train"))
        assert pair["similarity"] == pytest.approx(jaccard(a.messages[0].content, b.messages[0].content), abs=1e-4) and pair["similarity"] >= 0.6  # fmt: skip
    assert got.placed.facts["near"]["components"] == 59 and got.placed.facts["near"]["largest"] == 4


def test_stratified_keeps_the_shares_of_classes_that_chance_would_not(tmp_path: Path) -> None:
    rows = [row(f"text{i} of{i}", "rare" if i % 20 == 0 else "usual", line=i + 1) for i in range(400)]
    got = split(tmp_path / "s", rows, by="stratified", max_deviation=0.01)
    rare = [got.split[r.line] for r in rows if r.target == "rare"]
    assert [rare.count(name) for name in NAMES] == [16, 2, 2]
    assert [list(got.split.values()).count(name) for name in NAMES] == [320, 40, 40]
    more = [row(f"new{i} of{i}", "rare", line=1000 + i) for i in range(20)]
    after = split(
        tmp_path / "2", [*more, *rows], by="stratified", previous=got.write(tmp_path / "p"), max_deviation=0.01
    )
    rare = [after.split[r.line] for r in [*rows, *more] if r.target == "rare"]
    assert [rare.count(name) for name in NAMES] == [32, 4, 4]


def test_by_time_the_oldest_train_and_the_newest_test(tmp_path: Path) -> None:
    rows = [
        row(f"text{i} of{i}", "ab"[i % 2], line=i + 1, fields={"at": f"2024-{1 + i // 28:02}-{1 + i % 28:02}"})
        for i in range(300)
    ]
    got = split(tmp_path / "1", random.Random(0).sample(rows, 300), by="time", time_field="at")
    assert [got.split[i] for i in range(1, 301)] == ["train"] * 240 + ["validation"] * 30 + ["test"] * 30
    rows[0] = row("text0 of0", line=1, group="g", fields=rows[0].fields)
    rows[299] = row("text299 of299", line=300, group="g", fields=rows[299].fields)
    assert split(tmp_path / "2", rows, by="time", time_field="at").split[1] == "test"  # as new as its newest row
    rows[5] = row("text5", line=6, fields={"at": "03/04/05"})
    rows[6] = row("text6", line=7, fields={})
    with pytest.raises(DataError) as caught:
        split(tmp_path / "3", rows, by="time", time_field="at")
    said = str(caught.value)
    assert "r.jsonl:6: '03/04/05' is no time" in said and "r.jsonl:7: has no value in 'at' (kept columns: none)" in said
    assert "2 of 300 rows cannot be placed" in said


def test_by_field_the_named_values_are_the_test_set_and_what_is_near_them_is_left_out(tmp_path: Path) -> None:
    rows = [row(f"text{i} of{i}", "ab"[i % 2], line=i + 1, fields={"site": "xyz"[i % 3]}) for i in range(300)]
    twins = copies(2, 7)
    rows += [row(twins[0], line=500, fields={"site": "x"}), row(twins[1], line=501, fields={"site": "y"})]
    got = split(tmp_path / "1", rows, by="field", field="site", test_values=("x",))
    assert {r.line for r in rows if got.split.get(r.line) == "test"} == {
        r.line for r in rows if r.fields["site"] == "x"
    }
    assert got.left_out[501][0] == "bridge" and set(got.left_out) == {501}
    assert 0 < list(got.split.values()).count("validation") < 60
    with pytest.raises(DataError, match=r"no row has site=w\n  fix:   the values are x, y, z"):
        split(tmp_path / "2", rows, by="field", field="site", test_values=("x", "w"))
    with pytest.raises(DataError, match="rows were on the other side of the test set"):
        split(tmp_path / "3", rows, by="field", field="site", test_values=("y",), previous=got.write(tmp_path / "p"))


def test_every_row_is_tested_in_one_fold(tmp_path: Path) -> None:
    rows = [*plain(150, 1), *[row(t, line=500 + 10 * s + j) for s in range(20) for j, t in enumerate(copies(3, s))]]
    folds = [split(tmp_path / f"{f}", rows, by="kfold", folds=5, fold=f, max_deviation=0.2).split for f in range(5)]
    for r in rows:
        assert sorted(fold[r.line] for fold in folds) == ["test", "train", "train", "train", "validation"]
    with pytest.raises(InputError, match="fold 5 of 5"):
        split(tmp_path / "x", rows, by="kfold", folds=5, fold=5)


def test_a_restored_bridge_stays_and_its_neighbours_go(tmp_path: Path) -> None:
    rest, one, other, both = bridge_rows()
    rows = [*rest, row(one, line=501), row(other, line=502)]
    for salt in range(100):
        before = split(tmp_path / f"{salt}", rows, near=0.6, salt=str(salt), **ANY)
        if (before.split[501], before.split[502]) == ("train", "test"):
            break
    bridge = row(both, line=601)
    previous = before.write(tmp_path / "p")
    after = split(tmp_path / "a", [bridge, *rows], near=0.6, previous=previous, restored=(left_out(bridge, "bridge", "").key,), **ANY)  # fmt: skip
    assert 601 in after.split and len(after.left_out) == 1 and straddling(after, 0.6) == []


def test_groups_that_an_earlier_data_set_divided_stay_as_they_were() -> None:
    pins = np.array([0, 2, -1, -1])
    grown = grow(
        Join(shingles(["a b", "c d", "e f", "g h"]), 0.5),
        np.array([0, 0, 0, 1]),
        pins,
        is_row=np.ones(4, bool),
        limit=9,
    )
    assert grown.stranded.tolist() == [2] and len(set(grown.unit.tolist())) == 4
