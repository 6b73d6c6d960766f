"""`init` makes a project that holds, out of one's own copy of the data, or makes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.api import Project
from tunesmith.cli.app import run
from tunesmith.core.errors import DataError, InputError

CSV = "description,chapter,category\nFracture,Injury,S82\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "diagnoses.csv").write_text(CSV)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


FULL = ["--kind", "classify", "--data", "diagnoses.csv", "--text", "description", "--label", "chapter"]


def test_a_project_is_made_and_its_file_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--group", "category", "--goal", "macro_f1 >= 0.7", "--goal", "accuracy >= 0.6 @ group=S82"]
    assert run(["init", "coding", *FULL, *arguments, "--audience", "clinical: coders", "--model", "./m"]) == 0
    printed = capsys.readouterr()
    text = (here / "coding" / "tunesmith.yaml").read_text()
    assert text in printed.out
    assert "next:  cd coding && tunesmith check" in printed.out
    assert not printed.err
    project = Project.open(here / "coding")
    assert [str(g) for g in project.file.goals()] == ["macro_f1 >= 0.7", "accuracy >= 0.6 on group=S82"]
    assert project.file.task().audience == "clinical: coders"
    assert project.file.settings.model == "./m"
    copy = here / "coding" / "diagnoses.csv"
    assert copy.read_text() == CSV
    assert not copy.samefile(here / "diagnoses.csv")
    assert made(here / "coding") == {
        "diagnoses.csv",
        "tunesmith.yaml",
        ".tunesmith/.gitignore",
        ".tunesmith/schema.json",
    }


def test_json_names_the_project_and_what_was_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "coding", *FULL, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["project"] == str(here / "coding")
    assert printed["settings"]["task.text"] == "description"
    assert printed["settings"]["goals"] == [{"beats": ["majority", "tfidf", "zero_shot", "few_shot"]}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "classify", "--data", "diagnoses.csv"], "diagnoses.csv: a classify task must know which column is the text and which the label; it has description, chapter, category\n  fix:   --text COLUMN --label COLUMN"),
        ([*FULL, "--text", "descripton"], "diagnoses.csv: has no column 'descripton' for --text; it has description, chapter, category\n  fix:   did you mean description?"),
        ([*FULL, "--group", "patient"], "has no column 'patient' for --group"),
        ([*FULL, "--goal", "macrof1 >= 0.7"], "--goal: macrof1 is not a metric\n  fix:   Did you mean macro_f1?"),
        ([*FULL, "--goal", "macro_f1 >= 70"], "--goal: macro_f1 lies between 0 and 1"),
        ([*FULL, "--goal", "accuracy >= 0.6 @ group=S82"], "task.group names no column"),
        ([*FULL, "--data", "nope.csv"], "nope.csv: there is no such file"),
        ([*FULL, "--data", "diagnoses.csv"], "2 files have this name"),
        ([*FULL, "--data", "empty.csv"], "empty.csv: the file is empty"),
        ([*FULL, "--data", "notes.docx"], "notes.docx:"),
        ([*FULL, "--label", "description"], "task.label and task.text name the same column"),
        ([*FULL, "--tone", "a\x1bb"], "U+001B is not allowed"),
    ],
)  # fmt: skip
def test_what_cannot_hold_is_refused_and_leaves_nothing(
    here: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty.csv").write_text("")
    (here / "notes.docx").write_text("x")
    before = made(here)
    assert run(["init", "a/b/coding", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert made(here) == before
    assert not (here / "a").exists()


def test_every_problem_is_said_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "x", *FULL, "--text", "a", "--label", "b", "--goal", "c >= 1", "--goal", "d"]) == 2
    said = capsys.readouterr().err
    assert said.count("diagnoses.csv: has no column") == 2
    assert said.count("--goal: ") == 2


def test_an_existing_project_or_file_is_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "coding", *FULL]) == 0
    before = {name: (here / "coding" / name).read_bytes() for name in made(here / "coding")}
    assert run(["init", "coding", *FULL]) == 2
    assert "has a tunesmith.yaml already" in capsys.readouterr().err
    (here / "other").mkdir()
    (here / "other" / "diagnoses.csv").write_text("mine")
    assert run(["init", "other", *FULL]) == 2
    assert "has another diagnoses.csv already, which would be overwritten" in capsys.readouterr().err
    assert (here / "other" / "diagnoses.csv").read_text() == "mine"
    assert {name: (here / "coding" / name).read_bytes() for name in made(here / "coding")} == before
    assert run(["init", "diagnoses.csv", *FULL]) == 2
    assert "is a file" in capsys.readouterr().err


def test_init_beside_the_data_uses_it_where_it_lies(here: Path) -> None:
    stat = (here / "diagnoses.csv").stat()
    assert run(["init", ".", *FULL]) == 0
    assert (here / "diagnoses.csv").stat().st_ino == stat.st_ino
    assert Project.open().file.settings.data.files == ["diagnoses.csv"]


def test_a_failed_write_leaves_a_folder_that_was_there_as_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "keep.txt").write_text("k")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("tunesmith.flows.create.write_project", full)
    assert run(["init", "mine", *FULL]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert made(here / "mine") == {"keep.txt"}


def test_json_lines_need_no_columns(here: Path) -> None:
    (here / "chat.jsonl").write_text('{"messages": []}\n')
    assert run(["init", "bot", "--kind", "chat", "--data", "chat.jsonl", "--goal", "chrf >= 20"]) == 0
    assert Project.open(here / "bot").file.task().text is None


def test_a_semicolon_table_has_its_columns_found(here: Path) -> None:
    (here / "de.csv").write_text("\ufefftext;klasse\nja;gut\n", encoding="utf-8")
    assert run(["init", "de", "--kind", "classify", "--data", "de.csv", "--text", "text", "--label", "klasse"]) == 0


# From Python


def test_rows_make_a_project_too(tmp_path: Path) -> None:
    import pandas

    rows = [{"t": "a", "l": "x", "n": 1}, {"t": "b", "l": None, "n": 2}]
    frame = pandas.DataFrame(rows)
    for name, data in {"list": rows, "frame": frame, "generator": iter(rows)}.items():
        project = Project.create(tmp_path / name, data=data, kind="classify", text="t", label="l")
        written = [json.loads(line) for line in (tmp_path / name / "rows.jsonl").read_text().splitlines()]
        assert written == rows, name
        assert project.file.settings.data.files == ["rows.jsonl"]


def test_a_hugging_face_dataset_makes_a_project(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"t": "a", "l": "x"}, {"t": "b", "l": "y"}]
    Project.create(tmp_path / "p", data=Dataset.from_list(rows), kind="classify", text="t", label="l")
    assert [json.loads(line) for line in (tmp_path / "p" / "rows.jsonl").read_text().splitlines()] == rows


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([{"t": "a", "l": object()}], r"data\[0\]\.l: a value of type object has no JSON form"),
        ([{"t": "a", "l": float("inf")}], r"data\[0\]\.l: a value of type float has no JSON form"),
        ([{"t": "\ud800", "l": "x"}], r"data\[0\]\.t: a value of type str has no JSON form"),
        ([3], "row 0 is int, not a dict"),
        ([], "there are no rows"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, data: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Project.create(tmp_path / "p", data=data, kind="classify", text="t", label="l")
    assert not (tmp_path / "p").exists()


def test_a_kind_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'clasify' is not a kind of task") as e:
        Project.create(tmp_path / "p", data=[{"t": "a"}], kind="clasify")
    assert "Did you mean classify?" in str(e.value)
