"""Trained, saved, reloaded and merged agree; what cannot be merged says why."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.merging.conftest import BOTTLENECK, IDS, LORA, Make, logits
from tests.tiny import make_tiny, move
from tunesmith.core.errors import ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.merging.adapters import combine_adapters
from tunesmith.model.merging.arithmetic import Recipe
from tunesmith.model.merging.merge import IDENTITY, identity, merge_checkpoint, refuse_other_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec, method_json
from tunesmith.model.several import Several

FP32 = 2e-6  # of the logits, on tiny models: what one fp32 product instead of two costs
IA3 = MethodSpec(kind="ia3", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")


def saved(base: Path, spec: MethodSpec, out: Path) -> torch.Tensor:
    """A checkpoint whose every trained weight was moved; the logits of the model that wrote it."""
    model = methods.wrap(load_base(base, dtype="fp32"), spec, seed=0).eval()
    move(methods.trainable_parameters(model))
    trained = logits(model)
    out.mkdir()
    methods.save(model, spec, out, base="tiny")
    (out / "checkpoint.json").write_text(json.dumps({"method": method_json(spec), IDENTITY: identity(base)}))
    return trained


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma", "phi", "opt"])
@pytest.mark.parametrize(
    "spec", [LORA, replace(LORA, rslora=True), replace(LORA, dora=True)], ids=["lora", "rs", "dora"]
)
def test_trained_saved_reloaded_and_merged_agree(family: str, spec: MethodSpec, tmp_path: Path) -> None:
    extra = {"opt": {"ffn_dim": 96, "word_embed_proj_dim": 48}}.get(family, {})
    base = make_tiny(tmp_path / "base", family, **extra)
    out = tmp_path / "checkpoint"
    trained = saved(base, spec, out)
    assert torch.equal(logits(load_tuned(base, out, dtype="fp32", merge=False)), trained)
    merge_checkpoint(base, out, tmp_path / "merged", dtype="fp32")
    merged = logits(load_base(tmp_path / "merged", dtype="fp32"))
    assert float((merged - trained).abs().max()) < FP32
    assert float((merged - logits(load_base(base, dtype="fp32"))).abs().max()) > 1e-3


def test_bf16_is_the_fp32_result_rounded_once(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = checkpoint("c", LORA, seed=0)
    for dtype in ("fp32", "bf16"):
        merge_checkpoint(tiny_llama, made, tmp_path / dtype, dtype=dtype)
    whole = load_base(tmp_path / "fp32", dtype="fp32").state_dict()
    cast = load_base(tmp_path / "bf16", dtype="bf16").state_dict()
    assert all(torch.equal(cast[n], t.bfloat16()) for n, t in whole.items())


def test_the_merged_folder_is_a_whole_model(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merge_checkpoint(tiny_llama, checkpoint("c", LORA, seed=0), tmp_path / "out", dtype="fp32")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("the quick fox").input_ids
    assert tokens == AutoTokenizer.from_pretrained(tiny_llama)("the quick fox").input_ids
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(IDS).logits
    assert torch.equal(plain, logits(load_base(tmp_path / "out", dtype="fp32")))
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_another_base_of_the_same_shape_is_refused(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = checkpoint("c", LORA, seed=0)
    other = make_tiny(tmp_path / "other", seed=9)
    refuse_other_base(tiny_llama, made)
    with pytest.raises(ModelError, match="trained on other weights"):
        merge_checkpoint(other, made, tmp_path / "out", dtype="fp32")
    facts = json.loads((made / "checkpoint.json").read_text())
    (made / "checkpoint.json").write_text(json.dumps({k: v for k, v in facts.items() if k != IDENTITY}))
    refuse_other_base(other, made)  # written before bases were named: nothing to compare


@pytest.mark.parametrize("kind", ["bottleneck", "prefix", "prompt", "p_tuning"])
def test_what_is_no_change_of_weights_is_refused(kind: str, checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = checkpoint("c", BOTTLENECK, seed=0)
    if kind != "bottleneck":
        values = {"kind": kind, "rank": 1, "alpha": 1.0, "dropout": 0.0, "targets": "all-linear", "virtual_tokens": 4}
        values |= {"projection": 8} if kind == "p_tuning" else {}
        (made / "checkpoint.json").write_text(json.dumps({"method": values}))
    with pytest.raises(ModelError, match="GGUF or GPTQ") as e:
        merge_checkpoint(tiny_llama, made, tmp_path / "out", dtype="fp32")
    assert "beside its base" in e.value.problems[0].fix
    assert not (tmp_path / "out").exists()


def test_ia3_merges_too(tiny_llama: Path, tmp_path: Path, checkpoint: Make) -> None:
    made = checkpoint("c", IA3, seed=0)
    merge_checkpoint(tiny_llama, made, tmp_path / "out", dtype="fp32")
    beside = logits(load_tuned(tiny_llama, made, dtype="fp32", merge=False))
    assert float((logits(load_base(tmp_path / "out", dtype="fp32")) - beside).abs().max()) < FP32


def test_a_checkpoint_on_top_of_another_is_merged_with_it(tiny_llama: Path, tmp_path: Path, checkpoint: Make) -> None:
    first = checkpoint("first", LORA, seed=0)
    merge_checkpoint(tiny_llama, first, tmp_path / "once", dtype="fp32")
    second = checkpoint("second", LORA, seed=1, base=tmp_path / "once")
    want = logits(load_tuned(tmp_path / "once", second, dtype="fp32", merge=False))
    facts = json.loads((second / "checkpoint.json").read_text()) | {IDENTITY: identity(tiny_llama)}
    (second / "checkpoint.json").write_text(json.dumps(facts))
    shutil.copytree(first, second / "start")
    assert torch.equal(logits(load_tuned(tiny_llama, second, dtype="fp32", merge=False)), want)
    merge_checkpoint(tiny_llama, second, tmp_path / "both", dtype="fp32")
    assert float((logits(load_base(tmp_path / "both", dtype="fp32")) - want).abs().max()) < FP32
    with pytest.raises(ModelError, match="stands on a checkpoint of its own"):
        combine_adapters([first, second], tmp_path / "out", Recipe(method="linear", weights=(0.5, 0.5)), rank=0)
    with pytest.raises(ModelError, match="stands on a checkpoint of its own"):
        Several.load(tiny_llama, {"a": first, "b": second}, dtype="fp32")


def test_training_names_the_weights_it_was_on(tiny_llama: Path, tmp_path: Path) -> None:
    from tests.train import data

    work = data.train(tmp_path / "run", data.make_dataset(tmp_path / "set"), tiny_llama, epochs=0.5)
    made = work.scratch / "checkpoint"
    assert json.loads((made / "checkpoint.json").read_text())[IDENTITY] == identity(tiny_llama)
    refuse_other_base(tiny_llama, made)
    with pytest.raises(ModelError, match="trained on other weights"):
        refuse_other_base(make_tiny(tmp_path / "other", seed=9), made)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_from_the_bases_weights_is_saved_as_plain_lora(init: str, tiny_llama: Path, tmp_path: Path) -> None:
    """PiSSA and OLoRA take their start out of the base while training; what is saved goes on the untouched base."""
    spec = replace(LORA, init=init)  # type: ignore[arg-type]
    out = tmp_path / "checkpoint"
    trained = saved(tiny_llama, spec, out)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 2 * spec.rank  # the start is in it
    assert float((logits(load_tuned(tiny_llama, out, dtype="fp32", merge=False)) - trained).abs().max()) < 1e-5
    merge_checkpoint(tiny_llama, out, tmp_path / "merged", dtype="fp32")
    assert float((logits(load_base(tmp_path / "merged", dtype="fp32")) - trained).abs().max()) < 1e-5
    several = Several.load(tiny_llama, {"a": out}, dtype="fp32")
    got = several.forward(IDS, ["a", None, "a"])
    assert float((got[0] - trained[0]).abs().max()) < 1e-5
