"""The README shows what is there: the demo's project file, short enough to read, every link alive."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT, blocks
from tunesmith.core.project_file import load

DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[A-Z]*.md")]


def test_the_demo_project_file_is_the_one_shown() -> None:
    assert blocks("README.md", "yaml")[0][1] == (ROOT / "examples" / "icd10.yaml").read_text(encoding="utf-8")


def test_the_demo_project_file_is_valid(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "tunesmith.yaml").write_text((ROOT / "examples" / "icd10.yaml").read_text(encoding="utf-8"))
    (folder / "diagnoses.csv").write_text("description,chapter,category\na,b,c\n")
    project = load(folder / "tunesmith.yaml")
    assert project.settings.train.lr == 1e-3
    assert [str(g) for g in project.goals()] == ["macro_f1 >= 0.7", "beats majority, tfidf, zero_shot, few_shot"]


def test_it_is_short_enough_to_read() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: object) -> None:
    from pathlib import Path

    path = Path(str(document))
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
