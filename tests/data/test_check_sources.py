"""What check reads besides the user's rows, what it gives back to a person, and that no order matters."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.making import Checked, check_spec, jsonl, run_check, source, table, two_classes
from tunesmith.core.errors import DataError
from tunesmith.core.stage import Workspace
from tunesmith.data.check import check, detect
from tunesmith.data.stages import CheckInputs

FILES = ("rows.jsonl", "left_out.jsonl", "check.json")

# Restored rows


def keys(got: Checked, reason: str) -> tuple[str, ...]:
    return tuple(g.key for g in got.left_out if g.reason == reason)


def test_every_row_left_out_says_that_check_did_it(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"r.tsv": table([("a", "x"), ("b", "y"), ("A", "x"), ("", "y")])}, bad_rows="leave_out")
    assert [(g.reason, g.step) for g in got.left_out] == [("duplicate", "check"), ("no_text", "check")]


def test_a_restored_duplicate_is_kept_in_the_group_of_the_first(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"r.tsv": table([("a", "x"), ("b", "y"), ("A", "x"), ("a ", "x")])}
    before = run_check(tmp_path / "1", files)
    one, two = keys(before, "duplicate")
    after = run_check(tmp_path / "2", files, restored=(one, "0123456789ab"))
    assert [r.line for r in after.rows] == [2, 3, 4] and [g.key for g in after.left_out] == [two]
    assert after.rows[0].group == after.rows[2].group and after.facts["restored"] == [one]
    both = run_check(tmp_path / "3", files, restored=(one, two))
    assert [r.line for r in both.rows] == [2, 3, 4, 5] and not both.left_out


def test_a_restored_contradiction_is_kept_and_the_others_are_not(tmp_path: Path) -> None:
    rows = [("same", "x"), ("other", "y"), ("Same", "y"), ("same", "x"), ("third", "x")]
    files: dict[str, bytes | str] = {"r.tsv": table(rows)}
    before = run_check(tmp_path / "1", files, contradictions="leave_out")
    by_line = {g.line: g.key for g in before.left_out}
    for kept in (2, 4, 5):  # the first row, which the second pass leaves out, and both later ones
        after = run_check(tmp_path / str(kept), files, contradictions="leave_out", restored=(by_line[kept],))
        assert [r.line for r in after.rows] == sorted([3, 6, kept]), kept
        assert {g.line for g in after.left_out} == {2, 4, 5} - {kept} and after.facts["restored"] == [by_line[kept]]


def test_a_restored_contradiction_is_not_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"r.tsv": table([("same", "x"), ("other", "y"), ("Same", "y"), ("b", "x")])}
    gone = run_check(tmp_path / "1", files, contradictions="leave_out").left_out
    later = next(g.key for g in gone if g.line == 4)
    assert len(run_check(tmp_path / "2", files, restored=(later,)).rows) == 4


def test_what_cannot_be_read_cannot_be_restored(tmp_path: Path) -> None:
    body = jsonl([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "", "label": "x"}]) + "{broken\n"
    before = run_check(tmp_path / "1", {"r.jsonl": body}, bad_rows="leave_out")
    after = run_check(
        tmp_path / "2", {"r.jsonl": body}, bad_rows="leave_out", restored=tuple(g.key for g in before.left_out)
    )
    assert after.left_out == before.left_out and len(after.left_out) == 2 and after.facts["restored"] == []


# Kept columns


def test_kept_columns_travel_with_the_row(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "x", "created": "2024-01-01", "n": 3, "more": {"a": [1]}},
        {"text": "b", "label": "y", "created": None},
    ]
    got = run_check(tmp_path, {"r.jsonl": jsonl(rows)}, keep=("created", "n", "more"))
    assert [r.fields for r in got.rows] == [{"created": "2024-01-01", "n": 3, "more": {"a": [1]}}, {}]
    assert not [f for f in got.facts["findings"] if "not used" in f["what"]]


def test_a_kept_column_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no column 'creatd' \(data\.keep\); did you mean 'created'\?"):
        run_check(tmp_path, {"r.jsonl": jsonl([{"text": "a", "label": "x", "created": 1}])}, keep=("creatd",))


def test_a_kept_value_without_a_json_form_is_a_bad_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = {"text": ["a", "b", "c"], "label": ["x", "y", "y"], "v": [1.0, float("nan"), 2.0], "raw": [b"1", b"2", b"3"]}
    pyarrow.parquet.write_table(pa.table(rows), tmp_path / "x.parquet")
    body = (tmp_path / "x.parquet").read_bytes()
    got = run_check(tmp_path / "1", {"x.parquet": body}, keep=("v",), bad_rows="leave_out")
    assert [r.fields for r in got.rows] == [{"v": 1.0}, {"v": 2.0}] and [g.line for g in got.left_out] == [2]
    with pytest.raises(DataError, match="raw: is binary, not a text"):
        run_check(tmp_path / "2", {"x.parquet": body}, keep=("raw",))


# Files that earlier steps made


def made(tmp_path: Path, kind: str, files: dict[str, bytes | str], made_files: dict[str, bytes | str]) -> Checked:
    inputs = CheckInputs(source=source(tmp_path / "source", files), made=source(tmp_path / "made", made_files))
    return Checked(check(check_spec(kind=kind), inputs, Workspace(root=tmp_path / "work")).examples)


PAIR = {
    "id": "p",
    "group": "g1",
    "prompt": "What is X?",
    "completion": "A letter.",
    "how": "glossary",
    "source": {"file": "m.pdf"},
    "support": {},
}


def test_approved_pairs_are_read_beside_the_users_rows_and_marked(tmp_path: Path) -> None:
    own = {"r.jsonl": jsonl([{"instruction": "Say a", "output": "a"}])}
    got = made(tmp_path, "instruct", own, {"pairs.jsonl": jsonl([PAIR]), "pairs.json": "{}"})
    assert [(r.file, r.line, r.target, r.origin) for r in got.rows] == [
        ("r.jsonl", 1, "a", ""), ("made/pairs.jsonl", 1, "A letter.", "pairs.glossary"),
    ]  # fmt: skip
    assert got.facts["read"] == 2


def test_a_corpus_from_documents_may_be_all_there_is(tmp_path: Path) -> None:
    got = made(
        tmp_path, "domain", {}, {"corpus.jsonl": jsonl([{"text": "A passage.", "file": "m.pdf", "group": "m.pdf"}])}
    )
    assert [(r.target, r.file, r.origin) for r in got.rows] == [("A passage.", "made/corpus.jsonl", "documents")]
    with pytest.raises(DataError, match=r"made/corpus\.jsonl: 'text' says nothing that a chat task can learn from"):
        made(tmp_path / "again", "chat", {}, {"corpus.jsonl": jsonl([{"text": "A passage.", "group": "m.pdf"}])})


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file is named that holds rows"):
        made(tmp_path, "domain", {}, {})


# What a person is told before there is a project


def test_shapes_of_files_and_folders_are_told_with_reasons(tmp_path: Path) -> None:
    folder = source(
        tmp_path / "data",
        {
            "chat.jsonl": jsonl([{"conversations": []}] * 3), "odd.csv": "question,reply\na,b\n", "scan.pdf": b"%PDF-",
            "two.csv": "prompt,completion,text,label\na,b,c,d\n", "mail/a.eml": "From: a\nSubject: s\n\nx", "broken.parquet": b"x",
        },
    )  # fmt: skip
    found = {d.file: d for d in detect([folder, tmp_path / "lost.csv"], "chat")}
    assert (found["chat.jsonl"].shape, found["chat.jsonl"].why) == (
        "sharegpt",
        "3 of the first 3 rows have conversations",
    )
    assert found["odd.csv"].shape == "" and found["odd.csv"].columns == ("question", "reply")
    assert "--set task.text=..." in found["odd.csv"].problems[0].fix
    assert "fit 2 shapes at once" in found["two.csv"].problems[0].what
    assert found["mail/a.eml"].format == "mail" and "subject" in found["mail/a.eml"].columns
    assert found["scan.pdf"].why == "a document, not rows" and found["broken.parquet"].problems
    assert "cannot be read" in found["lost.csv"].problems[0].what
    named = detect([folder / "odd.csv"], "instruct", text="question", label="reply")[0]
    assert (named.shape, named.problems) == ("text_label", ())


def test_a_detected_shape_can_be_stated_and_reads_the_same(tmp_path: Path) -> None:
    rows = [{"instruction": f"do {i}", "output": str(i)} for i in range(4)]
    folder = source(tmp_path / "data", {"r.jsonl": jsonl(rows)})
    shape = detect([folder / "r.jsonl"], "instruct")[0].shape
    first = run_check(tmp_path / "1", {"r.jsonl": jsonl(rows)}, kind="instruct")
    second = run_check(tmp_path / "2", {"r.jsonl": jsonl(rows)}, kind="instruct", shape=shape)
    assert (first.folder / "rows.jsonl").read_bytes() == (second.folder / "rows.jsonl").read_bytes()


# Laws

BODIES: list[tuple[str, str]] = [
    ("a.csv", "text,label\nt1,x\nt2,y\n,x\nT1,x\n"), ("b/a.csv", "text,label\nt1,x\nt3,y\n"), ("b/n.json", json.dumps([{"text": "t2", "label": "x"}])),
    ("c.tsv", table(two_classes(3))), ("d.jsonl", '{"text":"t9","label":"x"}\nbroken\n{"text":"t1","label":"y"}\n'), ("e.pdf", "%PDF-1"),
]  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(len(BODIES))), kind=st.sampled_from(["classify", "instruct"]), duplicates=st.sampled_from(["keep", "leave_out"])
)  # fmt: skip
def test_no_order_of_files_changes_a_byte(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], kind: str, duplicates: str
) -> None:
    spec: dict[str, Any] = {
        "kind": kind,
        "duplicates": duplicates,
        "bad_rows": "leave_out",
        "contradictions": "leave_out",
    }
    want = run_check(tmp_path_factory.mktemp("o"), dict(BODIES), **spec)
    got = run_check(tmp_path_factory.mktemp("o"), dict(BODIES[i] for i in order), **spec)
    assert all((want.folder / name).read_bytes() == (got.folder / name).read_bytes() for name in FILES)
    assert got.facts["read"] == len(got.rows) + len(got.left_out) == 13


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "A", "b", " ", "c", "d"]), st.sampled_from(["x", "X", "y", ""])), max_size=10),
    picked=st.sets(st.integers(0, 9)), kind=st.sampled_from(["classify", "instruct"]),
)  # fmt: skip
def test_restoring_never_loses_or_doubles_a_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], picked: set[int], kind: str
) -> None:
    rows = [("keep 1", "x"), ("keep 2", "y"), *rows]
    files: dict[str, bytes | str] = {"r.jsonl": jsonl([{"text": t, "label": a} for t, a in rows])}
    spec: dict[str, Any] = {"kind": kind, "bad_rows": "leave_out", "contradictions": "leave_out"}
    before = run_check(tmp_path_factory.mktemp("p"), files, **spec)
    chosen = tuple(g.key for i, g in enumerate(before.left_out) if i in picked)
    after = run_check(tmp_path_factory.mktemp("p"), files, **spec, restored=chosen)
    lines = sorted([r.line for r in after.rows] + [g.line for g in after.left_out])
    assert lines == list(range(1, len(rows) + 1))
    assert set(after.facts["restored"]) <= set(chosen)
    mendable = {g.key for g in before.left_out if g.reason in ("duplicate", "contradiction")}
    assert {g.key for g in after.left_out} == {g.key for g in before.left_out} - (set(chosen) & mendable)


def test_files_with_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"a/r.tsv": table(two_classes(2)), "b/r.tsv": table([("t", "odd")])})
    assert [r.file for r in got.rows] == ["a/r.tsv", "a/r.tsv", "b/r.tsv"]
    assert len(list(itertools.groupby(got.rows, key=lambda r: r.file))) == 2
