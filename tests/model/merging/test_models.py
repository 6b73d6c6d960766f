"""Whole models with each other: every formula against the same computed on state dicts held whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.merging.conftest import FULL, Make
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.headers import read_header
from tunesmith.model.load import load_base
from tunesmith.model.merging.arithmetic import Recipe, drop_and_rescale, elect_and_average, slerp
from tunesmith.model.merging.models import combine_models
from tunesmith.model.merging.tensors import write_tensors

State = dict[str, torch.Tensor]


def state(folder: Path) -> State:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def tuned(checkpoint: Make, tiny_llama: Path) -> list[Path]:
    """Two full checkpoints of tiny_llama."""
    made = [checkpoint(f"full{i}", FULL, seed=i) for i in range(2)]
    for folder in made:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((tiny_llama / name).read_bytes())
    return made


def test_task_arithmetic_adds_what_was_learned(tuned: list[Path], tiny_llama: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="linear", weights=(0.7, -0.4), scale=0.5)
    combine_models(tuned, tmp_path / "out", recipe, base=tiny_llama)
    zero, a, b, got = state(tiny_llama), state(tuned[0]), state(tuned[1]), state(tmp_path / "out")
    assert set(got) == set(zero)
    for n in zero:
        want = zero[n] + 0.5 * (0.7 * (a[n] - zero[n]) - 0.4 * (b[n] - zero[n]))
        torch.testing.assert_close(got[n], want, rtol=0, atol=1e-6)
    load_base(tmp_path / "out", dtype="fp32")


def test_an_average_needs_no_base(tuned: list[Path], tmp_path: Path) -> None:
    combine_models(tuned, tmp_path / "out", Recipe(method="linear", weights=(0.25, 0.75)), base=None)
    a, b, got = state(tuned[0]), state(tuned[1]), state(tmp_path / "out")
    for n in a:
        torch.testing.assert_close(got[n], 0.25 * a[n] + 0.75 * b[n], rtol=0, atol=1e-6)


def test_ties_trims_the_whole_vector_at_once(tuned: list[Path], tiny_llama: Path, tmp_path: Path) -> None:
    combine_models(
        tuned, tmp_path / "out", Recipe(method="ties", weights=(1.0, 1.0), keep=0.2, scale=0.8), base=tiny_llama
    )
    zero, got = state(tiny_llama), state(tmp_path / "out")
    deltas = [{n: t - zero[n] for n, t in state(m).items()} for m in tuned]
    kept = []
    for delta in deltas:
        flat = torch.cat([t.flatten() for t in delta.values()]).abs()
        least = flat.sort(descending=True).values[-(-len(flat) // 5) - 1]
        kept.append({n: torch.where(t.abs() >= least, t, 0.0) for n, t in delta.items()})
    for n in zero:
        want = zero[n] + 0.8 * elect_and_average([k[n] for k in kept])
        torch.testing.assert_close(got[n], want, rtol=0, atol=1e-6)
    shares = {n: float((kept[0][n] != 0).float().mean()) for n in zero}
    assert max(shares.values()) - min(shares.values()) > 0.05  # tensor by tensor it would be 0.2 each


def test_dare_is_seeded_by_tensor(tuned: list[Path], tiny_llama: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="dare", weights=(0.5, 0.5), drop=0.9, seed=7)
    combine_models(tuned, tmp_path / "out", recipe, base=tiny_llama)
    zero, a, b, got = state(tiny_llama), state(tuned[0]), state(tuned[1]), state(tmp_path / "out")
    for n in zero:
        parts = [drop_and_rescale(t[n] - zero[n], 0.9, 7, i, n) for i, t in enumerate((a, b))]
        torch.testing.assert_close(got[n], zero[n] + 0.5 * sum(parts), rtol=0, atol=1e-6)


def test_slerp_goes_from_one_to_the_other(tuned: list[Path], tmp_path: Path) -> None:
    a, b = (state(m) for m in tuned)
    for i, (weights, t) in enumerate((((1.0, 0.0), 0.0), ((3.0, 1.0), 0.25), ((0.0, 2.0), 1.0))):
        combine_models(tuned, tmp_path / f"out{i}", Recipe(method="slerp", weights=weights), base=None)
        got = state(tmp_path / f"out{i}")
        for n in a:
            torch.testing.assert_close(got[n], slerp(a[n], b[n], t), rtol=0, atol=1e-6)


def test_result_has_the_bases_dtype_and_files(tuned: list[Path], tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    half.mkdir()
    for file in tiny_llama.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(half)
    for name in ("a", "b"):
        combine_models(tuned, tmp_path / name, Recipe(method="linear", weights=(0.5, 0.5)), base=half)
    got = state(tmp_path / "a")
    assert {t.dtype for t in got.values()} == {torch.bfloat16}
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tiny_llama / "tokenizer.json").read_bytes()
    assert not (tmp_path / "a" / "checkpoint.json").exists()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    zero, a, b = state(half), state(tuned[0]), state(tuned[1])
    name = "model.layers.0.mlp.up_proj.weight"
    want = (zero[name].float() + 0.5 * (a[name] - zero[name].float()) + 0.5 * (b[name] - zero[name].float())).bfloat16()
    assert torch.equal(got[name], want)  # fp32 arithmetic, rounded once


def test_models_that_do_not_fit_are_refused(tuned: list[Path], tiny_llama: Path, tmp_path: Path) -> None:
    half = Recipe(method="linear", weights=(0.5, 0.5))
    wide = make_tiny(tmp_path / "wide", hidden_size=96)
    untied = make_tiny(tmp_path / "untied", tie_word_embeddings=False)
    turned = make_tiny(tmp_path / "turned")
    config = json.loads((turned / "config.json").read_text())
    (turned / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    for other, message in ((wide, "another shape"), (untied, "untie it first"), (turned, "rms_norm_eps")):
        with pytest.raises(ModelError, match=message):
            combine_models([tuned[0], other], tmp_path / "out", half, base=None)
    with pytest.raises(ModelError, match="none is given"):
        combine_models(tuned, tmp_path / "out", Recipe(method="ties", weights=(1.0, 1.0)), base=None)
    with pytest.raises(ModelError, match=r"add up to 0\.4"):
        combine_models(tuned, tmp_path / "out", replace(half, weights=(0.2, 0.2)), base=None)
    with pytest.raises(ModelError, match="no use for a base"):
        combine_models(tuned, tmp_path / "out", Recipe(method="slerp", weights=(1.0, 1.0)), base=tiny_llama)
    with pytest.raises(InputError, match="one for each of 1"):
        combine_models(tuned[:1], tmp_path / "out", half, base=None)
    assert not (tmp_path / "out").exists()


def test_written_tensors_are_a_sound_file(tmp_path: Path) -> None:
    held = {
        "b": torch.arange(6, dtype=torch.int64).view(2, 3),
        "a": torch.randn(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "t": torch.randn(4, 3).T,
    }
    asked: list[str] = []

    def tensor(name: str) -> torch.Tensor:
        asked.append(name)
        return held[name]

    write_tensors(tmp_path / "x.safetensors", {n: (t.dtype, tuple(t.shape)) for n, t in held.items()}, tensor)
    assert asked == sorted(held)
    assert set(read_header(tmp_path / "x.safetensors")) == set(held)
    for name, value in load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(value, held[name])
