"""data.files may name files, folders and globs; each file has one name, whatever the order."""

from __future__ import annotations

from pathlib import Path

from tunesmith.core.sources import expand


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x", encoding="utf-8")


def test_a_file_is_known_by_its_own_name_and_a_folders_files_by_their_path(tmp_path: Path) -> None:
    make(tmp_path, "deep/a.csv", "mail/spam/1", "mail/ham/1", "mail/.hidden", "mail/.git/config")
    found = expand(tmp_path, ["deep/a.csv", "mail/"]).files
    assert list(found) == ["a.csv", "mail/ham/1", "mail/spam/1"]
    assert found["a.csv"] == tmp_path / "deep" / "a.csv"


def test_globs_keep_the_path_below_the_project(tmp_path: Path) -> None:
    make(tmp_path, "logs/1.jsonl", "logs/2.jsonl", "logs/old/3.jsonl", "logs/readme.md")
    assert list(expand(tmp_path, ["logs/*.jsonl"]).files) == ["logs/1.jsonl", "logs/2.jsonl"]
    assert list(expand(tmp_path, ["logs/**/*.jsonl"]).files) == ["logs/1.jsonl", "logs/2.jsonl", "logs/old/3.jsonl"]


def test_the_order_of_entries_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "b/c.csv", "b/d.csv")
    assert list(expand(tmp_path, ["a.csv", "b"]).files) == list(expand(tmp_path, ["b/", "a.csv"]).files)


def test_entries_that_name_nothing_and_names_that_clash_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "x/a.csv", "y/a.csv")
    found = expand(tmp_path, ["x/a.csv", "y/a.csv", "*.nothing"])
    assert found.empty == (2,)
    assert [(c.entry, c.name) for c in found.clashes] == [(1, "a.csv")]


def test_our_own_pages_are_no_data(tmp_path: Path) -> None:
    make(tmp_path, "tunesmith.yaml", "report.html", "rows.csv", ".tunesmith/ledger.db")
    assert [Path(n).name for n in expand(tmp_path, ["."]).files] == ["rows.csv"]
