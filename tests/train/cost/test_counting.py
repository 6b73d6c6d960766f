"""What is counted from config.json is what the real wrapped model trains and holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import make_tiny
from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS as CATALOGUE
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting
from tunesmith.train.cost.skeleton import from_json, skeleton_of, to_json
from tunesmith.train.learner import model_at_start
from tunesmith.train.precision import estimate

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "gemma2": {}, "gpt2": {}, "falcon": {},
    "phi": {}, "opt": {"ffn_dim": 96, "word_embed_proj_dim": 48}, "bloom": {},
}  # fmt: skip
ALIKE = ("mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi")  # counted as llama is: with the slow tests
LORA = data.LORA
FULL = replace(LORA, kind="full")
BOTTLENECK = replace(LORA, kind="bottleneck", placement="pfeiffer", reduction=16.0, activation="relu")
METHODS = data.small_methods(virtual_tokens=5, projection=12) | {
    "lora": LORA,
    "pissa": replace(LORA, init="pissa"),
    "ranks": replace(LORA, ranks=(("*.0.*", 8), ("*.1.*", 2))),
    "houlsby": replace(BOTTLENECK, placement="houlsby"),
    "pfeiffer": replace(BOTTLENECK, reduction=0.0),
    "parallel": replace(BOTTLENECK, placement="parallel", scaling=4.0),
    "full": FULL,
    "last:2": replace(FULL, train_layers="last:2"),
    "biases": replace(FULL, train_layers=("*norm*", "ln_*")),
}


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] * (f in ALIKE)) for f in FAMILIES])
def test_every_method_trains_what_is_counted(tmp_path: Path, family: str) -> None:
    base = make_tiny(tmp_path / "m", family, **FAMILIES[family])
    skeleton = from_json(json.loads(json.dumps(to_json(skeleton_of(json.loads((base / "config.json").read_text()))))))
    assert skeleton.count == sum(p.numel() for p in load_base(base, dtype="fp32").parameters())
    assert {m.kind for m in METHODS.values()} == set(CATALOGUE)
    compared = 0
    for name, method in METHODS.items():
        if method.kind == "qlora":
            pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        try:
            model = methods.wrap(load_base(base, dtype="fp32"), method, seed=0)
        except InputError as e:
            if "fits nothing" in str(e):
                continue  # a name that this family does not have
            assert counting.refusal(skeleton, method), (name, e)
            with pytest.raises(InputError):
                counting.trained_count(skeleton, method)
            continue
        got = sum(p.numel() for p in methods.trainable_parameters(model).values())
        assert counting.trained_count(skeleton, method) == got, name
        compared += 1
        if method.kind == "qlora":
            held = sum(t.numel() * t.element_size() for t in _held(model))
            counted = counting.base_bytes(skeleton, method, 4) + 4 * got
            assert counted == pytest.approx(held, rel=0.03), name
    assert compared >= 12


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_counted_once(tmp_path: Path, tied: bool) -> None:
    base = make_tiny(tmp_path / "m", tie_word_embeddings=tied)
    skeleton = skeleton_of(json.loads((base / "config.json").read_text()))
    assert skeleton.count == sum(p.numel() for p in load_base(base, dtype="fp32").parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", [LORA, METHODS["pfeiffer"], METHODS["ia3"], FULL], ids=lambda m: m.kind)
def test_the_rows_of_new_tokens_are_counted(tmp_path: Path, tied: bool, method: MethodSpec) -> None:
    tokens = ("<ICD>", "<OPS>", "<ATC>")
    base = make_tiny(tmp_path / "m", tie_word_embeddings=tied)
    spec = replace(data.SPEC, method=method, new_tokens=tokens)
    _, trained = model_at_start(spec, base, [])
    config = json.loads((base / "config.json").read_text())
    skeleton = skeleton_of(config)
    facts = {"counts": {"train": 8}, "tokens": {"total": 80, "longest": 10, "answer": {"mean": 2}}}
    found, without = (estimate(config, facts, s, 1.0) for s in (spec, replace(spec, new_tokens=())))
    assert found["trained_weights"] == sum(p.numel() for p in trained.values())
    assert found["trained_weights"] - without["trained_weights"] == 3 * skeleton.hidden * (1 if tied else 2)
    assert found["path"] == ("flat" if method.kind == "full" else "plain")


def test_new_tokens_cost_what_trained_weights_cost(tiny_llama: Path) -> None:
    """1,000 rows of a model as wide as SmolLM2: their weights, gradients and two moments."""
    config = json.loads((tiny_llama / "config.json").read_text()) | {"hidden_size": 576, "vocab_size": 49_152}
    facts = {"counts": {"train": 8}, "tokens": {"total": 80, "longest": 10, "answer": {"mean": 2}}}
    spec = replace(data.SPEC, method=replace(LORA, dropout=0.1))  # the plain path either way
    more = replace(spec, new_tokens=tuple(f"<{i}>" for i in range(1000)))
    before, after = (estimate(config, facts, s, 1.0, exec=Exec(micro_batch_tokens=16)) for s in (spec, more))
    rows = 1000 * 576 * (1 if config["tie_word_embeddings"] else 2) * 4 / 2**20
    for part, times in {"weights": 1, "trained": 1, "gradients": 1, "optimizer": 2, "activations": 0}.items():
        assert after["memory"][part] - before["memory"][part] == pytest.approx(times * rows, abs=0.15), part


@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), "v_proj"])
def test_named_targets_and_named_layers(tiny_llama: Path, targets: str | tuple[str, ...]) -> None:
    skeleton = skeleton_of(json.loads((tiny_llama / "config.json").read_text()))
    for method in (
        replace(LORA, targets=targets),
        replace(LORA, kind="ia3", targets=targets),
        replace(FULL, train_layers=("layers.0.*", "norm.weight")),
    ):
        model = methods.wrap(load_base(tiny_llama, dtype="fp32"), method, seed=0)
        got = sum(p.numel() for p in methods.trainable_parameters(model).values())
        assert counting.trained_count(skeleton, method) == got


def _held(model: object) -> list:
    """Every tensor that the wrapped model holds, quantized ones by their parts."""
    from tunesmith.model.methods.quantized import layers

    quantized = layers(model)  # type: ignore[arg-type]
    inside = {id(p) for layer in quantized.values() for p in layer.parameters(recurse=False)}
    plain = [p for p in model.parameters() if id(p) not in inside]  # type: ignore[attr-defined]
    biases = [layer.bias for layer in quantized.values() if layer.bias is not None]
    found = []
    for layer in quantized.values():
        found += layer.parts()
    return [*plain, *biases, *found]
