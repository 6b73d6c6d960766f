"""The stage check: every row is kept, or left out with its reason, or refused with all the others."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.making import check_spec, jsonl, run_check, source, table, two_classes
from tunesmith.core.errors import DataError, Stopped, StorageError
from tunesmith.core.stage import Workspace
from tunesmith.data.check import check
from tunesmith.data.stages import CHECK, PREPARE, CheckInputs
from tunesmith.data.write import LinesWriter

GOOD = two_classes(6)


def refuse(tmp_path: Path, files: dict[str, bytes | str], **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        run_check(tmp_path, files, **changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_clean_file_is_kept_whole_and_in_order(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"rows.tsv": table(GOOD)})
    assert [(r.file, r.line, r.messages[0].content, r.target) for r in got.rows] == [
        ("rows.tsv", i + 2, text, label) for i, (text, label) in enumerate(GOOD)
    ]
    assert all(r.group == r.id == r.example.id for r in got.rows)  # no group column: each row is its own
    facts = got.facts
    assert (facts["read"], facts["kept"], facts["left_out"], facts["findings"]) == (6, 6, {}, [])
    assert facts["class_counts"] == {"even": 3, "odd": 3} and facts["labels"] == ["even", "odd"]
    assert facts["input_characters"] == {"min": 13, "p50": 13, "p95": 13, "max": 13, "mean": 13.0}
    assert facts["files"][0]["columns"] == [{"name": "text", "use": "text"}, {"name": "label", "use": "label"}]


EMPTY: list[tuple[str, str, bytes, str]] = [
    ("no bytes", "rows.csv", b"", "rows.csv: the file is empty"),
    ("header only", "rows.csv", b"text,label\n", "rows.csv: the file has a header and no rows"),
    ("blank lines", "rows.jsonl", b"\n\n", "rows.jsonl: the file has no rows"),
    ("binary", "rows.jsonl", b"\x89PNG\r\n\x1a\n\0\0", "rows.jsonl:1: byte 0x89 at byte 1 of the file is not UTF-8"),
]


@pytest.mark.parametrize("name, file, body, says", EMPTY, ids=[e[0] for e in EMPTY])
def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, name: str, file: str, body: bytes, says: str) -> None:
    assert says in refuse(tmp_path, {file: body})


def test_bad_rows_are_refused_all_at_once_with_file_line_field_and_fix(tmp_path: Path) -> None:
    body = b"text,label,topic\na,x,1\n ,y,2\nc,,3\nd,x,\ne\nf\xff,x,4\ng,y,5\n"
    said = refuse(tmp_path, {"rows.csv": body}, group="topic")
    for says in (
        "rows.csv:3: text: is empty\n  fix:   fill it in, or remove the row",
        "rows.csv:4: label: is empty",
        "rows.csv:5: topic: is empty",
        "rows.csv:6: 1 values, but the header has 3 columns",
        "rows.csv:7: byte 0xff at byte 43 of the file is not UTF-8",
        "5 of 7 rows cannot be used: 1 broken_utf8, 1 no_group, 1 no_label, 1 no_text, 1 ragged",
        "fix:   correct them, or leave them out with their reasons: --set data.bad_rows=leave_out",
    ):
        assert says in said
    got = run_check(tmp_path / "again", {"rows.csv": body}, group="topic", bad_rows="leave_out")
    assert [(g.line, g.reason) for g in got.left_out] == [
        (3, "no_text"), (4, "no_label"), (5, "no_group"), (6, "ragged"), (7, "broken_utf8")]  # fmt: skip
    assert [r.line for r in got.rows] == [2, 8] and got.facts["left_out"]["no_label"] == 1
    assert got.facts["left_out_examples"]["no_label"] == [
        {"where": "rows.csv:4", "detail": "label: is empty", "text": "c"}
    ]


def test_a_thousand_bad_rows_are_counted_and_fifty_shown(tmp_path: Path) -> None:
    rows = [*GOOD, *[("", "even")] * 600, *[("text", "")] * 400]
    said = refuse(tmp_path, {"rows.tsv": table(rows)})
    assert said.count("rows.tsv:") == 50
    assert "1,000 of 1,006 rows cannot be used: 600 no_text, 400 no_label" in said
    assert "the first 50 are above, the others: 550 no_text, 400 no_label" in said


def test_an_open_quote_is_refused_even_if_bad_rows_are_left_out(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.csv": 'text,label\na,x\n"b,y\nc,x\n'}, bad_rows="leave_out")
    assert "rows.csv:3: a quote is opened and not properly closed until line 4" in said
    assert "data.bad_rows cannot help here" in said and "--set data.bad_rows" not in said


def test_if_no_row_is_left_the_first_reason_is_told(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.tsv": table([("a", ""), ("b", "")])}, bad_rows="leave_out")
    assert "rows.tsv:2: none of the 2 rows can be used: 2 no_label\n  fix:   the first one: label: is empty" in said


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.tsv": table([("a", "x"), ("b", "x")])})
    assert "every one of the 2 usable rows has the label 'x': there is nothing to tell apart" in said


def test_a_label_that_is_not_declared_is_refused_with_the_nearest(tmp_path: Path) -> None:
    rows = [("a", "Sports"), ("b", "sport"), ("c", "Business"), ("d", "weather")]
    said = refuse(tmp_path, {"rows.tsv": table(rows)}, labels=("Sports", "Business"))
    assert "rows.tsv:3: label: 'sport' is not among the 2 declared labels; did you mean 'Sports'?" in said
    assert "rows.tsv:5: label: 'weather' is not among the 2 declared labels: 'Business', 'Sports'" in said
    assert "add it to task.labels" in said


def test_labels_are_free_text_where_the_task_is_not_to_classify(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"rows.tsv": table([("a", "x"), ("b", "x")])}, kind="summarize", labels=("y",))
    assert len(got.rows) == 2 and got.facts["labels"] == []


# Duplicates and contradictions

SAME = [("The  ﬁｌe is Straße.", "x"), ("another", "y"), ("the file\u00a0is STRASSE.", "X")]


def test_a_duplicate_after_normalisation_is_left_out_naming_the_kept_row(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"rows.tsv": table(SAME)})
    assert [r.line for r in got.rows] == [2, 3]
    gone = got.left_out[0]
    assert (gone.line, gone.reason, gone.detail) == (4, "duplicate", "says the same as rows.tsv:2, which is kept")
    assert got.facts["duplicates"] == {"left_out": 1, "kept": 0}


def test_kept_duplicates_share_a_group_so_that_no_split_parts_them(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"rows.tsv": table(SAME)}, duplicates="keep")
    assert [r.line for r in got.rows] == [2, 3, 4]
    assert got.rows[0].group == got.rows[2].group != got.rows[2].id
    assert "1 duplicates are kept" in got.findings


CONTRADICTING = [("same", "x"), ("other", "y"), ("Same", "y"), ("same", "x"), ("third", "x")]


def test_a_contradiction_is_refused_with_both_places_and_answers(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.tsv": table(CONTRADICTING)})
    assert "rows.tsv:4: label: says 'y', but rows.tsv:2 says 'x' to the same text" in said
    assert "leave them out with their reasons: --set data.contradictions=leave_out" in said
    assert "bad_rows" not in said  # that would not help


def test_all_rows_of_a_contradiction_are_left_out_the_first_one_too(tmp_path: Path) -> None:
    got = run_check(tmp_path, {"rows.tsv": table(CONTRADICTING)}, contradictions="leave_out")
    assert [r.line for r in got.rows] == [3, 6]
    assert sorted((g.line, g.reason) for g in got.left_out) == [(n, "contradiction") for n in (2, 4, 5)]
    assert got.facts["kept"] == 2 and got.facts["class_counts"] == {"x": 1, "y": 1}
    assert got.facts["read"] == got.facts["kept"] + sum(got.facts["left_out"].values())


def test_two_answers_to_one_question_contradict_only_where_one_must_be_wrong(tmp_path: Path) -> None:
    rows = [("Tell a joke", "first"), ("tell a joke", "second"), ("Tell a joke", "Second"), ("else", "x")]
    got = run_check(tmp_path, {"rows.tsv": table(rows)}, kind="instruct")
    assert [r.line for r in got.rows] == [2, 3, 5]
    assert got.left_out[0].detail == "says the same as rows.tsv:3, which is kept"
    assert got.rows[0].group == got.rows[1].group  # one side of the split
    assert "1 rows answer a question that an earlier row answers otherwise" in got.findings


def test_the_same_question_in_two_groups_is_a_finding(tmp_path: Path) -> None:
    rows = [("hello", "one", "g1"), ("hello", "two", "g2"), ("bye", "x", "g2")]
    got = run_check(tmp_path, {"rows.tsv": table(rows, ("text", "label", "g"))}, kind="chat", group="g")
    assert "1 kept rows ask what a row of another group asks: a split may part them" in got.findings


# Findings


def test_what_a_person_should_look_at_is_a_finding(tmp_path: Path) -> None:
    rows = [*[(f"t{i}", "Sport", "a", "") for i in range(9)], ("u", "sport ", "b", ""), ("v", "1", "b", "")]
    got = run_check(
        tmp_path,
        {"rows.tsv": table(rows, ("text", "label", "g", "note"))},
        group="g", min_class_rows=3, labels=("Sport", "sport ", "1", "Politics"),
    )  # fmt: skip
    assert "labels that differ only in case or space: 'Sport' (9), 'sport ' (1)" in got.findings
    assert "classes with fewer than 3 rows: '1' (1), 'sport ' (1)" in got.findings
    assert "classes in fewer than three groups: 'Sport'" in got.findings
    assert "declared labels without a row: 'Politics'" in got.findings
    assert "labels that are numbers: 1" in got.findings
    assert "columns that are not used: 'note'" in got.findings
    assert "the group 'a' has 9 of 11 rows, and cannot be divided" in got.findings
    assert got.facts["groups"] == {"by": "group", "column": "g", "n": 2, "largest": [{"group": "a", "rows": 9}, {"group": "b", "rows": 2}]}  # fmt: skip


def test_a_group_of_its_own_for_every_row_is_a_finding(tmp_path: Path) -> None:
    rows = [(text, label, str(i)) for i, (text, label) in enumerate(GOOD)]
    got = run_check(tmp_path, {"rows.tsv": table(rows, ("text", "label", "g"))}, group="g")
    assert "every row has a 'g' of its own: the groups join nothing" in got.findings


def test_a_record_over_many_lines_is_a_finding(tmp_path: Path) -> None:
    body = 'text,label\na,x\n"' + "b\n" * 60 + '",y\n'
    assert "rows.csv:3: one record spans 61 lines" in run_check(tmp_path, {"rows.csv": body}).findings


# Laws


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "A", "b", " ", "c\u0301", "ć", "d"]), st.sampled_from(["x", "X", "y", ""])), max_size=12),
    duplicates=st.sampled_from(["keep", "leave_out"]),
    kind=st.sampled_from(["classify", "instruct"]),
)  # fmt: skip
def test_rows_in_are_rows_kept_and_rows_left_out(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], duplicates: str, kind: str
) -> None:
    rows = [("keep 1", "x"), ("keep 2", "y"), *rows]
    got = run_check(
        tmp_path_factory.mktemp("p"), {"r.jsonl": jsonl([{"text": t, "label": a} for t, a in rows])},
        kind=kind, duplicates=duplicates, bad_rows="leave_out", contradictions="leave_out",
    )  # fmt: skip
    lines = sorted([r.line for r in got.rows] + [g.line for g in got.left_out])
    assert lines == list(range(1, len(rows) + 1))  # each once, none lost
    assert got.facts["read"] == len(rows) and got.facts["kept"] == len(got.rows)
    if kind == "classify":  # no question is left with two answers
        answers: dict[str, set[str]] = {}
        for row in got.rows:
            answers.setdefault(row.group, set()).add(row.target.casefold())
        assert all(len(a) == 1 for a in answers.values())


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"b.tsv": table(GOOD), "a.jsonl": jsonl([{"text": "z", "label": "odd"}])}
    first = run_check(tmp_path / "1", files)
    second = run_check(tmp_path / "2", dict(reversed(files.items())))
    for name in ("rows.jsonl", "left_out.jsonl", "check.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert {p.name for p in first.folder.iterdir()} == {"rows.jsonl", "left_out.jsonl", "check.json"}


def test_a_stop_is_heeded_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    inputs = CheckInputs(source=source(tmp_path / "source", {"rows.tsv": table(two_classes(5_000))}))
    work = Workspace(root=tmp_path / "work")
    work.stop.set()
    with pytest.raises(Stopped):
        check(check_spec(), inputs, work)
    assert list((work.scratch / "examples").iterdir()) == []


def test_a_full_disk_is_a_message_and_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        says = r"rows\.jsonl: could not write: File too large"
        with pytest.raises(StorageError, match=says), LinesWriter(tmp_path / "rows.jsonl") as out:
            for i in range(10_000):
                out.write({"text": "x" * 100, "i": i})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_the_stages_name_their_functions_and_load_no_code_of_them(tmp_path: Path) -> None:
    assert CHECK.resolve() is check and PREPARE.function == "tunesmith.data.prepare:prepare"
    for stage in (CHECK, PREPARE):
        assert not [f for f in stage.spec.__dataclass_fields__.values() if f.default is not f.default_factory]
