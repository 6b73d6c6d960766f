"""examples/sft_by_hand.py, which knows nothing of Tunesmith, ends at the recipe's weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train import data


def test_the_recipe_by_hand_gives_the_same_losses_and_weights(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """fp32 on a CPU, 6 steps: losses to 1e-5, weights to 1e-5."""
    script = Path(__file__).parents[2] / "examples" / "sft_by_hand.py"
    module_spec = importlib.util.spec_from_file_location("sft_by_hand", script)
    by_hand = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(by_hand)
    s = data.SPEC
    losses = by_hand.train(
        tiny_llama,
        dataset / "train.jsonl",
        tmp_path / "by-hand",
        system=s.system,
        lr=s.lr,
        epochs=2,
        global_batch=s.global_batch,
        rank=s.method.rank,
        alpha=s.method.alpha,
        warmup=s.warmup,
        max_grad_norm=s.max_grad_norm,
        seed=s.seed,
    )
    work = data.train(tmp_path / "recipe", dataset, tiny_llama, metric="", validate_times=1)
    assert work.summary["path"] == "flat" and work.summary["best_step"] == len(losses) == 6
    assert data.losses(work) == pytest.approx(losses, abs=1e-5)
    want = load_file(tmp_path / "by-hand" / "adapter_model.safetensors")
    got = data.weights(work)
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], atol=1e-5, rtol=0)
