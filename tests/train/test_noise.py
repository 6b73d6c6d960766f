"""Label smoothing, NEFTune and gradient checkpointing: the right numbers, whatever the batch's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tunesmith.core.stage import Exec
from tunesmith.model.flat_layout import Document
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.text.render import Renderer
from tunesmith.train import losses
from tunesmith.train.batches import render_rows
from tunesmith.train.forward import Forward, choose_forward
from tunesmith.train.learner import accumulate


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_loss_and_its_gradient_are_the_formula_s(smoothing: float) -> None:
    """(1 - s) (-log p(label)) + s mean(-log p), by hand in float64 and by autograd of the plain formula."""
    hidden, head = random(300, 8), random(17, 8, seed=1)
    labels, weights = torch.arange(300) % 17, 1 + random(300, seed=2).abs()
    ours, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    by_hand = (plain.double() @ head.double().T).log_softmax(-1)
    picked = by_hand.gather(1, labels[:, None])[:, 0]
    want = -(((1 - smoothing) * picked + smoothing * by_hand.mean(-1)) * weights).sum()
    got = losses.head_nll_sum(ours, head, labels, weights, smoothing=smoothing)
    torch.testing.assert_close(got, want.float())
    torch.testing.assert_close(losses.nll_sum(hidden @ head.T, labels, weights, smoothing=smoothing), want.float())
    (3 * got).backward()
    (3 * want).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def rendered(base: Path) -> list[Document]:
    return render_rows(data.make_rows(8, seed=1), Renderer.load(base, system=data.SPEC.system), 128)


def gradients(
    base: Path, micro_batch_tokens: int, *, method: MethodSpec = data.LORA, order: int = 1, **options: Any
) -> tuple[dict[str, torch.Tensor], float, Forward]:
    model = methods.wrap(load_base(base, dtype="fp32"), method, seed=0)
    with torch.no_grad():
        for n, p in sorted(model.named_parameters()):
            if "lora_B" in n:
                p.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(n)))
    documents = rendered(base)[::order]
    full = method.kind == "full"
    forward = choose_forward(model, documents, "fp32", full=full, seed=0, **options)
    loss = accumulate(forward, documents, 3, micro_batch_tokens)
    return {n: p.grad for n, p in methods.trainable_parameters(model).items()}, loss, forward


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], *, relative: float = 1e-4) -> None:
    assert a.keys() == b.keys()
    for n in a:
        assert (a[n] - b[n]).abs().max() <= relative * (1e-3 + b[n].abs().max()), n


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_noise_belongs_to_the_example_and_not_to_the_batch(tmp_path: Path, family: str) -> None:
    base = make_tiny(tmp_path / family, family)
    want, loss, forward = gradients(base, 10_000, neftune_alpha=5.0)
    assert forward.path == "plain" and forward.why == "noise on the embeddings"
    for micro, order in ((100, 1), (10_000, -1), (1, -1)):
        got, same_loss, _ = gradients(base, micro, order=order, neftune_alpha=5.0)
        assert same_loss == pytest.approx(loss, abs=1e-5)
        close(got, want)
    assert gradients(base, 10_000)[1] != pytest.approx(loss, abs=1e-4)


def test_noise_has_the_size_of_the_paper_and_is_off_in_validation(tiny_llama: Path) -> None:
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), data.LORA, seed=0)
    embedding = model.get_input_embeddings()
    clean: list[torch.Tensor] = []
    handle = embedding.register_forward_hook(lambda module, inputs, out: clean.append(out.detach().clone()))
    documents = rendered(tiny_llama)[:2]
    forward = choose_forward(model, documents, "fp32", full=False, seed=0, neftune_alpha=5.0)
    noisy: list[torch.Tensor] = []
    embedding.register_forward_hook(lambda module, inputs, out: noisy.append(out.detach().clone()))
    with torch.no_grad():
        forward.nll_sum(documents, step=None)
        assert torch.equal(clean[-1], noisy[-1])
        forward.nll_sum(documents, step=0)
        first = noisy[-1] - clean[-1]
        forward.nll_sum(documents, step=1)
    assert not torch.equal(noisy[-1] - clean[-1], first)
    handle.remove()
    for added, d in zip(first, documents, strict=True):
        bound = 5.0 / (len(d.ids) * 48) ** 0.5
        assert 0.95 * bound < added.abs().max() <= bound + 1e-6
        assert added[: len(d.ids)].abs().mean() == pytest.approx(bound / 2, rel=0.1)
        assert not added[len(d.ids) :].any()


def without_dropout_or_with(p: float) -> MethodSpec:
    from dataclasses import replace

    return replace(data.LORA, dropout=p)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", data.LORA),
        ("llama", without_dropout_or_with(0.3)),
        ("llama", data.FULL),
        ("gpt2", without_dropout_or_with(0.3)),
        ("gpt2", data.FULL),
        ("opt", data.FULL),
        ("falcon", data.LORA),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x.kind}-{x.dropout}",
)
def test_checkpointed_gradients_are_the_same(tmp_path: Path, family: str, method: MethodSpec) -> None:
    """Families whose layers have dropout of their own among them: theirs stays off both times."""
    base = make_tiny(tmp_path / family, family)
    want, loss, _ = gradients(base, 300, method=method)
    calls = count_layers(base, method)
    got, same_loss, forward = gradients(base, 300, method=method, twice=True)
    assert forward.path == "plain"
    assert same_loss == pytest.approx(loss, abs=1e-5)
    close(got, want, relative=2e-3 if method.kind == "lora" else 1e-4)
    once, twice = calls
    assert once % 3 == 0 and twice == 2 * once  # each of three layers is computed again in the backward


def count_layers(base: Path, method: MethodSpec) -> tuple[int, int]:
    """Attention or layer computations in the forward of one micro-batch, and up to the end of its backward."""
    from tunesmith.train.checkpointing import decoder_layers

    model = methods.wrap(load_base(base, dtype="fp32"), method, seed=0)
    calls: list[int] = []
    for layer in decoder_layers(model):
        norm: Any = next(m for m in layer.modules() if "norm" in type(m).__name__.lower())
        norm.register_forward_hook(lambda module, inputs, out: calls.append(1))
    forward = choose_forward(model, rendered(base), "fp32", full=method.kind == "full", seed=0, twice=True)
    calls.clear()
    loss = forward.nll_sum(rendered(base), step=0)
    before = len(calls)
    loss.backward()
    return before, len(calls)


def test_checkpointing_does_not_change_a_training(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    runs = [
        data.train(
            tmp_path / str(twice),
            dataset,
            tiny_llama,
            exec=Exec(micro_batch_tokens=300, threads=1, gradient_checkpointing=twice),
            method=data.FULL,
            lr=1e-3,
        )
        for twice in (False, True)
    ]
    assert data.losses(runs[0]) == pytest.approx(data.losses(runs[1]), abs=1e-5)
    assert data.max_difference(*runs) < 1e-5


def test_smoothing_trains_a_smoothed_loss_and_validates_the_plain_one(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    """Before the first step both see the same model, and the plain path agrees with the flat one."""
    documents: Sequence[Document] = rendered(tiny_llama)
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), data.LORA, seed=0)
    flat = choose_forward(model, documents, "fp32", full=False, seed=0, smoothing=0.2)
    bare = choose_forward(model, documents, "fp32", full=False, seed=0)
    assert flat.path == bare.path == "flat"
    with torch.no_grad():
        assert torch.equal(flat.nll_sum(documents, step=None), bare.nll_sum(documents, step=0))
        smoothed = flat.nll_sum(documents, step=0)
        assert smoothed != flat.nll_sum(documents, step=None)
    want, loss, _ = gradients(tiny_llama, 300, smoothing=0.2)
    got, same_loss, forward = gradients(tiny_llama, 300, smoothing=0.2, twice=True)
    assert forward.path == "plain" and same_loss == pytest.approx(loss, abs=1e-5)
    close(got, want, relative=2e-3)
