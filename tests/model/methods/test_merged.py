"""Methods whose result is one set of weights: trained, saved, loaded and merged are one model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.methods.kinds import IDS, LORA, LORAS, MERGED, TEXTS, logits, off, saved, wrapped
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec

Family = Callable[[str], Path]
FAMILIES = ["llama", "gpt2", "gemma3_text", "falcon", "phi"]
SUBTRACTED = {"pissa", "olora", "rslora_pissa_ranks"}  # their files hold a pair more, so sums run in another order


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("base", FAMILIES)
def test_trained_saved_loaded_and_merged_are_one_model(name: str, base: str, family: Family, tmp_path: Path) -> None:
    spec = MERGED[name]
    model = wrapped(family(base), spec)
    want = logits(model)
    assert off(want, logits(load_base(family(base), dtype="fp32"))) > 1e-3
    folder = saved(model, spec, tmp_path / "out")
    apart = logits(load_tuned(family(base), folder, dtype="fp32", merge=False))
    assert off(apart, want) <= (1e-6 if name in SUBTRACTED else 0.0)
    assert off(logits(load_tuned(family(base), folder, dtype="fp32")), want) < 2e-6
    assert off(logits(methods.merge(model, spec)), want) < 2e-6


@pytest.mark.parametrize("name", LORAS)
def test_every_start_is_the_base_also_in_bf16(name: str, family: Family) -> None:
    for dtype, limit in (("fp32", 1e-6), ("bf16", 0.01)):
        want = logits(load_base(family("llama"), dtype=dtype))
        assert off(logits(wrapped(family("llama"), LORAS[name], dtype=dtype, moved=False)), want) <= limit


@pytest.mark.parametrize("name", LORAS)
def test_plain_peft_loads_every_variant(name: str, family: Family, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = wrapped(family("qwen2"), LORAS[name])
    saved(model, LORAS[name], tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(family("qwen2"))
    assert off(logits(PeftModel.from_pretrained(base, tmp_path / "out").eval()), logits(model)) <= 1e-6


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_a_start_from_the_weights_is_pefts_own(name: str, family: Family) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8.0, init_lora_weights=name, target_modules=["q_proj"], task_type="CAUSAL_LM")
    theirs = get_peft_model(load_base(family("llama"), dtype="fp32"), config)
    ours = methods.wrap(load_base(family("llama"), dtype="fp32"), replace(LORAS[name], targets="q_proj"), seed=0)
    for layer in range(3):
        a, b = (m.get_base_model().model.layers[layer].self_attn.q_proj for m in (ours, theirs))
        products = [q.lora_B["default"].weight @ q.lora_A["default"].weight for q in (a, b)]
        assert off(*products) < 1e-6
        assert products[0].abs().max() > 1e-3


def test_pissa_holds_the_largest_singular_values(family: Family) -> None:
    model = wrapped(family("llama"), LORAS["pissa"], moved=False)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    want = torch.linalg.svdvals(layer.base_layer.weight)[:4]
    assert off(torch.linalg.svdvals(update.detach())[:4], want) < 1e-5


def test_eva_spans_the_directions_of_the_inputs(family: Family) -> None:
    base = load_base(family("llama"), dtype="fp32")
    rows: list[torch.Tensor] = []
    hook = base.model.layers[1].self_attn.q_proj.register_forward_pre_hook(lambda _, x: rows.append(x[0].flatten(0, 1)))
    for text in TEXTS:
        logits(base, torch.tensor([text]))
    hook.remove()
    want = torch.linalg.svd(torch.cat(rows), full_matrices=False).Vh[:4]
    model = wrapped(family("llama"), LORAS["eva"], moved=False)
    a = model.get_base_model().model.layers[1].self_attn.q_proj.lora_A["default"].weight.detach()
    explained = (torch.cat(rows) @ a.T).norm() / (torch.cat(rows) @ want.T).norm()
    assert 0.999 < float(explained) <= 1.0001  # the batches are summarised one after the other
    assert off(a @ a.T, torch.eye(4)) < 1e-5


def test_eva_depends_on_the_texts_and_not_on_their_order(family: Family) -> None:
    def start(texts: list[tuple[int, ...]]) -> torch.Tensor:
        model = methods.wrap(load_base(family("llama"), dtype="fp32"), LORAS["eva"], seed=0, texts=texts)
        return model.get_base_model().model.layers[2].mlp.up_proj.lora_A["default"].weight.detach()

    assert torch.equal(start(TEXTS), start(TEXTS[::-1]))
    assert not torch.equal(start(TEXTS), start(TEXTS[:2]))


def test_scales_are_those_of_the_papers(family: Family) -> None:
    def layers(spec: MethodSpec) -> dict[str, tuple[int, float]]:
        model = methods.wrap(load_base(family("llama"), dtype="fp32"), spec, seed=0)
        found = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
        return {n: (m.r["default"], m.scaling["default"]) for n, m in found.items()}

    assert set(layers(LORA).values()) == {(4, 2.0)}
    assert set(layers(LORAS["rslora"]).values()) == {(4, 4.0)}
    special = layers(LORAS["ranks"])
    assert {r for n, (r, _) in special.items() if ".0." in n} == {2}
    assert {r for n, (r, _) in special.items() if ".1." in n} == {6}
    assert {r for n, (r, _) in special.items() if ".2." in n} == {4}
    assert all(abs(s - 2.0) < 1e-12 for _, s in special.values())


def test_groups_hold_every_weight_once(family: Family) -> None:
    for name, ratios in (("lora_plus", [1.0, 16.0]), ("rslora", [1.0])):
        model = wrapped(family("llama"), LORAS[name])
        groups = methods.parameter_groups(model, LORAS[name])
        assert [g["lr_ratio"] for g in groups] == ratios
        names = [n for g in groups for n in g["names"]]
        assert sorted(names) == list(methods.trainable_parameters(model))
    fast = methods.parameter_groups(wrapped(family("llama"), LORAS["lora_plus"]), LORAS["lora_plus"])[1]["names"]
    assert all("lora_B" in n for n in fast)
    assert len(fast) == 21


def test_the_subtracted_start_is_not_trained(family: Family) -> None:
    model = wrapped(family("llama"), LORAS["pissa"])
    assert len(methods.trainable_parameters(model)) == 42
    assert not any("start" in n for n in methods.trainable_parameters(model))
    untouched = load_base(family("llama"), dtype="fp32").state_dict()
    for name, tensor in model.get_base_model().state_dict().items():
        if ".base_layer." in name:
            assert torch.equal(tensor, untouched[name.replace(".base_layer", "")])


def test_last_layers_train_and_the_rest_stays(family: Family, tmp_path: Path) -> None:
    spec = MERGED["last_layers"]
    model = wrapped(family("llama"), spec)
    assert {n.split(".")[2] for n in methods.trainable_parameters(model)} == {"1", "2"}
    saved(model, spec, tmp_path / "out")
    new, old = load_file(tmp_path / "out" / "model.safetensors"), load_base(family("llama"), dtype="fp32").state_dict()
    changed = {n for n, t in new.items() if not torch.equal(t, old[n])}
    assert changed == set(methods.trainable_parameters(model))


def test_patterns_choose_parameters(family: Family) -> None:
    spec = replace(MERGED["last_layers"], train_layers=("mlp.*", "model.norm.weight"))
    names = set(methods.trainable_parameters(wrapped(family("llama"), spec)))
    assert len(names) == 3 * 3 + 1
    assert all(".mlp." in n or n == "model.norm.weight" for n in names)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(LORA, ranks=(("dwn_proj", 8),)), ["train.method.ranks: dwn_proj", "did you mean down_proj?"]),
        (replace(LORA, init="pissa", rank=400), ["pissa has only 48 directions", "at most 16"]),
        (replace(LORA, init="eva", rank=49), ["eva has only 48 directions"]),
        (replace(MERGED["last_layers"], train_layers="last:9"), ["the model has 3", "last:1 to last:3"]),
        (replace(MERGED["last_layers"], train_layers=("mlpp.*",)), ["train.method.train_layers: mlpp.*"]),
        (replace(MERGED["ia3"], targets=("k_prj",)), ["train.method.targets: k_prj", "did you mean k_proj?"]),
    ],
    ids=str,
)
def test_what_the_model_lacks_is_refused_with_a_way_out(spec: MethodSpec, words: list[str], family: Family) -> None:
    with pytest.raises(InputError) as e:
        methods.wrap(load_base(family("llama"), dtype="fp32"), spec, seed=0, texts=TEXTS)
    for word in words:
        assert word in str(e.value)


def test_eva_without_texts_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match="there are no texts to read"):
        methods.wrap(load_base(family("llama"), dtype="fp32"), LORAS["eva"], seed=0)


@pytest.mark.parametrize("name", ["dora", "rslora", "ranks", "ia3", "pissa"])
def test_a_config_that_says_otherwise_is_refused(name: str, family: Family, tmp_path: Path) -> None:
    folder = saved(wrapped(family("llama"), MERGED[name]), MERGED[name], tmp_path / "out")
    path = folder / "adapter_config.json"
    good = json.loads(path.read_text())
    for key in ("use_dora", "use_rslora", "rank_pattern", "feedforward_modules", "r"):
        if good.get(key):
            path.write_text(json.dumps(good | {key: None}))
            with pytest.raises(ModelError, match=f"{key}: is None, but checkpoint.json says"):
                load_tuned(family("llama"), folder, dtype="fp32")


def test_ia3_scales_what_the_paper_scales(family: Family) -> None:
    names = list(methods.trainable_parameters(wrapped(family("qwen2"), MERGED["ia3"])))
    assert {n.split(".")[-3] for n in names} == {"k_proj", "v_proj", "down_proj"}
    model = wrapped(family("qwen2"), MERGED["ia3"], moved=False)
    assert torch.equal(logits(model), logits(load_base(family("qwen2"), dtype="fp32")))
    bf16 = wrapped(family("qwen2"), MERGED["ia3"], dtype="bf16")
    assert {p.dtype for p in methods.trainable_parameters(bf16).values()} == {torch.float32}
    assert torch.isfinite(logits(bf16, IDS)).all()
