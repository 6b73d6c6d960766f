"""QLoRA: the adapter belongs to the quantized weights, in training, in evaluation and in the merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.model.methods.kinds import IDS, LORA, NF4, QUANTIZED, TEXTS, logits, off, saved, wrapped
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS, method_json

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
Family = Callable[[str], Path]


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("base", ["llama", "qwen3", "opt", "falcon"])
def test_trained_saved_loaded_and_merged_are_one_model(name: str, base: str, family: Family, tmp_path: Path) -> None:
    if QUANTIZED[name].dora:
        base = "wide"
    model = wrapped(family(base), QUANTIZED[name])
    want = logits(model)
    folder = saved(model, QUANTIZED[name], tmp_path / "out")
    assert torch.equal(logits(load_tuned(family(base), folder, dtype="fp32", merge=False)), want)
    merged = load_tuned(family(base), folder, dtype="fp32")
    assert off(logits(merged), want) < 2e-6
    assert off(logits(methods.merge(model, QUANTIZED[name])), want) < 2e-6
    assert type(merged.get_submodule(next(n for n, m in merged.named_modules() if hasattr(m, "in_features")))) is (
        torch.nn.Linear
    )


def test_the_merge_is_of_the_quantized_weights_and_not_of_the_original_ones(family: Family, tmp_path: Path) -> None:
    model = wrapped(family("llama"), NF4)
    want = logits(model)
    saved(model, NF4, tmp_path)
    onto_quantized = off(logits(load_tuned(family("llama"), tmp_path, dtype="bf16").float()), want)
    (tmp_path / "checkpoint.json").write_text(json.dumps({"method": method_json(LORA)}))
    onto_original = off(logits(load_tuned(family("llama"), tmp_path, dtype="fp32")), want)
    assert onto_quantized < 0.02 < 0.05 < onto_original


@pytest.mark.parametrize("name", [n for n in QUANTIZED if "dora" not in n])
def test_trained_on_a_bf16_base_and_loaded_on_an_fp32_one(name: str, family: Family, tmp_path: Path) -> None:
    model = wrapped(family("llama"), QUANTIZED[name], dtype="bf16")
    folder = saved(model, QUANTIZED[name], tmp_path / "out")
    apart = load_tuned(family("llama"), folder, dtype="fp32", merge=False)  # the same quantized weights, or refused
    assert off(logits(apart), logits(model).float()) < 0.03
    assert off(logits(load_tuned(family("llama"), folder, dtype="fp32")), logits(apart)) < 2e-6


def test_the_checkpoint_names_the_quantization(family: Family, tmp_path: Path) -> None:
    saved(wrapped(family("llama"), NF4), NF4, tmp_path)
    facts = json.loads((tmp_path / "quantization.json").read_text())
    assert {"bits": 4, "type": "nf4", "double_quant": True}.items() <= facts.items()
    assert len(facts["sha256"]) == 64


def test_another_base_of_the_same_shape_is_refused(family: Family, tmp_path: Path) -> None:
    folder = saved(wrapped(family("llama"), NF4), NF4, tmp_path / "out")
    other = make_tiny(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="trained on other quantized weights"):
        load_tuned(other, folder, dtype="fp32")


@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_training_and_evaluation_compute_alike(name: str, family: Family) -> None:
    model = wrapped(family("llama"), QUANTIZED[name])
    calm = logits(model)
    assert torch.equal(logits(model.train()), calm)
    loss = torch.nn.functional.cross_entropy(model(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in methods.trainable_parameters(model).values())


def test_gradients_are_those_of_the_dequantized_model(family: Family) -> None:
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

    from tunesmith.model.methods.qlora import _dequantize

    model = wrapped(family("llama"), NF4)
    twin = methods.wrap(_dequantize(wrapped(family("llama"), NF4).unload()), LORA, seed=0)
    set_peft_model_state_dict(twin, get_peft_model_state_dict(model))
    for m in (model, twin):
        torch.nn.functional.cross_entropy(m(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    ours, theirs = (methods.trainable_parameters(m) for m in (model, twin))
    assert ours.keys() == theirs.keys()
    assert max(off(ours[n].grad, theirs[n].grad) for n in ours) < 1e-6


def test_weights_are_the_nearest_of_their_kind(family: Family) -> None:
    from tunesmith.model.methods.quantized import layers

    base = load_base(family("llama"), dtype="fp32")
    for name, most in (("nf4", 0.16), ("int8", 0.008)):  # of the largest weight: half the widest gap of the code
        model = wrapped(family("llama"), QUANTIZED[name], moved=False).get_base_model()
        assert len(layers(model)) == 21
        for key, layer in layers(model).items():
            want = base.get_submodule(key.removesuffix(".base_layer")).weight
            assert float((layer.dequantized(torch.float32) - want).abs().max() / want.abs().max()) < most
        assert type(model.lm_head) is torch.nn.Linear


def test_a_quantized_base_takes_less_memory(family: Family) -> None:
    from tunesmith.model.methods.quantized import layers

    for name, ratio in (("nf4", 7.0), ("nf4_single", 6.0), ("int8", 3.5)):
        found = layers(wrapped(family("llama"), QUANTIZED[name])).values()
        held = sum(p.numel() * p.element_size() for m in found for p in m.parts())
        assert sum(m.in_features * m.out_features * 4 for m in found) / held > ratio


@pytest.mark.parametrize("shape", [(48, 96), (128, 256), (50, 30), (7, 9)], ids=str)
@pytest.mark.parametrize("double_quant", [True, False])
def test_codes_and_scales_are_those_of_bitsandbytes(shape: tuple[int, int], double_quant: bool) -> None:
    from bitsandbytes.functional import quantize_4bit

    from tunesmith.model.methods.quantized import _nf4

    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[0, :5] = 0
    codes, ours = _nf4(weight, double_quant=double_quant)
    want, theirs = quantize_4bit(weight, blocksize=64, compress_statistics=double_quant, quant_type="nf4")
    assert torch.equal(codes, want)
    assert torch.equal(ours.absmax, theirs.absmax)
    if double_quant:
        assert torch.equal(ours.offset, theirs.offset)
        assert torch.equal(ours.state2.absmax, theirs.state2.absmax)


def test_blocks_that_span_two_rows_are_read_rightly(family: Family) -> None:
    from bitsandbytes.functional import get_4bit_type

    from tunesmith.model.methods.quantized import layers

    code = get_4bit_type("nf4", device="cpu")
    for base in ("llama", "wide"):  # 48 and 128 inputs; blocks hold 64
        for layer in layers(wrapped(family(base), QUANTIZED["nf4_single"])).values():
            codes, scales = layer.parts()
            numbers = torch.stack((codes.view(-1) >> 4, codes.view(-1) & 15), 1).view(-1, 64).long()
            want = (code[numbers] * scales.view(-1, 1)).view(layer.out_features, layer.in_features)
            assert torch.equal(layer.dequantized(torch.float32), want)
    with pytest.raises(InputError, match=r"dora on 4 bits needs layers whose inputs are a multiple of 64.*of 48"):
        wrapped(family("llama"), QUANTIZED["nf4_dora"])


def test_a_family_without_torchs_linear_layers_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match=r"gpt2 has layers of type Conv1D.*\n.*use kind: lora"):
        wrapped(family("gpt2"), NF4)


def test_without_the_library_the_extra_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Exception, match=r"tunesmith\[quant\]"):
        methods.wrap(load_base(family("llama"), dtype="fp32"), NF4, seed=0, texts=TEXTS)
    assert METHODS["qlora"].extra == "quant"
