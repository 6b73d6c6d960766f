"""Training with new tokens: their ids are in the rows, resumed is uninterrupted, saved is reloaded is merged."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train import data
from tests.train.domain_data import adapt, make_texts, text_rows
from tests.train.test_resume import stopping_at
from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.merging.merge import identity, merge_checkpoint
from tunesmith.model.methods.spec import MethodSpec, new_tokens_of
from tunesmith.model.new_tokens import FILE, add_rows
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.batches import read_rows
from tunesmith.train.recipes.sft import pool_of
from tunesmith.train.stages import SftInputs
from tunesmith.train.start import base_with

TOKENS = (" aktie", "<ICD>", "prozent")
BOTTLENECK = replace(data.LORA, kind="bottleneck", placement="pfeiffer", activation="relu")
IA3 = MethodSpec(kind="ia3", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")
QLORA = replace(data.LORA, kind="qlora", bits=4, double_quant=True)
METHODS = {"lora": data.LORA, "full": data.FULL, "bottleneck": BOTTLENECK, "ia3": IA3, "qlora": QLORA}
EXEC = Exec(micro_batch_tokens=300, threads=1)


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    dataset = data.make_dataset(folder / "dataset")
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes", reason="qlora needs the extra quant")
    method = METHODS[request.param]
    return data.train(folder / "work", dataset, tiny_llama, exec=EXEC, method=method, new_tokens=TOKENS, metric="")


def probe(base: Path) -> torch.Tensor:
    tokenizer = Tokenizer.load(base, TOKENS)
    return torch.tensor([tokenizer.encode("the fox aktie <ICD> prozent ball")])


def logits(model: Any, base: Path) -> torch.Tensor:
    with torch.no_grad():
        return model(probe(base)).logits


def test_the_rows_hold_the_new_ids(tmp_path: Path, tiny_llama: Path) -> None:
    dataset = data.make_dataset(tmp_path / "dataset")
    inputs, renderer = SftInputs(dataset=dataset, base=tiny_llama), Renderer.load(tiny_llama)
    spec = replace(data.SPEC, new_tokens=TOKENS)
    with_, without = (pool_of(s, inputs, renderer).documents for s in (spec, data.SPEC))
    id = Tokenizer.load(tiny_llama, TOKENS).id_of("prozent")
    rows = read_rows(dataset / "train.jsonl")
    said = ["prozent" in row.messages[0].content for row in rows]
    assert any(said) and [id in d.ids for d in with_] == said
    assert not any(id in d.ids for d in without)
    assert sum(len(d.ids) for d in with_) < sum(len(d.ids) for d in without)


def test_it_is_kept_and_the_base_is_untouched(trained: Any, tiny_llama: Path) -> None:
    checkpoint = trained.scratch / "checkpoint"
    size = Tokenizer.load(tiny_llama).vocab_size
    assert new_tokens_of(checkpoint) == {t: size + i for i, t in enumerate(TOKENS)}
    assert read_json(checkpoint / "renderer.json")["new_tokens"] == list(TOKENS)
    whole = (checkpoint / "config.json").exists()
    assert (checkpoint / FILE).exists() != whole
    if not whole:
        assert {n: tuple(t.shape) for n, t in load_file(checkpoint / FILE).items()} == {"embedding": (3, 48)}
        assert read_json(checkpoint / "checkpoint.json")["base_weights"] == identity(tiny_llama)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(checkpoint).encode("prozent", add_special_tokens=False) == [size + 2]


def test_it_was_learnt(trained: Any, tiny_llama: Path) -> None:
    start = add_rows(load_base(tiny_llama, dtype="fp32"), tiny_llama, TOKENS)
    tuned = load_tuned(tiny_llama, trained.scratch / "checkpoint", dtype="fp32")
    old, new = (m.get_input_embeddings().weight for m in (start, tuned))
    first = len(new) - len(TOKENS)
    moved = (new - old).abs().amax(1)
    assert moved[first] > 1e-4 and moved[first + 2] > 1e-4  # they are in rows; <ICD> is in none
    if not (trained.scratch / "checkpoint" / "config.json").exists():
        assert moved[:first].max() == 0
    losses = [line["loss"] for line in data.log(trained) if "loss" in line]
    assert losses[-1] < losses[0]


def test_saved_reloaded_and_merged_agree(trained: Any, tiny_llama: Path, tmp_path: Path) -> None:
    checkpoint = trained.scratch / "checkpoint"
    kind = read_json(checkpoint / "checkpoint.json")["method"]["kind"]
    beside = logits(load_tuned(tiny_llama, checkpoint, dtype="fp32", merge=False), tiny_llama)
    assert (beside - logits(base_grown(tiny_llama), tiny_llama)).abs().max() > 1e-3
    if kind in ("lora", "ia3", "qlora"):
        merge_checkpoint(tiny_llama, checkpoint, tmp_path / "merged", dtype="fp32")
        alone = load_base(tmp_path / "merged", dtype="fp32")
        assert torch.allclose(logits(alone, tiny_llama), beside, atol=1e-5)
        assert Tokenizer.load(tmp_path / "merged").encode("prozent") == Tokenizer.load(tiny_llama, TOKENS).encode(
            "prozent"
        )
    if kind == "full":
        assert torch.equal(logits(load_base(checkpoint, dtype="fp32"), tiny_llama), beside)


def base_grown(base: Path) -> Any:
    return add_rows(load_base(base, dtype="fp32"), base, TOKENS)


@pytest.mark.parametrize("kind", METHODS)
def test_resumed_is_uninterrupted_to_the_byte(tmp_path: Path, tiny_llama: Path, kind: str) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes", reason="qlora needs the extra quant")
    dataset = data.make_dataset(tmp_path / "dataset", train=16)
    said: dict[str, Any] = {"method": METHODS[kind], "new_tokens": TOKENS, "metric": "", "epochs": 1.5}
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=EXEC, **said)
    stop = threading.Event()
    with pytest.raises(Stopped):
        data.train(
            tmp_path / "parts", dataset, tiny_llama, exec=Exec(micro_batch_tokens=300, threads=1, save_every_s=0.0),
            stop=stop, progress=stopping_at({(2, "train")}, stop), **said,
        )  # fmt: skip
    parts = data.train(tmp_path / "parts", dataset, tiny_llama, exec=EXEC, **said)
    assert data.files(parts) == data.files(whole)


def test_the_micro_batch_changes_nothing_and_the_path_is_plain(tmp_path: Path, tiny_llama: Path) -> None:
    dataset = data.make_dataset(tmp_path / "dataset", train=16)
    found = []
    for tokens in (64, 4096):
        work = data.train(
            tmp_path / str(tokens), dataset, tiny_llama, exec=Exec(micro_batch_tokens=tokens, threads=1),
            new_tokens=TOKENS, lr_ratios=(("*new_tokens*", 2.0),), metric="", epochs=1.0,
        )  # fmt: skip
        found.append(load_file(work.scratch / "checkpoint" / FILE)["embedding"])
        assert work.summary["path"] == "plain: rows of new tokens are trained"
    assert torch.allclose(*found, atol=1e-5)


def test_a_domain_then_an_instruction_share_the_new_tokens(tmp_path: Path, tiny_llama: Path) -> None:
    texts = make_texts(tmp_path / "texts", text_rows(10, seed=1), text_rows(4, seed=2))
    start = adapt(tmp_path / "domain", texts, tiny_llama, lr=1e-2, new_tokens=TOKENS).scratch / "checkpoint"
    assert list(new_tokens_of(start)) == list(TOKENS)
    dataset = data.make_dataset(tmp_path / "dataset", train=16)
    from tunesmith.core.stage import Workspace
    from tunesmith.train.recipes.sft import sft

    work = Workspace(root=tmp_path / "sft", exec=EXEC)
    inputs = SftInputs(dataset=dataset, base=tiny_llama, start=start)
    sft(replace(data.SPEC, new_tokens=TOKENS, metric="", epochs=1.0), inputs, work)
    model = base_with(tiny_llama, start, dtype="fp32", new_tokens=TOKENS)
    assert torch.equal(logits(model, tiny_llama), logits(load_tuned(tiny_llama, start, dtype="fp32"), tiny_llama))
    assert (logits(model, tiny_llama) - logits(base_grown(tiny_llama), tiny_llama)).abs().max() > 1e-3
    second = load_tuned(tiny_llama, work.scratch / "checkpoint", dtype="fp32")
    rows = load_file(work.scratch / "checkpoint" / FILE)["embedding"]
    assert torch.equal(second.get_input_embeddings().weight[-3:], rows)
    for other in ((), ("<ICD>",)):
        with pytest.raises(InputError, match="has the new tokens ' aktie', '<ICD>', 'prozent', and here they are"):
            sft(replace(data.SPEC, new_tokens=other), inputs, Workspace(root=tmp_path / f"x{len(other)}", exec=EXEC))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"new_tokens": ("a1x", "a1x")}, "'a1x' is there 2 times"),
        ({"new_tokens": (" \n",)}, "nothing but white space"),
        ({"new_tokens": ("",)}, "nothing but white space"),
        ({"new_tokens": tuple(f"<t{i}>" for i in range(1001))}, "are 1001, more than 1000"),
        (
            {
                "new_tokens": ("<ICD>",),
                "method": MethodSpec(
                    kind="prefix", rank=1, alpha=1.0, dropout=0.0, targets="all-linear", virtual_tokens=4
                ),
            },
            "prefix leaves the whole model as it is",
        ),
        ({"new_tokens": ("<ICD>",), "method": replace(data.FULL, train_layers="last:1")}, "would not be trained"),
    ],
)
def test_what_cannot_be_is_refused_by_the_spec(said: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        replace(data.SPEC, **said)
