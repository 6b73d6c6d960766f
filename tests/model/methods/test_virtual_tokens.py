"""Prompt tuning, P-tuning and prefix tuning: trained, saved, loaded and asked, they are one model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.methods.kinds import IDS, PREFIX, VIRTUAL, logits, off, saved, wrapped
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.forward import Network
from tunesmith.model.generating import Sampling, generate
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods import prompts
from tunesmith.model.routes import label_scores, route
from tunesmith.model.trie import LabelTrie

Family = Callable[[str], Path]
FAMILIES = ["llama", "gpt2", "falcon", "bloom", "opt", "gemma3_text", "qwen3", "phi"]


def asked(model: object) -> torch.Tensor:
    """Logits by the way that answers are computed."""
    positions = torch.arange(IDS.shape[1])[None].expand(len(IDS), -1)
    with torch.no_grad():
        return prompts.answering(model)(IDS, attention_mask=torch.ones_like(IDS), position_ids=positions).logits


@pytest.mark.parametrize("name", VIRTUAL)
@pytest.mark.parametrize("base", FAMILIES)
def test_trained_saved_loaded_and_asked_are_one_model(name: str, base: str, family: Family, tmp_path: Path) -> None:
    spec = VIRTUAL[name]
    model = wrapped(family(base), spec)
    want = logits(model)
    assert off(want, logits(load_base(family(base), dtype="fp32"))) > 1e-3
    assert off(asked(model), want) < 1e-6
    loaded = load_tuned(family(base), saved(model, spec, tmp_path / "out"), dtype="fp32")
    assert torch.equal(logits(loaded), want)
    assert off(asked(loaded), want) < 1e-6


@pytest.mark.parametrize("name", VIRTUAL)
def test_padding_on_the_right_changes_nothing(name: str, family: Family) -> None:
    model = wrapped(family("llama"), VIRTUAL[name])
    alone = logits(model, IDS[:1, :4])
    assert off(logits(model)[:1, :4], alone) < 1e-6


@pytest.mark.parametrize("name", VIRTUAL)
def test_plain_peft_loads_it(name: str, family: Family, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = wrapped(family("llama"), VIRTUAL[name])
    saved(model, VIRTUAL[name], tmp_path)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(family("llama")), tmp_path).eval()
    assert off(logits(theirs), logits(model)) < 1e-6


@pytest.mark.parametrize("name", VIRTUAL)
@pytest.mark.parametrize("base", ["llama", "gpt2", "bloom"])
def test_label_scores_are_those_of_the_trained_model(name: str, base: str, family: Family) -> None:
    model = wrapped(family(base), VIRTUAL[name])
    shared = list(range(20, 32))
    texts = [[*shared, 40], [*shared, 41, 50], [*shared, 99, 5, 2]]
    labels = [[7, 8, 9], [7, 8, 11], [30]]
    trie = LabelTrie(["a", "b", "c"], labels)
    network = Network(model)
    with network.evaluating():
        found = label_scores(network, texts, trie, batch_tokens=500, tolerance=0.0)
        assert route(network, 40) == ("cache" if base == "bloom" else "tree")
    want = np.zeros((3, 3))
    for i, text in enumerate(texts):
        for k, label in enumerate(labels):
            whole = logits(model, torch.tensor([[*text, *label]]))[0].log_softmax(-1)
            want[i, k] = sum(float(whole[len(text) - 1 + j, t]) for j, t in enumerate(label))
    assert np.abs(found - want).max() < 1e-4


@pytest.mark.parametrize("name", VIRTUAL)
def test_generated_tokens_are_those_of_the_trained_model(name: str, family: Family) -> None:
    model = wrapped(family("qwen3"), VIRTUAL[name])
    texts, want = [[8, 30, 31, 200], [17, 40]], []
    for text in texts:
        ids = list(text)
        for _ in range(6):
            ids.append(int(logits(model, torch.tensor([ids]))[0, -1].argmax()))
        want.append(ids[len(text) :])
    network = Network(model)
    sampling = Sampling(max_new_tokens=6, temperature=0.0, top_p=1.0, seed=0, stop=(), stop_ids=frozenset())
    with network.evaluating():
        found = generate(network, texts, sampling, lambda ids: "", batch_tokens=500)
    assert [list(t.ids) for t in found] == want


def test_the_start_depends_on_the_seed_alone(family: Family) -> None:
    def start(name: str, seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        model = methods.wrap(load_base(family("llama"), dtype="fp32"), VIRTUAL[name], seed=seed)
        return {n: p.detach().clone() for n, p in methods.trainable_parameters(model).items()}

    for name in VIRTUAL:
        first, again, other = start(name, 0, 1), start(name, 0, 2), start(name, 1, 1)
        assert all(torch.equal(first[n], again[n]) for n in first)
        assert any(not torch.equal(first[n], other[n]) for n in first)


def test_a_prompt_starts_as_words_of_the_base(family: Family) -> None:
    model = wrapped(family("llama"), VIRTUAL["prompt"], moved=False)
    words = model.get_base_model().get_input_embeddings().weight
    for row in model.prompt_encoder["default"].embedding.weight:
        assert bool((words == row).all(1).any())


def test_trained_in_fp32_on_a_bf16_base(family: Family) -> None:
    for name, spec in VIRTUAL.items():
        model = wrapped(family("llama"), spec, dtype="bf16")
        assert {p.dtype for p in methods.trainable_parameters(model).values()} == {torch.float32}, name
        assert off(asked(model).float(), logits(model).float()) < 0.05


def test_merging_is_refused_with_the_reason(family: Family) -> None:
    for spec in VIRTUAL.values():
        with pytest.raises(ModelError, match=r"cannot be merged.*no change of the base's weights"):
            methods.merge(wrapped(family("llama"), spec), spec)


def test_no_room_for_the_virtual_tokens_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match="600 leave no room: the base reads 512 tokens"):
        wrapped(family("llama"), replace(PREFIX, virtual_tokens=600))
    model = wrapped(family("llama"), PREFIX)
    prompts.refuse_long(model, 507)
    with pytest.raises(InputError, match="5 virtual tokens and a text of 508 are more than the 512"):
        prompts.refuse_long(model, 508)


def test_a_base_without_keys_and_values_is_refused(tmp_path: Path) -> None:
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    base = make_tiny(tmp_path / "mamba", "mamba", **shape)
    for spec in VIRTUAL.values():
        with pytest.raises(InputError, match="mamba does not keep keys and values"):
            wrapped(base, spec)


def test_prefix_and_gradient_checkpointing_exclude_each_other(family: Family) -> None:
    model = wrapped(family("llama"), PREFIX)
    model.get_base_model().gradient_checkpointing_enable()
    with pytest.raises(InputError, match="would read the prefix twice"):
        model(input_ids=IDS, use_cache=False)
    prompts.refuse_recomputing(wrapped(family("llama"), VIRTUAL["prompt"]))


def test_a_lost_or_changed_file_is_refused(family: Family, tmp_path: Path) -> None:
    folder = saved(wrapped(family("llama"), PREFIX), PREFIX, tmp_path / "out")
    other = make_tiny(tmp_path / "other", num_hidden_layers=2)
    with pytest.raises(ModelError, match="num_layers"):
        load_tuned(other, folder, dtype="fp32")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_virtual_tokens": 4}))
    with pytest.raises(ModelError, match=r"num_virtual_tokens: is 4, but checkpoint.json says 5"):
        load_tuned(family("llama"), folder, dtype="fp32")
