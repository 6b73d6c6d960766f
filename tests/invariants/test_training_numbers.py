"""What is in Exec, and every shortcut of the fast path, leaves the weights as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tunesmith.core.canonical import write_lines
from tunesmith.core.stage import Exec
from tunesmith.model import flat, flat_attention, flat_layout
from tunesmith.model.flat_layout import Document
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.text.render import Renderer
from tunesmith.train import forward as forwards
from tunesmith.train import losses
from tunesmith.train.batches import render_rows

TEN_STEPS = {"epochs": 3.34, "validate_times": 1, "metric": ""}  # 24 rows, 8 a batch
CLOSE = 1e-5  # largest difference of a weight, fp32 on a CPU


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, dataset: Path, tiny_llama: Path):
    work = data.train(tmp_path_factory.mktemp("reference"), dataset, tiny_llama, **TEN_STEPS)
    assert work.summary["path"] == "flat"
    assert len(data.losses(work)) == 10
    return work


@pytest.mark.parametrize("tokens", [64, 150, 100_000])
def test_the_micro_batch_does_not_change_the_weights(
    tmp_path: Path, dataset: Path, tiny_llama: Path, reference, tokens: int
) -> None:
    exec = Exec(micro_batch_tokens=tokens, threads=1)
    got = data.train(tmp_path, dataset, tiny_llama, exec=exec, **TEN_STEPS)
    assert data.max_difference(got, reference) < CLOSE


def test_threads_do_not_change_the_weights(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    runs = []
    for threads in (1, 2):
        exec = Exec(micro_batch_tokens=100_000, threads=threads)
        runs.append(data.train(tmp_path / str(threads), dataset, tiny_llama, exec=exec, **(TEN_STEPS | {"epochs": 1})))
    torch.set_num_threads(1)
    assert data.max_difference(*runs) < CLOSE


def test_the_flat_path_gives_the_plain_path_s_weights(
    tmp_path: Path, dataset: Path, tiny_llama: Path, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "refusal", lambda model, longest: "switched off by a test")
    got = data.train(tmp_path, dataset, tiny_llama, **TEN_STEPS)
    assert got.summary["path"] == "plain: switched off by a test"
    assert data.max_difference(got, reference) < CLOSE


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_the_flat_path_of_other_families(
    tmp_path: Path, dataset: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_tiny(tmp_path / family, family, **({"sliding_window": None} if family == "mistral" else {}))
    fast = data.train(tmp_path / "fast", dataset, base, **TEN_STEPS)
    assert fast.summary["path"] == "flat"
    monkeypatch.setattr(flat, "refusal", lambda model, longest: "switched off by a test")
    assert data.max_difference(data.train(tmp_path / "plain", dataset, base, **TEN_STEPS), fast) < CLOSE


def test_sharing_the_prefix_does_not_change_the_weights(
    tmp_path: Path, dataset: Path, tiny_llama: Path, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_layout, "shared_prefix", lambda documents: 0)
    got = data.train(tmp_path, dataset, tiny_llama, **TEN_STEPS)
    assert data.max_difference(got, reference) < CLOSE


@pytest.mark.parametrize("name, value", [("KEPT_KEYS", 8), ("BLOCK", 5)])
def test_attention_in_blocks_does_not_change_the_weights(
    tmp_path: Path, dataset: Path, tiny_llama: Path, reference, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(flat_attention, name, value)
    monkeypatch.setattr(flat_layout, "TOGETHER", 8)
    got = data.train(tmp_path, dataset, tiny_llama, **TEN_STEPS)
    assert data.max_difference(got, reference) < CLOSE


def test_one_batch_of_eight_is_eight_micro_batches_of_one_for_full_fine_tuning(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    runs = [
        data.train(
            tmp_path / str(tokens),
            dataset,
            tiny_llama,
            exec=Exec(micro_batch_tokens=tokens, threads=1),
            method=data.FULL,
            lr=1e-3,
            **TEN_STEPS,
        )
        for tokens in (64, 100_000)
    ]
    assert data.max_difference(*runs) < CLOSE


def test_dropout_noise_belongs_to_the_example(tmp_path: Path, dataset: Path, tiny_llama: Path, reference) -> None:
    method = replace(data.LORA, dropout=0.3)
    runs = [
        data.train(
            tmp_path / str(tokens),
            dataset,
            tiny_llama,
            exec=Exec(micro_batch_tokens=tokens, threads=1),
            method=method,
            **TEN_STEPS,
        )
        for tokens in (64, 100_000)
    ]
    assert runs[0].summary["path"] == "plain: dropout"
    assert data.max_difference(*runs) < CLOSE
    assert data.max_difference(runs[0], reference) > 1e-3  # and it is on


def test_the_order_of_the_file_does_not_matter(tmp_path: Path, dataset: Path, tiny_llama: Path, reference) -> None:
    rows = data.make_rows(24, seed=1)
    turned = data.make_dataset(tmp_path / "turned")
    write_lines(turned / "train.jsonl", rows[::-1])
    got = data.train(tmp_path / "work", turned, tiny_llama, **TEN_STEPS)
    assert data.files(got) == data.files(reference)


def test_the_seed_does_matter(tmp_path: Path, dataset: Path, tiny_llama: Path, reference) -> None:
    got = data.train(tmp_path, dataset, tiny_llama, **(TEN_STEPS | {"seed": 1}))
    assert data.max_difference(got, reference) > 1e-3


def documents(base: Path) -> list[Document]:
    return render_rows(data.make_rows(6, seed=3), Renderer.load(base, system="Give the label."), 128)


def test_logits_at_supervised_places_are_those_of_the_full_forward(tiny_llama: Path) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), data.LORA, seed=0)
    docs = documents(tiny_llama)
    plain = forwards.PlainForward(model, precision="fp32", autocast=False, seed=0)
    flat_forward = forwards.FlatForward(model, "fp32")
    with torch.no_grad():
        full = []
        for d in docs:
            logits = model(input_ids=torch.tensor([d.ids]), use_cache=False).logits[0]
            full.append(logits[[t - 1 for t in range(1, len(d.ids)) if d.trained[t]]])
        want = torch.cat(full)
        assert (plain.logits(docs) - want).abs().max() < 1e-5
        assert (flat_forward.logits(docs) - want).abs().max() < 1e-5


def test_the_head_in_parts_is_the_head_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(n, 8, generator=generator, requires_grad=n == 11) for n in (11, 30))
    labels = torch.randint(30, (11,), generator=generator)
    weights = torch.rand(11, generator=generator)
    want = losses.nll_sum(hidden @ head.T, labels, weights)
    (want_grad,) = torch.autograd.grad(want * 3, hidden)
    monkeypatch.setattr(losses, "ROWS", 4)
    got = losses.head_nll_sum(hidden, head, labels, weights)
    (grad,) = torch.autograd.grad(got * 3, hidden)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grad, want_grad)


def test_a_probe_that_differs_falls_back_to_the_plain_path(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), data.LORA, seed=0)
    before = {n: p.clone() for n, p in methods.trainable_parameters(model).items()}
    right = flat.Flat.logits
    monkeypatch.setattr(flat.Flat, "logits", lambda self, packed: right(self, packed) + 1e-3)
    chosen = forwards.choose_forward(model, documents(tiny_llama), "fp32", full=False, seed=0)
    assert chosen.path == "plain"
    assert "the flat forward differs" in chosen.why
    for name, p in methods.trainable_parameters(model).items():
        assert torch.equal(p, before[name])  # the probe moved them for a moment only


@pytest.mark.parametrize(
    ("family", "overrides", "why"),
    [
        ("gpt2", {}, "gpt2 is not one of"),
        ("mistral", {"sliding_window": 4}, "sliding-window attention"),
        ("llama", {"hidden_act": "gelu"}, "activation gelu"),
    ],
)
def test_what_the_flat_path_refuses(tmp_path: Path, family: str, overrides: dict, why: str) -> None:
    model = load_base(make_tiny(tmp_path / "m", family, **overrides), dtype="fp32")
    model = methods.wrap(model, data.LORA, seed=0)
    assert why in flat.refusal(model, 100)
