"""TRL's SFTTrainer as an oracle: the same rows in the same order give the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train import data
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.text.render import Renderer
from tunesmith.train.batches import Schedule

pytest.importorskip("trl", reason="the oracle trl is not installed")


def test_the_first_losses_are_trl_s(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """fp32, no dropout, constant rate, clipping at 1: three steps of 8 rows within 1e-4."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    changes = {"epochs": 1.0, "schedule": "constant", "warmup": 0.0, "metric": "", "validate_times": 1}
    work = data.train(tmp_path / "ours", dataset, tiny_llama, exec=Exec(micro_batch_tokens=200, threads=1), **changes)

    rows = data.make_rows(24, seed=1)
    renderer = Renderer.load(tiny_llama, system=data.SPEC.system)
    schedule = Schedule(rows, epochs=1.0, global_batch=8, seed=0)
    rendered = [renderer.render(rows[i].messages, rows[i].target) for step in range(3) for i in schedule.batch(step)]
    peer_rows = Dataset.from_list(
        [{"input_ids": list(r.ids), "completion_mask": [int(t) for t in r.trained]} for r in rendered]
    )
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), data.LORA, seed=0)
    peer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=8,
            max_steps=3,
            learning_rate=data.SPEC.lr,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            completion_only_loss=True,
            activation_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=peer_rows,
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
    )
    peer.train()
    want = [line["loss"] for line in peer.state.log_history if "loss" in line]
    assert len(want) == 3
    assert data.losses(work) == pytest.approx(want, abs=1e-4)
