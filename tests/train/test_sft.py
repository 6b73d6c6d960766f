"""The recipe: what it learns, keeps, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch

from tests.train import data
from tunesmith.core.canonical import read_lines, write_lines
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.nouns import Row
from tunesmith.model.load import load_base, load_tuned
from tunesmith.text.render import Renderer
from tunesmith.train.batches import render_rows
from tunesmith.train.forward import PlainForward
from tunesmith.train.validate import chosen_rows, mean_nll


@pytest.mark.parametrize("method", [data.LORA, data.FULL], ids=["lora", "full"])
def test_it_overfits_one_batch(tmp_path: Path, sharp_llama: Path, method: object) -> None:
    one = data.make_dataset(tmp_path / "one", train=8)
    work = data.train(
        tmp_path / "work", one, sharp_llama, method=method, epochs=80.0, lr=1e-2, schedule="constant", validate_times=1
    )
    assert data.losses(work)[0] > 4
    assert data.losses(work)[-1] < 0.05


@pytest.mark.parametrize("method", [data.LORA, data.FULL], ids=["lora", "full"])
def test_the_checkpoint_is_the_best_model_and_gives_its_logged_loss(
    tmp_path: Path, dataset: Path, sharp_llama: Path, method: object
) -> None:
    work = data.train(tmp_path / "work", dataset, sharp_llama, method=method, validate_times=6, lr=3e-2)
    folder = work.scratch / "checkpoint"
    facts = json.loads((folder / "checkpoint.json").read_text())
    validations = {line["step"]: line for line in data.log(work) if "validation_loss" in line}
    assert sorted(validations) == [1, 2, 3, 4, 5, 6]
    best = max(validations.values(), key=lambda line: (line["macro_f1"], -line["validation_loss"]))
    assert (facts["best_step"], facts["best"]) == (best["step"], best["macro_f1"])
    assert facts["steps"] == 6 and facts["metric"] == "macro_f1" and facts["base"] == "tiny"

    renderer = Renderer.load(sharp_llama, system=data.SPEC.system)
    renderer.check(json.loads((folder / "renderer.json").read_text()), where="renderer.json")
    rows = chosen_rows(list(read_lines(dataset / "validation.jsonl", Row)), data.SPEC.validation_rows, 0)
    model = load_tuned(sharp_llama, folder, dtype="fp32")
    forward = PlainForward(model, precision="fp32", autocast=False, seed=0)
    loss = mean_nll(forward, render_rows(rows, renderer, 128), max_tokens=4096)
    assert loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_a_lora_checkpoint_loads_with_plain_peft(tmp_path: Path, dataset: Path, sharp_llama: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    work = data.train(tmp_path / "work", dataset, sharp_llama)
    folder = work.scratch / "checkpoint"
    ids = torch.tensor([[5, 9, 60, 80]])
    with torch.no_grad():
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sharp_llama), folder)(ids).logits
        ours = load_tuned(sharp_llama, folder, dtype="fp32")(ids).logits
        base = load_base(sharp_llama, dtype="fp32")(ids).logits
    assert torch.allclose(peft, ours, atol=1e-4)
    assert (ours - base).abs().max() > 1e-2


def test_the_log_has_a_line_for_each_step_and_the_summary_says_which_path_ran(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    work = data.train(tmp_path / "work", dataset, tiny_llama)
    steps = [line for line in data.log(work) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert set(steps[0]) == {"step", "loss", "lr", "grad_norm", "tokens"}
    assert work.summary["path"] == "flat"
    assert work.summary["tokens"] == sum(line["tokens"] for line in steps)
    assert work.summary["tokens_per_s"] > 0


def test_patience_ends_the_training_and_the_best_is_kept(tmp_path: Path, dataset: Path, sharp_llama: Path) -> None:
    """At a rate this high the first validations are the best."""
    work = data.train(
        tmp_path / "work",
        dataset,
        sharp_llama,
        method=data.FULL,
        metric="",
        lr=1.0,
        epochs=10.0,
        warmup=0.0,
        validate_times=30,
        patience=3,
    )
    validations = [line["validation_loss"] for line in data.log(work) if "validation_loss" in line]
    best = validations.index(min(validations))
    assert len(validations) == best + 1 + 3 < 30
    facts = json.loads((work.scratch / "checkpoint" / "checkpoint.json").read_text())
    assert (facts["best_step"], facts["steps"]) == (best + 1, 30)
    assert facts["metric"] == "validation_loss" and facts["best"] == min(validations)


def test_a_row_of_weight_2_counts_like_the_row_twice(tmp_path: Path, tiny_llama: Path) -> None:
    rows = data.make_rows(4, seed=1)
    weighted = data.make_dataset(tmp_path / "weighted", train=4)
    write_lines(weighted / "train.jsonl", [msgspec.structs.replace(rows[0], weight=2.0), *rows[1:]])
    twice = data.make_dataset(tmp_path / "twice", train=4)
    write_lines(twice / "train.jsonl", [rows[0], *rows])
    a = data.train(tmp_path / "a", weighted, tiny_llama, epochs=3.0)
    b = data.train(tmp_path / "b", twice, tiny_llama, epochs=3.0)
    assert data.losses(a) == pytest.approx(data.losses(b), rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gemma", "qwen3"])
def test_other_families_train_too(tmp_path: Path, dataset: Path, family: str) -> None:
    from tests.tiny import make_tiny

    base = make_tiny(tmp_path / family, family)
    work = data.train(tmp_path / "work", dataset, base, metric="", epochs=8.0, lr=2e-2, validate_times=1)
    assert (
        work.summary["path"]
        == {
            "qwen3": "flat",
            "gpt2": "plain: gpt2 is not one of llama, mistral, qwen2, qwen3",
            "gemma": "plain: gemma is not one of llama, mistral, qwen2, qwen3",
        }[family]
    )
    assert data.losses(work)[-1] < data.losses(work)[0]


def test_tasks_without_labels_are_validated_by_generated_answers(tmp_path: Path, tiny_llama: Path) -> None:
    texts = data.make_dataset(tmp_path / "texts", labels=False)
    work = data.train(tmp_path / "work", texts, tiny_llama, kind="instruct", metric="exact_match", epochs=1.0)
    assert [line["exact_match"] for line in data.log(work) if "exact_match" in line] == [0.0, 0.0]


def test_bf16_stays_near_fp32(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    runs = [data.train(tmp_path / p, dataset, tiny_llama, precision=p) for p in ("fp32", "bf16")]
    assert runs[1].summary["path"] == "flat"
    assert data.losses(runs[0]) != data.losses(runs[1])
    assert data.losses(runs[0]) == pytest.approx(data.losses(runs[1]), rel=0.01)


def test_over_long_rows_are_refused_with_their_places(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    with pytest.raises(DataError) as e:
        data.train(tmp_path / "work", dataset, tiny_llama, max_tokens=50)
    assert "rows.csv:" in str(e.value)
    assert "50 allowed" in str(e.value)
    assert "train.max_tokens=" in str(e.value)


def test_a_broken_number_stops_before_the_step_and_names_the_rows(
    tmp_path: Path, dataset: Path, sharp_llama: Path
) -> None:
    with pytest.raises(TunesmithError) as e:
        data.train(tmp_path / "work", dataset, sharp_llama, lr=1e30, metric="", warmup=0.0, validate_times=1)
    assert "rows.csv:" in str(e.value)
    assert "the weights were not touched" in str(e.value)
    assert "train.lr" in str(e.value)


def test_no_validation_rows_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    empty = data.make_dataset(tmp_path / "empty", validation=0)
    with pytest.raises(DataError, match="no validation rows"):
        data.train(tmp_path / "work", empty, tiny_llama)
