"""What is trained, saved, loaded and merged, and what is refused because it would be silently wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny, move
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS, MethodSpec, method_json, read_method

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
FULL = MethodSpec(kind="full", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9]])


def tuned(folder: Path, spec: MethodSpec, out: Path, *, dtype: str = "fp32") -> torch.Tensor:
    """A checkpoint whose every trainable weight was moved, and the logits of the model that wrote it."""
    model = methods.wrap(load_base(folder, dtype=dtype), spec, seed=0)
    move(methods.trainable_parameters(model))
    with torch.no_grad():
        logits = model(IDS).logits
    out.mkdir(exist_ok=True)
    methods.save(model, spec, out, base="tiny-base")
    (out / "checkpoint.json").write_text(json.dumps({"method": method_json(spec)}))
    return logits


def test_spec_loads_no_torch() -> None:
    code = "import sys, tunesmith.model.methods.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lora_starts_as_the_base_and_trains_only_adapters(tiny_llama: Path) -> None:
    base = load_base(tiny_llama, dtype="fp32")
    want = base(IDS).logits
    model = methods.wrap(base, LORA, seed=0)
    assert torch.equal(model(IDS).logits, want)
    names = list(methods.trainable_parameters(model))
    assert names == sorted(names)
    assert all("lora_" in n for n in names)
    assert len(names) == 3 * 7 * 2  # layers, linear layers of each, A and B
    assert not any("lm_head" in n or "embed" in n for n in names)


def test_lora_start_depends_on_the_seed_alone(tiny_llama: Path) -> None:
    def start(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        model = methods.wrap(load_base(tiny_llama, dtype="fp32"), LORA, seed=seed)
        return {n: p.detach().clone() for n, p in methods.trainable_parameters(model).items()}

    first, again, other = start(0, 1), start(0, 2), start(1, 1)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    methods.wrap(load_base(tiny_llama, dtype="fp32"), LORA, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_lora_start_has_pefts_distribution(tiny_llama: Path) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), LORA, seed=0)
    for name, parameter in methods.trainable_parameters(model).items():
        if "lora_B" in name:
            assert not parameter.any()
        else:
            bound = parameter.shape[1] ** -0.5
            assert bound * 0.8 < float(parameter.abs().max()) <= bound


def test_adapters_are_fp32_on_a_bf16_base(tiny_llama: Path) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="bf16"), LORA, seed=0)
    assert {p.dtype for p in methods.trainable_parameters(model).values()} == {torch.float32}
    assert model.get_base_model().model.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma"])
@pytest.mark.parametrize("spec", [LORA, FULL], ids=["lora", "full"])
def test_saved_and_loaded_is_the_trained_model(family: str, spec: MethodSpec, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "base", family)
    want = tuned(folder, spec, tmp_path / "out")
    with torch.no_grad():
        apart = load_tuned(folder, tmp_path / "out", dtype="fp32", merge=False)(IDS).logits
        merged = load_tuned(folder, tmp_path / "out", dtype="fp32")(IDS).logits
    assert torch.equal(apart, want)
    assert float((merged - want).abs().max()) < 2e-6


def test_merging_happens_in_fp32_and_is_cast_once(tiny_llama: Path, tmp_path: Path) -> None:
    tuned(tiny_llama, LORA, tmp_path)
    whole = load_tuned(tiny_llama, tmp_path, dtype="fp32").state_dict()
    cast = load_tuned(tiny_llama, tmp_path, dtype="bf16").state_dict()
    assert all(torch.equal(cast[n], t.to(torch.bfloat16)) for n, t in whole.items())
    assert not any("lora" in n for n in whole)


def test_plain_peft_loads_the_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    want = tuned(tiny_llama, LORA, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        assert torch.equal(PeftModel.from_pretrained(base, tmp_path).eval()(IDS).logits, want)


def test_plain_transformers_loads_the_full_checkpoint(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    want = tuned(tiny_llama, FULL, tmp_path)
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(IDS).logits, want)


@pytest.mark.parametrize("spec", [LORA, FULL], ids=["lora", "full"])
def test_equal_weights_give_equal_bytes_and_no_path_of_this_machine(
    spec: MethodSpec, tiny_llama: Path, tmp_path: Path
) -> None:
    tuned(tiny_llama, spec, tmp_path / "a")
    tuned(tiny_llama, spec, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert str(tiny_llama).encode() not in path.read_bytes(), path.name
    if spec is LORA:
        config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "tiny-base"


def test_full_trains_every_weight_in_fp32(tiny_llama: Path) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="bf16"), FULL, seed=0)
    trainable = methods.trainable_parameters(model)
    assert set(trainable) == {n for n, _ in model.named_parameters()}
    assert {p.dtype for p in trainable.values()} == {torch.float32}


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_embeddings_are_refused_with_the_reason(target: str, tiny_llama: Path) -> None:
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", target))
    with pytest.raises(InputError, match="tied to the other embedding") as e:
        methods.wrap(load_base(tiny_llama, dtype="fp32"), spec, seed=0)
    assert "silently wrong" in str(e.value)


def test_untied_output_head_may_be_targeted(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "base", tie_word_embeddings=False)
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "lm_head"))
    want = tuned(folder, spec, tmp_path / "out")
    with torch.no_grad():
        merged = load_tuned(folder, tmp_path / "out", dtype="fp32")(IDS).logits
    assert float((merged - want).abs().max()) < 2e-6


def test_unknown_and_unfit_targets_are_all_named(tiny_llama: Path) -> None:
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets=("q_prj", "norm", "v_proj"))
    with pytest.raises(InputError) as e:
        methods.wrap(load_base(tiny_llama, dtype="fp32"), spec, seed=0)
    assert len(e.value.problems) == 2
    assert "did you mean q_proj?" in str(e.value)
    assert "norm: is not a linear layer" in str(e.value)


def test_wrap_keeps_the_mode(tiny_llama: Path) -> None:
    base = load_base(tiny_llama, dtype="fp32")
    assert not methods.wrap(base, LORA, seed=0).training
    assert methods.wrap(load_base(tiny_llama, dtype="fp32").train(), LORA, seed=0).training


def test_adapter_of_another_base_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    tuned(tiny_llama, LORA, tmp_path / "out")
    other = make_tiny(tmp_path / "other", hidden_size=96, intermediate_size=192)
    with pytest.raises(ModelError, match="do not fit the base model"):
        load_tuned(other, tmp_path / "out", dtype="fp32")


def test_adapter_config_that_means_something_else_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    tuned(tiny_llama, LORA, tmp_path)
    path = tmp_path / "adapter_config.json"
    good = json.loads(path.read_text())
    for change, expected in (
        ({"use_dora": True}, "use_dora: is True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 64}}, "rank_pattern"),
        ({"r": 8}, "r: is 8, but checkpoint.json says 4"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ModelError) as e:
            load_tuned(tiny_llama, tmp_path, dtype="fp32")
        assert expected in str(e.value)


def test_a_lost_tensor_of_an_adapter_is_an_error(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tuned(tiny_llama, LORA, tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="1 tensors do not fit"):
        load_tuned(tiny_llama, tmp_path, dtype="fp32")


def test_pickle_in_a_checkpoint_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    tuned(tiny_llama, LORA, tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickle form"):
        load_tuned(tiny_llama, tmp_path, dtype="fp32")


def test_unknown_method_in_a_checkpoint_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_method(tmp_path)
    (tmp_path / "checkpoint.json").write_text(json.dumps({"method": {"kind": "magic"}}))
    with pytest.raises(ModelError, match="names no method that is known"):
        read_method(tmp_path)


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}, {"kind": "magic"}], ids=str
)
def test_impossible_specs_cannot_be_said(change: dict[str, object]) -> None:
    values = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}
    with pytest.raises(InputError, match=f"method.{next(iter(change))}"):
        MethodSpec(**(values | change))  # type: ignore[arg-type]


def test_the_catalogue_is_complete() -> None:
    import importlib

    for kind, method in METHODS.items():
        module = importlib.import_module(method.module)
        for verb in ("wrap", "save", "load", "merge"):
            assert callable(getattr(module, verb)), (kind, verb)
