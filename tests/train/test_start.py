"""Domain adaptation, then instruction tuning on top: the second training begins where the first ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.train import data
from tests.train.domain_data import adapt, make_texts, text_rows
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import START
from tunesmith.text.render import Renderer
from tunesmith.train.start import base_with, carry_start, check_start

IDS = torch.tensor([[5, 9, 60, 80, 12]])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, sharp_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    texts = make_texts(folder / "texts", text_rows(10, seed=1), text_rows(4, seed=2))
    return adapt(folder / "work", texts, sharp_llama, lr=1e-2).scratch / "checkpoint"


def logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[operator]


def test_without_a_start_it_is_the_base(sharp_llama: Path) -> None:
    assert torch.equal(logits(base_with(sharp_llama, None, dtype="fp32")), logits(load_base(sharp_llama, dtype="fp32")))


def test_a_start_is_merged_into_the_base(sharp_llama: Path, adapted: Path) -> None:
    got = logits(base_with(sharp_llama, adapted, dtype="fp32"))
    assert torch.equal(got, logits(load_tuned(sharp_llama, adapted, dtype="fp32")))
    assert (got - logits(load_base(sharp_llama, dtype="fp32"))).abs().max() > 1e-2
    assert base_with(sharp_llama, adapted, dtype="bf16").dtype == torch.bfloat16


def test_an_adapter_on_a_start_needs_nothing_but_the_base(tmp_path: Path, sharp_llama: Path, adapted: Path) -> None:
    """A second adapter, moved by hand: its model is (base + start) + adapter, after being saved and loaded."""
    model = methods.wrap(base_with(sharp_llama, adapted, dtype="fp32"), data.LORA, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in methods.trainable_parameters(model).items():
            if "lora_B" in name:
                p.normal_(0, 0.2, generator=generator)
    want = logits(model.eval())
    folder = tmp_path / "second"
    folder.mkdir()
    methods.save(model, data.LORA, folder, base="tiny")
    shutil.copyfile(adapted / "checkpoint.json", folder / "checkpoint.json")
    carry_start(adapted, folder)
    kept = folder / START / "adapter_model.safetensors"
    assert kept.read_bytes() == (adapted / "adapter_model.safetensors").read_bytes()
    got = logits(base_with(sharp_llama, folder, dtype="fp32"))  # a start with a start of its own
    assert torch.allclose(got, want, atol=1e-4)
    assert (got - logits(base_with(sharp_llama, adapted, dtype="fp32"))).abs().max() > 1e-2


def test_whole_weights_carry_no_start(tmp_path: Path, adapted: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    facts = json.loads((adapted / "checkpoint.json").read_text())
    facts["method"] = {**facts["method"], "kind": "full"}
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    carry_start(adapted, folder)
    assert not (folder / START).exists()
    carry_start(None, folder)


def test_a_start_that_cannot_be_merged_or_is_of_another_tokenizer_is_refused(
    tmp_path: Path, sharp_llama: Path, adapted: Path
) -> None:
    prefix = tmp_path / "prefix"
    shutil.copytree(adapted, prefix)
    facts = json.loads((adapted / "checkpoint.json").read_text())
    facts["method"] = {"kind": "prefix", "rank": 1, "alpha": 1.0, "dropout": 0.0, "targets": "all-linear"}
    facts["method"]["virtual_tokens"] = 4
    (prefix / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"train\.start: prefix is no change of the base's weights"):
        base_with(sharp_llama, prefix, dtype="fp32")
    renderer = Renderer.load(sharp_llama, system="You answer.")
    check_start(adapted, renderer)
    receipt = json.loads((adapted / "renderer.json").read_text())
    (prefix / "renderer.json").write_text(json.dumps({**receipt, "tokenizer_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="another tokenizer"):
        check_start(prefix, renderer)
