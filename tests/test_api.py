"""The same in Python: data as values, nouns that print well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import Project

ROWS = [
    {"text": f"{'ball goal' if i % 2 else 'stock bank'} {i}", "label": "sports" if i % 2 else "business"}
    for i in range(80)
]


@pytest.mark.parametrize("shape", ["list", "frame", "dataset"])
def test_a_project_from_values(tmp_path: Path, tiny_llama: Path, shape: str) -> None:
    data: object = ROWS
    if shape == "frame":
        import pandas

        data = pandas.DataFrame(ROWS)
    if shape == "dataset":
        import datasets

        data = datasets.Dataset.from_list(ROWS)
    project = Project.create(
        tmp_path / "p", data=data, kind="classify", text="text", label="label", model=str(tiny_llama),
        goals=["macro_f1 >= 0.5"],
    )  # fmt: skip
    checked = project.check()
    assert checked.facts["kept"] == 80
    assert checked.dataset and sum(checked.dataset["counts"].values()) == 80
    assert "80 rows read" in str(checked) and "sports" in str(checked)


def test_a_new_project_is_found_from_below(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Project.create(tmp_path / "p", data=ROWS, kind="classify", text="text", label="label", model=str(tiny_llama))
    below = tmp_path / "p" / "notes" / "old"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Project.open().root == (tmp_path / "p").resolve()
    assert repr(Project.open()).startswith("Project(")


def test_tokens_show_what_is_trained(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.create(
        tmp_path / "p", data=ROWS, kind="classify", text="text", label="label", model=str(tiny_llama)
    )
    shown = str(project.tokens("rows.jsonl:2"))
    marked = shown[shown.index("‹") : shown.index("›")]
    assert marked.replace("|", "") == "‹sports<im_end>"
    assert "3 trained" in shown
