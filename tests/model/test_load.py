"""A model in memory is the files' and nothing else: strict, quiet, offline, without side effects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import make_tiny
from tunesmith.core.errors import ModelError
from tunesmith.model.load import dtype_of, load_base


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_llama, tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, change: object) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)  # type: ignore[operator]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_are_those_of_the_file_in_the_dtype_asked_for(tiny_llama: Path) -> None:
    state = load_file(tiny_llama / "model.safetensors")
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = load_base(tiny_llama, dtype=precision)
        assert not model.training
        own = model.state_dict()
        assert all(torch.equal(own[n], t.to(dtype)) for n, t in state.items())
    assert dtype_of(torch.float16) is torch.float16


def test_loading_prints_nothing_and_leaves_the_random_state(
    tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    load_base(tiny_llama, dtype="fp32")
    assert torch.equal(torch.get_rng_state(), before)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_missing_tensor_is_an_error_not_a_random_one(folder: Path) -> None:
    rewrite(folder, lambda s: s.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"1 tensors are not in the weight files: model\.layers\.1\.mlp\.up_proj"):
        load_base(folder, dtype="fp32")


def test_tensors_left_over_are_an_error(folder: Path) -> None:
    rewrite(folder, lambda s: s.update({"model.layers.9.extra": torch.zeros(2), "adapter.x": torch.zeros(1)}))
    with pytest.raises(ModelError, match="2 tensors are in the weight files but not in the architecture"):
        load_base(folder, dtype="fp32")


def test_another_shape_is_an_error(folder: Path) -> None:
    rewrite(folder, lambda s: s.update({"model.norm.weight": torch.ones(7)}))
    with pytest.raises(ModelError, match=r"another shape than the configuration says: model\.norm\.weight"):
        load_base(folder, dtype="fp32")


def test_several_faults_are_named_at_once(folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["model.layers.0.mlp.up_proj.weight"]
        state["model.norm.weight"] = torch.ones(7)
        state["surplus"] = torch.ones(1)

    rewrite(folder, change)
    with pytest.raises(ModelError) as e:
        load_base(folder, dtype="fp32")
    assert len(e.value.problems) == 3


def test_an_unknown_architecture_is_one_message(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "quux"}))
    with pytest.raises(ModelError, match="transformers cannot load it") as e:
        load_base(folder, dtype="fp32")
    assert "built in" in str(e.value)


def test_a_model_that_is_no_language_model_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(ModelError, match="cannot load it"):
        load_base(folder, dtype="fp32")


def test_sharded_weights_load(tmp_path: Path, tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = load_base(tiny_llama, dtype="fp32")
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    parts = load_base(tmp_path, dtype="fp32").state_dict()
    assert all(torch.equal(parts[n], t) for n, t in whole.state_dict().items())


def test_a_ledger_view_of_links_loads(tiny_llama: Path, tmp_path: Path) -> None:
    view = tmp_path / "view"
    view.mkdir()
    for path in tiny_llama.iterdir():
        (view / path.name).symlink_to(path)
    load_base(view, dtype="fp32")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
def test_other_families_load(family: str, tmp_path: Path) -> None:
    model = load_base(make_tiny(tmp_path / family, family), dtype="fp32")
    assert model(torch.tensor([[3, 4]])).logits.shape[:2] == (1, 2)
