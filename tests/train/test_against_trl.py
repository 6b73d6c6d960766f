"""TRL's SFTTrainer and transformers' Trainer as oracles: the same rows in the same order give the same losses; bf16
keeps up with fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.train import data
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.text.render import Rendered, Renderer
from tunesmith.train.batches import Schedule

TEN_STEPS = 10 / 3  # epochs of 24 rows in batches of 8
PLAIN = {"epochs": TEN_STEPS, "schedule": "constant", "warmup": 0.0, "metric": "", "validate_times": 1}
CASES = {"lora": (data.LORA, 5e-3), "full": (data.FULL, 1e-3)}


def rendered_in_order(base: Path) -> list[Rendered]:
    """The 80 rows that ten steps take."""
    rows = data.make_rows(24, seed=1)
    renderer = Renderer.load(base, system=data.SPEC.system)
    schedule = Schedule(rows, epochs=TEN_STEPS, global_batch=8, seed=0)
    return [renderer.render(rows[i].messages, rows[i].target) for step in range(10) for i in schedule.batch(step)]


@pytest.mark.parametrize("name", CASES)
def test_ten_losses_are_those_of_transformers_trainer(
    name: str, tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    """As with TRL below; here the loss is the model's own, over the labels that are not -100."""
    from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

    method, rate = CASES[name]
    exec = Exec(micro_batch_tokens=200, threads=1)
    work = data.train(tmp_path / "ours", dataset, tiny_llama, exec=exec, method=method, lr=rate, **PLAIN)

    peer_rows = [
        {"input_ids": list(r.ids), "labels": [i if t else -100 for i, t in zip(r.ids, r.trained, strict=True)]}
        for r in rendered_in_order(tiny_llama)
    ]
    peer = Trainer(
        model=methods.wrap(load_base(tiny_llama, dtype="fp32"), method, seed=0),
        args=TrainingArguments(
            output_dir=str(tmp_path / "peer"),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=10,
            learning_rate=rate,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=0,
        ),
        train_dataset=peer_rows,
        data_collator=DataCollatorForTokenClassification(AutoTokenizer.from_pretrained(tiny_llama)),
    )
    peer.train()
    want = [line["loss"] for line in peer.state.log_history if "loss" in line]
    assert len(want) == 10 and want[-1] < want[0] - 0.1
    assert data.losses(work) == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_ten_losses_are_trl_s(name: str, tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """fp32, no dropout, constant rate, clipping at 1: ten steps of 8 rows within 1e-3."""
    pytest.importorskip("trl", reason="the oracle trl is not installed")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    method, rate = CASES[name]
    exec = Exec(micro_batch_tokens=200, threads=1)
    work = data.train(tmp_path / "ours", dataset, tiny_llama, exec=exec, method=method, lr=rate, **PLAIN)
    assert work.summary["path"] == "flat"

    rendered = rendered_in_order(tiny_llama)
    peer_rows = Dataset.from_list(
        [{"input_ids": list(r.ids), "completion_mask": [int(t) for t in r.trained]} for r in rendered]
    )
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), method, seed=0)
    peer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=8,
            max_steps=10,
            learning_rate=rate,
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
    assert len(want) == 10 and want[-1] < want[0] - 0.1
    assert data.losses(work) == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_bf16_is_never_a_step_behind_fp32(name: str, tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """Within 0.06 at each of ten steps, and nearer to fp32's loss of that step than to that of the step before."""
    method, rate = CASES[name]
    exact, rounded = (
        data.losses(data.train(tmp_path / p, dataset, tiny_llama, method=method, lr=rate, **(PLAIN | {"precision": p})))
        for p in ("fp32", "bf16")
    )
    assert rounded == pytest.approx(exact, abs=0.06)
    for before, now, got in zip(exact, exact[1:], rounded[1:], strict=False):
        assert abs(got - now) < 0.5 * abs(before - now) or abs(before - now) < 0.02
