"""Adapters with adapters: what is combined is the update, exactly or with the error that is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.merging.conftest import BOTTLENECK, LORA, Make, logits
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.merging.adapters import Adapter, combine_adapters
from tunesmith.model.merging.arithmetic import Recipe, combine, trim_threshold

State = dict[str, torch.Tensor]


def updates(base: Path, checkpoint: Path) -> State:
    """What the adapter adds to each weight of the base, by merging it."""
    plain = load_base(base, dtype="fp32").state_dict()
    merged = load_tuned(base, checkpoint, dtype="fp32").state_dict()
    return {n: merged[n] - plain[n] for n in plain}


def test_a_linear_combination_is_exact(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    specs = (LORA, replace(LORA, rank=2, alpha=6.0, rslora=True), replace(LORA, init="pissa", rank=3))
    made = [checkpoint(f"c{i}", s, seed=i) for i, s in enumerate(specs)]
    weights = (0.5, -1.0, 2.0)
    found = combine_adapters(made, tmp_path / "out", Recipe(method="linear", weights=weights, scale=0.5), rank=0)
    assert (found.rank, found.error) == (4 + 2 + 6, 0.0)
    each = [updates(tiny_llama, c) for c in made]
    got = updates(tiny_llama, tmp_path / "out")
    for name in got:
        want = 0.5 * sum(w * e[name] for w, e in zip(weights, each, strict=True))
        torch.testing.assert_close(got[name], want, rtol=0, atol=1e-6)
    assert max(float(t.abs().max()) for t in got.values()) > 0.01


def test_adapters_of_different_layers_add_up(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = [
        checkpoint(f"c{i}", replace(LORA, targets=t), seed=i) for i, t in enumerate((("q_proj",), ("v_proj", "q_proj")))
    ]
    combine_adapters(made, tmp_path / "out", Recipe(method="linear", weights=(1.0, 1.0)), rank=0)
    each, got = [updates(tiny_llama, c) for c in made], updates(tiny_llama, tmp_path / "out")
    for name in got:
        torch.testing.assert_close(got[name], each[0][name] + each[1][name], rtol=0, atol=1e-6)


def test_a_smaller_rank_is_the_best_one_and_says_its_error(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = [checkpoint(f"c{i}", LORA, seed=i) for i in range(2)]
    recipe = Recipe(method="linear", weights=(0.5, 0.5))
    found = combine_adapters(made, tmp_path / "out", recipe, rank=3)
    each, got = [updates(tiny_llama, c) for c in made], updates(tiny_llama, tmp_path / "out")
    lost = whole = 0.0
    for name in got:
        want = (each[0][name] + each[1][name]).double() / 2
        if not want.any():
            continue
        u, s, v = torch.linalg.svd(want, full_matrices=False)
        torch.testing.assert_close(got[name].double(), u[:, :3] * s[:3] @ v[:3], rtol=0, atol=1e-6)
        lost, whole = lost + float(s[3:].square().sum()), whole + float(s.square().sum())
    assert 0.05 < found.error < 0.9
    assert found.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert found.worst_error >= found.error
    enough = combine_adapters(made, tmp_path / "enough", recipe, rank=20)
    assert enough.error < 1e-7


@pytest.mark.parametrize("method", ["ties", "dare", "dare_ties"])
def test_ties_and_dare_work_on_the_updates(method: str, checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    made = [checkpoint(f"c{i}", LORA, seed=i) for i in range(2)]
    options = {"ties": {"keep": 0.3}, "dare": {"drop": 0.5, "seed": 4}, "dare_ties": {"drop": 0.5, "seed": 4}}[method]
    recipe = Recipe(method=method, weights=(0.5, 0.5), **options)  # type: ignore[arg-type]
    found = combine_adapters(made, tmp_path / "out", recipe, rank=48)  # the layers' full rank: nothing is cut off
    assert found.error < 1e-6
    got = updates(tiny_llama, tmp_path / "out")
    adapters = [Adapter(c) for c in made]
    deltas = [{n: (a.factors(n)[0] @ a.factors(n)[1]).float() for n in a.layers} for a in adapters]
    thresholds = [trim_threshold(lambda d=d: d.values(), recipe.keep) for d in deltas] if method == "ties" else []
    for layer in adapters[0].layers:
        want = combine([d[layer] for d in deltas], recipe, layer, thresholds)
        name = layer.removeprefix("base_model.model.") + ".weight"
        torch.testing.assert_close(got[name], want, rtol=0, atol=2e-6)
    small = combine_adapters(made, tmp_path / "small", recipe, rank=4)
    assert small.error > 0.01


def test_the_result_is_a_checkpoint_like_any_other(checkpoint: Make, tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    made = [checkpoint(f"c{i}", LORA, seed=i) for i in range(2)]
    recipe = Recipe(method="linear", weights=(0.5, 0.5))
    for name in ("a", "b"):
        combine_adapters(made, tmp_path / name, recipe, rank=0)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()
    beside = logits(load_tuned(tiny_llama, tmp_path / "a", dtype="fp32", merge=False))
    plain = logits(PeftModel.from_pretrained(load_base(tiny_llama, dtype="fp32"), tmp_path / "a").eval())
    assert torch.equal(beside, plain)
    again = combine_adapters(
        [tmp_path / "a", made[0]], tmp_path / "again", Recipe(method="linear", weights=(2.0, -1.0)), rank=0
    )
    got, want = updates(tiny_llama, tmp_path / "again"), updates(tiny_llama, made[1])
    assert again.rank == 12
    for name in got:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=2e-6)


def test_what_cannot_be_combined_is_refused(checkpoint: Make, tmp_path: Path) -> None:
    recipe = Recipe(method="linear", weights=(0.5, 0.5))
    lora = checkpoint("lora", LORA, seed=0)
    other_base = make_tiny(tmp_path / "other", seed=5)
    cases = {
        "only LoRA": checkpoint("bottleneck", BOTTLENECK, seed=0),
        "DoRA": checkpoint("dora", replace(LORA, dora=True), seed=0),
        "adapters of one base": checkpoint("foreign", LORA, seed=0, base=other_base),
    }
    for message, bad in cases.items():
        with pytest.raises(ModelError, match=message):
            combine_adapters([lora, bad], tmp_path / "out", recipe, rank=0)
    second = checkpoint("second", LORA, seed=1)
    with pytest.raises(ModelError, match="full rank"):
        combine_adapters([lora, second], tmp_path / "out", Recipe(method="ties", weights=(1.0, 1.0)), rank=0)
    with pytest.raises(ModelError, match="whole models"):
        combine_adapters([lora, second], tmp_path / "out", Recipe(method="slerp", weights=(1.0, 1.0)), rank=4)
    with pytest.raises(InputError, match="one for each of 1"):
        combine_adapters([lora], tmp_path / "out", recipe, rank=0)
    (second / "renderer.json").write_text('{"system": "another"}')
    with pytest.raises(ModelError, match="different prompts"):
        combine_adapters([lora, second], tmp_path / "out", recipe, rank=0)
    assert not (tmp_path / "out").exists()
    combine_adapters([lora, second], tmp_path / "out", recipe, rank=0, renderer_of=1)
    assert (tmp_path / "out" / "renderer.json").read_text() == '{"system": "another"}'
