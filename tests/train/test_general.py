"""Instruction tuning beside general data: mixed in, scored, replayed, and kept within a budget."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.train import data
from tests.train.domain_data import asked_rows, make_texts, text_rows
from tests.train.test_resume import stopping_at
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.stage import Workspace

OTHER = ["fracture", "neoplasms", "injury", "poisoning", "expert", "answer", "label", "circulatory"]
FAST = {"lr": 3e-2, "epochs": 4.0, "validate_times": 4, "schedule": "constant", "warmup": 0.0}


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = text_rows(12, seed=3, file="texts.jsonl", words=OTHER)
    probes = [
        *text_rows(3, seed=4, file="texts.jsonl", words=OTHER),
        *asked_rows(3),
        *data.make_rows(8, seed=5, file="labels.csv"),
    ]
    return make_texts(tmp_path_factory.mktemp("general"), [*texts, *asked_rows(4)], probes)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory, dataset: Path, general: Path, sharp_llama: Path) -> Workspace:
    return data.train(
        tmp_path_factory.mktemp("free"), dataset, sharp_llama, general=general, refusals="(?i)will not", **FAST
    )


def validations(work: Workspace) -> list[dict[str, float]]:
    return [line for line in data.log(work) if "validation_loss" in line]


def test_what_is_gained_and_what_is_forgotten_stand_side_by_side(free: Workspace) -> None:
    first, last = validations(free)[0], validations(free)[-1]
    assert first["step"] == 0 and first["loss_rise"] == 0.0
    for line in (first, last):
        assert {"validation_loss", "macro_f1", "general_loss", "general_bits_per_byte"} <= set(line)
        assert line["refused refusals.jsonl"] == 0.0  # random weights refuse nothing
        assert 0 <= line["accuracy labels.csv"] <= 1
    assert last["validation_loss"] < first["validation_loss"]
    gained, facts = free.summary["gained"], free.summary["forgetting"]
    assert gained["validation_loss"][0] == first["validation_loss"]
    assert set(facts["general_loss"]) == {"texts.jsonl", "refusals.jsonl", "labels.csv"}
    note = next(n for n in free.summary["notes"] if n.startswith("Gained: "))
    assert "Forgotten: " in note and facts["most_forgotten"] in note and "refused refusals.jsonl 0% → 0%" in note
    assert facts["general_shares_before"].keys() == {"refused refusals.jsonl", "accuracy labels.csv"}


def test_scoring_general_data_changes_no_weight(
    tmp_path: Path, dataset: Path, sharp_llama: Path, free: Workspace
) -> None:
    plain = data.train(tmp_path / "plain", dataset, sharp_llama, **FAST)
    assert data.losses(plain) == data.losses(free)


def test_past_the_budget_instruction_tuning_stops(
    tmp_path: Path, dataset: Path, general: Path, sharp_llama: Path, free: Workspace
) -> None:
    rises = [v["loss_rise"] for v in validations(free)]
    allowed = max(rises[:-1]) * 0.5  # exceeded before training ends by itself
    assert allowed > 0
    kept = data.train(tmp_path / "kept", dataset, sharp_llama, general=general, max_loss_rise=allowed, **FAST)
    over = [v["loss_rise"] > allowed for v in validations(kept)]
    assert over[-1] and not any(over[:-1])
    assert kept.summary["stopped_early"] == "the budget for forgetting was exceeded"
    assert any("stopped after" in n for n in kept.summary["notes"])
    assert kept.summary["forgetting"]["loss_rise"] <= allowed
    facts = json.loads((kept.scratch / "checkpoint" / "checkpoint.json").read_text())
    assert facts["best_step"] < kept.summary["steps"] <= facts["steps"]


def test_replay_comes_on_top_and_a_resumed_run_replays_the_same(
    tmp_path: Path, dataset: Path, general: Path, sharp_llama: Path, free: Workspace
) -> None:
    said = {"general": general, "max_loss_rise": 1e-4, "past_budget": "replay", **FAST}
    whole = data.train(tmp_path / "whole", dataset, sharp_llama, **said)
    first = whole.summary["forgetting"]["replay_from"]
    assert first and first < whole.summary["steps"]
    tokens = {x["step"]: x["tokens"] for x in data.log(whole) if "loss" in x}
    plain = {x["step"]: x["tokens"] for x in data.log(free) if "loss" in x}
    assert all((tokens[s] > plain[s]) == (s > first) for s in tokens)
    assert validations(whole)[-1]["general_loss"] < validations(free)[-1]["general_loss"]
    stop = threading.Event()
    progress = stopping_at({(first + 1, "train")}, stop)
    with pytest.raises(Stopped):
        data.train(tmp_path / "cut", dataset, sharp_llama, stop=stop, progress=progress, **said)
    again = data.train(tmp_path / "cut", dataset, sharp_llama, **said)
    assert data.files(again) == data.files(whole)


def test_a_mixture_takes_its_share_from_the_start(
    tmp_path: Path, dataset: Path, general: Path, sharp_llama: Path, free: Workspace
) -> None:
    mixed = data.train(tmp_path / "m", dataset, sharp_llama, general=general, mixture=(("general", 0.25),), **FAST)
    assert mixed.summary["mixture"]["general"] == {"size": 16, "an_epoch": 8.0, "rounds": 0.5}
    assert mixed.summary["steps"] == 4 * 24 // 6  # 8 of 32 are general
    assert validations(mixed)[-1]["general_loss"] < validations(free)[-1]["general_loss"]


def test_a_budget_without_anything_to_hold_it_against_is_refused(
    tmp_path: Path, dataset: Path, sharp_llama: Path
) -> None:
    with pytest.raises(InputError, match="needs general data to score"):
        data.train(tmp_path / "a", dataset, sharp_llama, max_loss_rise=0.1)
    with pytest.raises(InputError, match="no general data to replay"):
        data.train(tmp_path / "b", dataset, sharp_llama, mixture=(("general", 0.1),))
    with pytest.raises(InputError, match=r"train\.refusals.*regular expression"):
        data.train(tmp_path / "c", dataset, sharp_llama, refusals="(")
