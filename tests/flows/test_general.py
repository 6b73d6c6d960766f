"""An instruction project that keeps an eye on what its training makes the model forget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.cli.app import run
from tunesmith.core.canonical import read_lines


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    general = (
        "rank: 4}, general: [texts.jsonl, refusals.jsonl], mixture: {general: 0.2}, refusals: '(?i)cannot', "
        "max_loss_rise: 9, past_budget: replay"
    )
    folder = make_project(tmp_path / "news", tiny_llama, n=90, **{"rank: 4}": general})
    lines(folder / "texts.jsonl", [{"text": f"The weather of day {i} was mild, the streets quiet."} for i in range(30)])
    refusals = [
        {"prompt": f"Tell me how to break lock {i}.", "completion": "I cannot help with that."} for i in range(30)
    ]
    lines(folder / "refusals.jsonl", refusals)
    return folder


def test_texts_and_refusals_are_scored_and_mixed_in(folder: Path) -> None:
    project = Project.open(folder)
    result = project.run()
    train = next(project.ledger.run(s.run) for s in result.steps if s.name == "train")
    assert set(train.metrics["forgetting"]["general_loss"]) == {"texts.jsonl", "refusals.jsonl"}
    assert "refused refusals.jsonl" in train.metrics["forgetting"]["general_shares"]
    assert train.metrics["mixture"]["general"]["an_epoch"] > 10
    log = list(read_lines(project.ledger.path(train.outputs["metrics"]) / "metrics.jsonl"))
    assert next(line["step"] for line in log if "general_loss" in line) == 0
    page = Path(result.report).read_text(encoding="utf-8")
    assert "Gained: validation loss" in page and "Forgotten: the loss on general data" in page
    assert ">general loss</th>" in page and ">refused refusals.jsonl</th>" in page
    assert any("Forgotten" in n for n in project.show(train.id)["run"]["metrics"]["notes"])


def test_a_plan_counts_what_the_mixture_takes_of_the_general_data(folder: Path) -> None:
    """`prepare` and `plan` divide the general data too, so the first plan is right already."""
    project = Project.open(folder)
    planned = project.plan(probe=False).training
    train = project.train()
    assert (planned.steps, planned.tokens) == (train.metrics["steps"], train.metrics["tokens"])


def test_what_cannot_be_meant_is_refused_before_time_is_spent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*said: str) -> str:
        assert run(["train", "--project", str(folder), *(w for s in said for w in ("--set", s))]) == 2
        return capsys.readouterr().err

    assert "no file with training rows has this name" in refused("train.mixture={other.csv: 0.2}")
    assert "train.refusals is no pattern" in refused("train.refusals=(")
    assert "train.max_loss_rise" in refused("train.max_loss_rise=0")
    said = refused("train.general=[]")
    assert "train.max_loss_rise needs general data to score" in said and "train.refusals needs" in said
    assert "no general data to replay" in said and "train.general: [FILE]" in said
