"""Tunesmith may write a value into the project file; every other line stays as its owner wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import ProjectFileError
from tunesmith.core.project_edit import set_values
from tunesmith.core.project_file import load

TEXT = """\
# ours
task: {kind: chat}  # talk
data:
  files: [a.jsonl]  # the export
  bad_rows: "leave_out"
model: smollm2-135m-instruct

goals: []
"""


def project(folder: Path) -> Path:
    (folder / "a.jsonl").write_text("{}\n", encoding="utf-8")
    path = folder / "tunesmith.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_value_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    path = project(tmp_path)
    set_values(path, {"data.seed": 3, "train.lr": 0.001})
    text = path.read_text(encoding="utf-8")
    assert set(TEXT.splitlines()) <= set(text.splitlines())
    settings = load(path).settings
    assert (settings.data.seed, settings.train.lr) == (3, 0.001)


def test_a_value_that_does_not_hold_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = project(tmp_path)
    with pytest.raises(ProjectFileError, match="seed"):
        set_values(path, {"data.seed": -1})
    assert path.read_text(encoding="utf-8") == TEXT
