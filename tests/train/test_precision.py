"""What `auto` becomes and what a plan promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train import data
from tunesmith.train import precision
from tunesmith.train.cost import machine


def test_the_estimate_has_the_steps_that_training_takes(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    facts = {"counts": {"train": 24, "validation": 9, "test": 0}, "tokens": {"total": 33 * 40, "longest": 60}}
    config = json.loads((tiny_llama / "config.json").read_text())
    for epochs in (0.5, 1.0, 2.3):
        spec = replace(data.SPEC, epochs=epochs, metric="", validate_times=1)
        got = precision.estimate(config, facts, spec, 100.0)
        work = data.train(tmp_path / str(epochs), dataset, tiny_llama, epochs=epochs, metric="", validate_times=1)
        assert got["steps"] == work.summary["steps"]
        assert got["tokens"] == round(24 * 40 * epochs)
        assert got["seconds"] == pytest.approx(got["tokens"] / 100, abs=0.1)
        assert got["memory_mib"] == pytest.approx(sum(got["memory"].values()), abs=1)
        assert got["checkpoint_mib"] == pytest.approx(
            (work.scratch / "checkpoint" / "adapter_model.safetensors").stat().st_size / 2**20, abs=0.1
        )


def test_full_fine_tuning_needs_more_memory_than_lora(tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text()) | {"hidden_size": 768, "intermediate_size": 3072}
    facts = {"counts": {"train": 24}, "tokens": {"total": 1000, "longest": 60}}
    lora, full = (
        sum(
            v
            for n, v in precision.estimate(config, facts, replace(data.SPEC, method=m), 100.0)["memory"].items()
            if n not in ("program", "file")
        )
        for m in (data.LORA, data.FULL)
    )
    assert full > 1.5 * lora


@pytest.mark.parametrize(("times", "want"), [(1.29, "fp32"), (1.31, "bf16")])
def test_bf16_is_chosen_only_where_it_is_clearly_faster(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, times: float, want: str
) -> None:
    monkeypatch.setattr(precision, "bf16_products_are_faster", lambda: True)
    monkeypatch.setattr(precision, "_speed", lambda base, tokens, method, p: 100.0 * (times if p == "bf16" else 1))
    assert precision.resolve_precision(tiny_llama, 60) == want


def test_no_step_is_timed_where_bf16_products_are_slower(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_products_are_faster", lambda: False)
    monkeypatch.setattr(precision, "_speed", lambda *a: pytest.fail("timed"))
    assert precision.resolve_precision(tiny_llama, 60) == "fp32"


def test_the_timings_run_on_a_real_model(tiny_llama: Path) -> None:
    assert precision.resolve_precision(tiny_llama, 40) in ("fp32", "bf16")
    assert precision.tokens_per_second(tiny_llama, 40, data.SPEC) > 100


def test_the_micro_batch_fits_the_free_memory(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = precision.resolve_micro_batch_tokens(tiny_llama, 60, "lora")
    assert plenty == 8192
    monkeypatch.setattr(machine, "free_bytes", lambda: 20 << 20)
    scarce = precision.resolve_micro_batch_tokens(tiny_llama, 60, "lora")
    assert 256 <= scarce < plenty
    assert precision.resolve_micro_batch_tokens(tiny_llama, 600, "lora") >= 600  # one example cannot be split
