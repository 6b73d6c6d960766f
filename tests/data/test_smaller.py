"""A subset of the training rows: everything that the split kept apart stays apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.smaller import smaller
from tunesmith.data.stages import SubsetInputs, SubsetSpec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    project = Project.open(make_project(tmp_path_factory.mktemp("smaller") / "news", tiny_llama))
    return project.ledger.path(project.prepare().outputs["dataset"])


def made(dataset: Path, folder: Path, rows: int, seed: int = 0) -> Path:
    spec = SubsetSpec(rows=rows, seed=seed)
    return smaller(spec, SubsetInputs(dataset=dataset), Workspace(root=folder)).dataset


def rows_of(dataset: Path, split: str = "train") -> list[Row]:
    return list(read_lines(dataset / f"{split}.jsonl", Row))


def test_the_rows_are_training_rows_and_the_judged_rows_are_untouched(dataset: Path, tmp_path: Path) -> None:
    small = made(dataset, tmp_path, 30)
    chosen, whole = rows_of(small), rows_of(dataset)
    assert len(chosen) == 30 < len(whole)
    assert {r.id for r in chosen} < {r.id for r in whole}
    for split in ("validation", "test"):
        assert (small / f"{split}.jsonl").read_bytes() == (dataset / f"{split}.jsonl").read_bytes()
        assert not {r.group for r in chosen} & {r.group for r in rows_of(small, split)}
    facts, before = read_json(small / "dataset.json"), read_json(dataset / "dataset.json")
    assert facts["seal"] == before["seal"]
    assert facts["counts"] == {**before["counts"], "train": 30}
    assert facts["subset"] == {"rows": 30, "of": len(whole), "seed": 0}
    assert sum(n["train"] for n in facts["class_counts"].values()) == 30


def test_classes_keep_their_shares_and_a_larger_subset_contains_a_smaller_one(dataset: Path, tmp_path: Path) -> None:
    small = rows_of(made(dataset, tmp_path / "a", 24))
    large = rows_of(made(dataset, tmp_path / "b", 48))
    assert {r.id for r in small} < {r.id for r in large}
    labels = [r.target for r in small]
    assert all(6 <= labels.count(label) <= 10 for label in set(labels)) and len(set(labels)) == 3


def test_the_seed_chooses_and_nothing_else_does(dataset: Path, tmp_path: Path) -> None:
    first, again, other = (made(dataset, tmp_path / n, 24, seed) for n, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert (first / "train.jsonl").read_bytes() == (again / "train.jsonl").read_bytes()
    assert (first / "train.jsonl").read_bytes() != (other / "train.jsonl").read_bytes()


def test_more_rows_than_there_are_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--set matrix\.subset="):
        made(dataset, tmp_path, 100_000)
