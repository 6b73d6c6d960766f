"""Bottleneck adapters: `adapters`' numbers, PEFT's verbs, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.bottleneck_oracle import Formula, with_formula
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import bottleneck
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec, method_json

SPEC = MethodSpec(
    kind="bottleneck",
    rank=5,
    alpha=1.0,
    dropout=0.0,
    targets="all-linear",
    placement="pfeiffer",
    activation="relu",
)
PLACEMENTS = {
    "houlsby": replace(SPEC, placement="houlsby", activation="silu"),
    "pfeiffer": SPEC,
    "parallel": replace(SPEC, placement="parallel", scaling=4.0),
}
IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9]])
FAMILIES = ("llama", "gpt2", "mistral", "qwen2", "qwen3", "opt")
every_placement = pytest.mark.parametrize("spec", PLACEMENTS.values(), ids=PLACEMENTS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    extra = {"opt": {"ffn_dim": 96, "word_embed_proj_dim": 48}}
    names = (*FAMILIES, "gemma2", "phi", "falcon", "bloom", "gpt_neox", "olmo2")
    return {f: make_tiny(folder / f, f, **extra.get(f, {})) for f in names}


def trained(base: Path, spec: MethodSpec, out: Path, *, seed: int = 1) -> torch.Tensor:
    """A checkpoint whose every trainable weight was moved, and the logits of the model that wrote it."""
    model = methods.wrap(load_base(base, dtype="fp32"), spec, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in methods.trainable_parameters(model).values():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.2, generator=generator))
        logits: torch.Tensor = model(IDS, use_cache=False).logits
    out.mkdir(parents=True, exist_ok=True)
    methods.save(model, spec, out, base="tiny-base")
    (out / "checkpoint.json").write_text(json.dumps({"method": method_json(spec)}))
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@every_placement
def test_logits_are_those_of_the_adapters_formulas(
    family: str, spec: MethodSpec, bases: dict[str, Path], tmp_path: Path
) -> None:
    got = trained(bases[family], spec, tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    formula = Formula(spec.placement, state, scaling=spec.scaling, activation=spec.activation)
    base = load_base(bases[family], dtype="fp32")
    with torch.no_grad():
        plain = base(IDS, use_cache=False).logits
        want = with_formula(base, family, formula)(IDS, use_cache=False).logits
    assert float((got - want).abs().max()) <= 1e-6
    assert float((got - plain).abs().max()) > 0.05  # the adapter did something


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi", "falcon", "bloom", "gpt_neox"])
@every_placement
def test_starts_as_the_base_and_trains_only_adapters(family: str, spec: MethodSpec, bases: dict[str, Path]) -> None:
    base = load_base(bases[family], dtype="fp32")
    with torch.no_grad():
        want = base(IDS).logits
        model = methods.wrap(base, spec, seed=0)
        assert torch.equal(model(IDS).logits, want)
    names = list(methods.trainable_parameters(model))
    assert names == sorted(names)
    assert all("bottleneck_" in n for n in names)
    assert len(names) == 3 * (2 if spec.placement == "houlsby" else 1) * 4  # layers, places, two weights and biases


def test_start_depends_on_the_seed_alone(bases: dict[str, Path]) -> None:
    def start(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        model = methods.wrap(load_base(bases["llama"], dtype="fp32"), SPEC, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return {n: p.detach().clone() for n, p in methods.trainable_parameters(model).items()}

    first, again, other = start(0, 1), start(0, 2), start(1, 1)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_width_is_the_rank_or_the_reduction(bases: dict[str, Path]) -> None:
    for spec, width in ((SPEC, 5), (replace(SPEC, reduction=16.0), 3), (replace(SPEC, reduction=1000.0), 1)):
        model = methods.wrap(load_base(bases["llama"], dtype="fp32"), spec, seed=0)
        assert {m.bottleneck_down["default"].out_features for m in bottleneck.layers(model).values()} == {width}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@every_placement
def test_saved_and_loaded_is_the_trained_model(
    family: str, spec: MethodSpec, bases: dict[str, Path], tmp_path: Path
) -> None:
    want = trained(bases[family], spec, tmp_path)
    for merge in (True, False):  # there is nothing to merge, so both are the adapter beside its base
        with torch.no_grad():
            assert torch.equal(load_tuned(bases[family], tmp_path, dtype="fp32", merge=merge)(IDS).logits, want)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@every_placement
def test_plain_peft_loads_the_adapter(spec: MethodSpec, bases: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    want = trained(bases["llama"], spec, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(bases["llama"])
    with torch.no_grad():
        assert torch.equal(PeftModel.from_pretrained(base, tmp_path).eval()(IDS).logits, want)


def test_equal_weights_give_equal_bytes_and_no_path_of_this_machine(bases: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        trained(bases["llama"], SPEC, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert str(bases["llama"]).encode() not in path.read_bytes(), path.name


@every_placement
def test_adapters_are_fp32_on_a_bf16_base(spec: MethodSpec, bases: dict[str, Path], tmp_path: Path) -> None:
    want = trained(bases["llama"], spec, tmp_path)
    model = load_tuned(bases["llama"], tmp_path, dtype="bf16")
    assert {p.dtype for p in methods.trainable_parameters(model).values()} == {torch.float32}
    with torch.no_grad():
        got = model(IDS).logits
    assert got.dtype == torch.bfloat16
    assert float((got.float() - want).abs().max()) < 0.05


def gradients(base: Path, spec: MethodSpec, *, reentrant: bool | None) -> dict[str, torch.Tensor]:
    """None: without gradient checkpointing."""
    model = methods.wrap(load_base(base, dtype="fp32").train(), spec, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in methods.trainable_parameters(model).values():
            p.add_(torch.empty_like(p).normal_(std=0.1, generator=generator))
    if reentrant is not None:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    return {n: p.grad for n, p in methods.trainable_parameters(model).items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@every_placement
def test_gradient_checkpointing_changes_no_gradient(spec: MethodSpec, bases: dict[str, Path]) -> None:
    want, got = (gradients(bases["llama"], spec, reentrant=r) for r in (None, False))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-7)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_reentrant_checkpointing_never_loses_a_gradient(bases: dict[str, Path]) -> None:
    want, got = (gradients(bases["llama"], SPEC, reentrant=r) for r in (None, True))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-7)
    with pytest.raises(ModelError, match="use_reentrant=False"):
        gradients(bases["llama"], PLACEMENTS["parallel"], reentrant=True)


# -- refused -----------------------------------------------------------------------------------------------


def test_merging_is_refused_with_the_reason(bases: dict[str, Path]) -> None:
    model = methods.wrap(load_base(bases["llama"], dtype="fp32"), SPEC, seed=0)
    for attempt in (
        lambda: methods.merge(model, SPEC),
        lambda: bottleneck.merge(model),
        model.merge_and_unload,
        model.merge_adapter,
    ):
        with pytest.raises(ModelError, match="cannot be merged"):
            attempt()
    with pytest.raises(ModelError, match="activation makes the update depend on the input"):
        model.merge_and_unload()


@pytest.mark.parametrize("placement", ["pfeiffer", "parallel"])
def test_layers_that_normalise_afterwards_are_refused(placement: str, bases: dict[str, Path], tmp_path: Path) -> None:
    opt350 = make_tiny(tmp_path / "opt", "opt", ffn_dim=96, word_embed_proj_dim=48, do_layer_norm_before=False)
    for folder in (bases["olmo2"], opt350):
        with pytest.raises(InputError, match=r"train\.method\.placement.*normalise") as e:
            methods.wrap(load_base(folder, dtype="fp32"), replace(SPEC, placement=placement), seed=0)
        assert "houlsby" in e.value.problems[0].fix
        methods.wrap(load_base(folder, dtype="fp32"), replace(SPEC, placement="houlsby"), seed=0)


@pytest.mark.parametrize(
    "change",
    [{"placement": "prefix"}, {"activation": "sine"}, {"reduction": -1.0}, {"scaling": 0.0}, {"rank": 0}],
    ids=str,
)
def test_impossible_specs_cannot_be_said(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=rf"method\.{next(iter(change))}"):
        replace(SPEC, **change)  # type: ignore[arg-type]


def test_adapter_of_another_base_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    trained(bases["llama"], SPEC, tmp_path / "out")
    other = make_tiny(tmp_path / "other", hidden_size=96, intermediate_size=192)
    with pytest.raises(ModelError, match="do not fit the base model"):
        load_tuned(other, tmp_path / "out", dtype="fp32")


def test_adapter_config_that_means_something_else_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    trained(bases["llama"], SPEC, tmp_path)
    path = tmp_path / "adapter_config.json"
    good = json.loads(path.read_text())
    for key, value in (("activation", "gelu"), ("scaling", 4.0), ("reads", "mlp"), ("modules_to_save", ["lm_head"])):
        path.write_text(json.dumps(good | {key: value}))
        with pytest.raises(ModelError, match=key):
            load_tuned(bases["llama"], tmp_path, dtype="fp32")
