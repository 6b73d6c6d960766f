"""Which validated weights stay: by rank, bounded on disk, the same after a stop, and real checkpoints."""

from __future__ import annotations

import json
import math
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train import data, domain_data
from tests.train.test_resume import stopping_at
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.stage import Workspace
from tunesmith.train import state
from tunesmith.train.retention import Retention
from tunesmith.train.state import Position

OFTEN = {"epochs": 4.0, "validate_times": 12, "lr": 3e-2, "schedule": "constant"}  # 12 steps, each validated


def walked(
    outcomes: list[tuple[float, float | None]], *, higher: bool = True, forgot: tuple[int, ...] = ()
) -> Position:
    at = Position(spec_id="x")
    for step, (loss, metric) in enumerate(outcomes, 1):
        at = replace(at, step=step).after(loss, metric, higher, allowed=step not in forgot)
    return at


def names(work: Workspace) -> list[str]:
    return sorted(k["output"] for k in work.summary["kept"])


def steps(at: Position, keep: int, last: int = 0, *, higher: bool = True) -> tuple[int, ...]:
    return Retention(keep=keep, last=last, higher_is_better=higher).steps(at)


def test_the_rank_is_the_metric_then_the_loss_then_the_earlier() -> None:
    at = walked([(2.0, 0.5), (1.0, 0.7), (0.9, 0.5), (3.0, 0.7), (2.0, 0.5)])
    assert steps(at, 1) == (2,)
    assert steps(at, 9) == (2, 4, 3, 1, 5)
    assert steps(walked([(1.0, 0.3), (1.0, 0.1), (1.0, 0.2)], higher=False), 2, higher=False) == (2, 3)
    assert steps(walked([(3.0, None), (1.0, None), (2.0, None)]), 2) == (2, 3)
    assert steps(walked([(1.0, 0.2), (1.0, math.nan), (1.0, 0.1)]), 2) == (1, 3)


def test_the_first_of_the_rank_is_the_best_that_was_chosen() -> None:
    rng = random.Random(0)
    for _ in range(300):
        few = [(rng.choice([1.0, 2.0, 3.0]), rng.choice([0.1, 0.2, 0.3])) for _ in range(rng.randint(1, 9))]
        higher, forgot = rng.random() < 0.5, tuple(rng.sample(range(2, 10), 3))
        at = walked(few, higher=higher, forgot=forgot)
        for keep in (1, 2, 4):
            held = steps(at, keep, higher=higher)
            assert held[0] == at.best_step and len(held) == min(keep, len(few) - sum(f <= len(few) for f in forgot))


def test_the_newest_stay_beside_the_best_and_what_forgot_too_much_only_there() -> None:
    at = walked([(1.0, 0.9), (1.0, 0.8), (1.0, 0.95), (1.0, 0.1)], forgot=(3,))
    assert steps(at, 2) == (1, 2)
    assert steps(at, 2, 2) == (1, 2, 3, 4)
    assert steps(at, 1, 1) == (1, 4)
    assert steps(walked([(1.0, 0.1), (1.0, 0.2)]), 1, 1) == (2,)  # best and newest


def test_the_untrained_model_stays_only_as_the_best() -> None:
    start = Position(spec_id="x").after(1.0, 0.5, True)
    assert steps(start, 3) == (0,)
    assert steps(replace(start, step=4).after(1.0, 0.6, True), 3, 3) == (4,)
    assert steps(replace(start, step=4).after(1.0, 0.4, True), 3) == (0, 4)


def test_what_is_trained_and_the_best_are_the_same_whatever_is_kept(
    tmp_path: Path, dataset: Path, sharp_llama: Path
) -> None:
    usual = data.train(tmp_path / "usual", dataset, sharp_llama, **OFTEN)
    more = data.train(tmp_path / "more", dataset, sharp_llama, keep=3, keep_last=2, **OFTEN)
    found = data.files(more)
    assert {n: b for n, b in found.items() if not n.startswith("kept-")} == data.files(usual)
    beside = {n.partition("/")[0] for n in found if n.startswith("kept-")}
    assert 3 <= len(beside) <= 4 and names(more) == sorted(beside)
    assert {
        k: v for k, v in usual.summary.items() if "second" not in k and "_s" not in k and k != "peak_mib"
    }.items() <= (more.summary.items())
    assert not list(usual.scratch.glob("kept-*")) and "kept" not in usual.summary


def test_each_says_what_validation_said_of_it(tmp_path: Path, dataset: Path, sharp_llama: Path) -> None:
    work = data.train(tmp_path / "work", dataset, sharp_llama, keep=3, **OFTEN)
    said = {line["step"]: line["macro_f1"] for line in data.log(work) if "macro_f1" in line}
    best = json.loads((work.scratch / "checkpoint" / "checkpoint.json").read_text())
    assert best["best"] == max(said.values()) and "best_of_run" not in best
    beside = [json.loads((work.scratch / n / "checkpoint.json").read_text()) for n in names(work)]
    assert len(beside) == 2
    for facts in beside:
        assert facts["best"] == said[facts["best_step"]] and facts["best_of_run"] == best["best_step"]
    assert sorted(said.values())[-3:] == sorted([best["best"], *(f["best"] for f in beside)])


@pytest.mark.parametrize(
    "method", [data.LORA, replace(data.LORA, init="pissa"), data.FULL], ids=["lora", "pissa", "full"]
)
def test_one_kept_beside_is_what_it_would_be_as_the_best(
    tmp_path: Path, dataset: Path, sharp_llama: Path, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"method": method, "epochs": 1.0, "validate_times": 3, "metric": "", "lr": 1e-3}
    kept = data.train(tmp_path / "kept", dataset, sharp_llama, keep=3, **few)
    step = int(names(kept)[0].removeprefix("kept-"))
    after = Position.after

    def only_that_one(self: Position, *args: Any, **more: Any) -> Position:
        return after(self, *args, **{**more, "allowed": self.step == step})

    monkeypatch.setattr(Position, "after", only_that_one)
    other = data.train(tmp_path / "other", dataset, sharp_llama, **few)
    ours, theirs = kept.scratch / f"kept-{step}", other.scratch / "checkpoint"
    assert [p.name for p in sorted(ours.iterdir())] == [p.name for p in sorted(theirs.iterdir())]
    for file in ours.iterdir():
        if file.name != "checkpoint.json":
            assert file.read_bytes() == (theirs / file.name).read_bytes()
    assert data.weights(kept).keys() and ours.joinpath("checkpoint.json").read_bytes() != b""


def test_the_disk_is_bounded_during_the_run(
    tmp_path: Path, dataset: Path, sharp_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[str, int]] = []
    folder = tmp_path / "work" / "state"

    def counted(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> None:
            real(*args, **more)
            counts.append((name, len(list(folder.glob("best-*.safetensors")))))

        return call

    for name in ("hold", "save"):
        monkeypatch.setattr(state, name, counted(name, getattr(state, name)))
    data.train(tmp_path / "work", dataset, sharp_llama, keep=2, keep_last=1, **OFTEN)
    assert max(n for name, n in counts if name == "hold") == 4
    assert max(n for name, n in counts if name == "save") == 3
    assert sum(name == "hold" for name, _ in counts) == 12  # each was the newest once


@pytest.mark.parametrize("recipe", ["sft", "domain"])
def test_stopped_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path, dataset: Path, sharp_llama: Path, recipe: str
) -> None:
    rows = [domain_data.text_rows(n, seed=s) for n, s in ((12, 1), (4, 2))]
    texts = domain_data.make_texts(tmp_path / "texts", *rows)

    def run(name: str, **more: Any) -> Workspace:
        if recipe == "sft":
            return data.train(tmp_path / name, dataset, sharp_llama, keep=3, keep_last=1, **OFTEN, **more)
        changes = {"keep": 3, "keep_last": 1, "validate_times": 6, "lr": 3e-2, "epochs": 3.0}
        return domain_data.adapt(tmp_path / name, texts, sharp_llama, **changes, **more)

    whole = run("whole")
    last = data.log(whole)[-1]["step"]
    for step in (1, 2, last // 2, last - 1):
        stop = threading.Event()
        with pytest.raises(Stopped):
            run("parts", stop=stop, progress=stopping_at({(step, "train")}, stop))
    parts = run("parts")
    assert data.files(parts) == data.files(whole)
    assert len(list(parts.scratch.glob("kept-*"))) >= 2
    assert "kept-0" not in names(parts)


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.keep"):
        replace(data.SPEC, keep=0)
    with pytest.raises(InputError, match=r"train\.keep_last"):
        replace(domain_data.SPEC, keep_last=-1)
