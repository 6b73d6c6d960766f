"""What is forgotten is scored at every validation, and a budget for it is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.train import data
from tests.train.domain_data import adapt, asked_rows, make_texts, text_rows
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.stage import Workspace
from tunesmith.train.forgetting import Budget, Forgetting

OTHER = ["fracture", "neoplasms", "injury", "poisoning", "expert", "answer", "label", "circulatory"]
FAST = {"lr": 3e-2, "epochs": 8.0, "validate_times": 8, "schedule": "constant"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_texts(tmp_path_factory.mktemp("texts"), text_rows(20, seed=1), text_rows(8, seed=2))


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    probes = [*text_rows(6, seed=4, file="general.jsonl", words=OTHER), *asked_rows(3)]
    return make_texts(
        tmp_path_factory.mktemp("general"), text_rows(30, seed=3, file="general.jsonl", words=OTHER), probes
    )


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory, general: Path, tiny_llama: Path) -> Path:
    """A model that knows the general texts and refusals, so that it has something to forget."""
    folder = tmp_path_factory.mktemp("knowing")
    both = make_texts(
        folder / "data",
        [*text_rows(30, seed=3, file="general.jsonl", words=OTHER)],
        text_rows(4, seed=9, file="general.jsonl", words=OTHER),
    )
    work = adapt(folder / "work", both, tiny_llama, method=data.FULL, lr=5e-3, epochs=12.0, validate_times=1)
    return work.scratch / "checkpoint"


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory, texts: Path, general: Path, knowing: Path) -> Workspace:
    """Trained on the domain alone, with no budget."""
    return adapt(tmp_path_factory.mktemp("free"), texts, knowing, general=general, **FAST)


def validations(work: Workspace) -> list[dict[str, float]]:
    return [line for line in data.log(work) if "validation_loss" in line]


def test_general_data_is_scored_beside_the_domain(free: Workspace) -> None:
    first, last = validations(free)[0], validations(free)[-1]
    assert first["loss_rise"] == 0.0
    assert last["bits_per_byte"] < 0.85 * first["bits_per_byte"]  # gained
    assert last["general_bits_per_byte"] > 1.2 * first["general_bits_per_byte"]  # forgotten
    facts = free.summary["forgetting"]
    assert set(facts["general_loss"]) == {"general.jsonl", "refusals.jsonl"}
    rises = {f: facts["general_loss"][f] / facts["general_loss_before"][f] - 1 for f in facts["general_loss"]}
    assert facts["loss_rise"] == pytest.approx(max(rises.values()))
    assert facts["most_forgotten"] == max(rises, key=lambda f: rises[f])


def test_past_the_budget_training_stops_and_what_is_kept_is_within_it(
    tmp_path: Path, texts: Path, general: Path, knowing: Path, free: Workspace
) -> None:
    rises = [v["loss_rise"] for v in validations(free)]
    allowed = (rises[2] + max(rises[:2])) / 2 if rises[2] > max(rises[:2]) else rises[1] * 0.9
    kept = adapt(tmp_path / "kept", texts, knowing, general=general, max_loss_rise=allowed, **FAST)
    over = [v["loss_rise"] > allowed for v in validations(kept)]
    assert over[-1] and not any(over[:-1])  # it stopped at the first that was over
    assert kept.summary["stopped_early"] == "the budget for forgetting was exceeded"
    assert kept.summary["forgetting"]["loss_rise"] <= allowed
    assert kept.summary["best_step"] < kept.summary["steps"] < kept.summary["steps_planned"]
    assert kept.summary["forgetting"]["over_at"] == [kept.summary["steps"]]


def test_replay_begins_where_the_budget_was_passed_and_lowers_what_is_forgotten(
    tmp_path: Path, texts: Path, general: Path, knowing: Path, free: Workspace
) -> None:
    work = adapt(tmp_path / "work", texts, knowing, general=general, max_loss_rise=0.02, past_budget="replay", **FAST)
    first = work.summary["forgetting"]["replay_from"]
    lines = {x["step"]: x["tokens"] for x in data.log(work) if "loss" in x}
    plain = {x["step"]: x["tokens"] for x in data.log(free) if "loss" in x}
    assert first is not None and 0 < first < work.summary["steps"] == work.summary["steps_planned"]
    before = [s for s in lines if s <= first]
    after = [s for s in lines if s > first]
    assert all(lines[s] == plain[s] for s in before)
    added = sum(lines[s] - plain[s] for s in after)
    assert added == pytest.approx(sum(plain[s] for s in after), rel=0.1)  # a share of one half
    assert validations(work)[-1]["general_bits_per_byte"] < validations(free)[-1]["general_bits_per_byte"]


def test_a_mixture_replays_from_the_start(
    tmp_path: Path, texts: Path, general: Path, knowing: Path, free: Workspace
) -> None:
    mixed = adapt(tmp_path / "mixed", texts, knowing, general=general, mixture=(("general", 0.3),), **FAST)
    assert mixed.summary["tokens"] == pytest.approx(free.summary["tokens"] / 0.7, rel=0.02)
    assert mixed.summary["mixture"]["general"]["rounds"] > 0
    assert validations(mixed)[-1]["general_bits_per_byte"] < validations(free)[-1]["general_bits_per_byte"]


def test_a_budget_without_anything_to_hold_it_against_is_refused(
    tmp_path: Path, texts: Path, general: Path, tiny_llama: Path
) -> None:
    with pytest.raises(InputError, match="needs general data to score"):
        adapt(tmp_path / "a", texts, tiny_llama, max_loss_rise=0.1)
    only_probes = make_texts(tmp_path / "probes", [], text_rows(3, seed=0))
    with pytest.raises(InputError, match="replay needs training rows"):
        adapt(tmp_path / "b", texts, tiny_llama, general=only_probes, max_loss_rise=0.1, past_budget="replay")
    with pytest.raises(InputError, match="no general data to replay"):
        adapt(tmp_path / "c", texts, tiny_llama, mixture=(("general", 0.1),))
    nothing = make_texts(tmp_path / "nothing", text_rows(3, seed=0), [])
    with pytest.raises(DataError, match="no validation rows to score"):
        adapt(tmp_path / "d", texts, tiny_llama, general=nothing)


def test_readings_after_the_last_saved_step_are_read_again(tmp_path: Path) -> None:
    class Fixed:
        losses_at = iter([{"a": 1.0, "b": 2.0}, {"a": 1.1, "b": 2.1}, {"a": 1.3, "b": 1.0}])

        def losses(self, forward: object, *, max_tokens: int) -> dict[str, float]:
            return next(self.losses_at)

        def bits_per_byte(self, losses: dict[str, float]) -> float | None:
            return None

        def shares(self, *_: object, **__: object) -> dict[str, float]:
            return {}

    budget = Budget(max_loss_rise=0.2, past="stop", replay_share=0.5)
    forgetting = Forgetting(Fixed(), budget, tmp_path)  # type: ignore[arg-type]
    for step in (0, 4, 8):
        forgetting.read(step, None, None, max_tokens=1)  # type: ignore[arg-type]
    assert forgetting.over and forgetting.stops and forgetting.worst(8) == "a"
    assert forgetting.rise(4) == pytest.approx(0.1) and math.isclose(forgetting.rise(8), 0.3)
    again = Forgetting(Fixed(), budget, tmp_path)  # type: ignore[arg-type]
    again.resume(4)
    assert sorted(again.readings) == [0, 4] and not again.over
