"""A loss whose logits are made in parts is the loss of all of them at once, in value and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tiny import make_tiny
from tunesmith.model.flat_layout import Document
from tunesmith.model.load import load_base
from tunesmith.train import losses
from tunesmith.train.forward import PlainForward

N, M, V = 700, 24, 113  # three parts, the last one smaller


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, M, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(V, M, generator=generator).to(dtype).requires_grad_()
    return hidden, head, torch.randint(0, V, (N,), generator=generator), torch.rand(N, generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("way", ["weight", "module"])
def test_the_loss_in_parts_is_the_whole_one(way: str, smoothing: float) -> None:
    found = []
    for parts in (False, True):
        hidden, head, labels, weights = inputs()
        if not parts:
            total = losses.nll_sum(hidden @ head.T, labels, weights, smoothing=smoothing)
        elif way == "weight":
            total = losses.head_nll_sum(hidden, head.detach(), labels, weights, smoothing=smoothing, learned=head)
        else:
            module = nn.Linear(M, V, bias=False)
            module.weight = nn.Parameter(head.detach().clone())
            head = module.weight
            total = losses.module_nll_sum(hidden, module, labels, weights, smoothing=smoothing)
        (total * 0.25).backward()
        found.append((total.detach(), hidden.grad, head.grad))
    for want, got in zip(*found, strict=True):
        assert float((got - want).abs().max()) < 1e-6 * max(1.0, float(want.abs().max()))


def test_no_more_than_a_part_of_the_logits_is_ever_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what autograd keeps and by the largest tensor made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor) and t.ndim == 2 and t.shape[1] == V:
                    Largest.rows = max(Largest.rows, t.shape[0])
            return out

    hidden, head, labels, weights = inputs()
    with Largest():
        losses.head_nll_sum(hidden, head.detach(), labels, weights, learned=head).backward()
    assert Largest.rows == losses.ROWS < N
    Largest.rows = 0
    with Largest():
        losses.nll_sum(hidden @ head.T, labels, weights).backward()
    assert Largest.rows == N  # and the measure sees what is whole


def documents() -> list[Document]:
    return [
        Document(ids=tuple(range(3, 3 + n)), trained=(False,) + (True,) * (n - 1), key=str(n), weight=0.5 + n / 10)
        for n in (5, 9, 12)
    ]


@pytest.mark.parametrize(
    ("family", "overrides", "in_parts"),
    [
        ("llama", {}, True),
        ("llama", {"tie_word_embeddings": False}, True),
        ("gpt2", {}, True),
        ("gemma2", {"final_logit_softcapping": 5.0}, False),  # it changes logits after its head
        ("cohere", {"logit_scale": 0.5}, False),
    ],
)
def test_the_plain_path_s_loss_is_that_of_its_logits(
    tmp_path: Path, family: str, overrides: dict, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "ROWS", 4)
    model = load_base(make_tiny(tmp_path / "m", family, **overrides), dtype="fp32")
    forward = PlainForward(model, precision="fp32", autocast=False, seed=0)
    rows = documents()
    labels = torch.tensor([i for d in rows for i in d.ids[1:]])
    weights = torch.tensor([d.weight for d in rows for _ in d.ids[1:]])
    found = []
    for loss in (
        lambda: losses.nll_sum(forward.logits(rows), labels, weights),
        lambda: forward.nll_sum(rows, step=None),
    ):
        total = loss()
        total.backward()
        found.append((total.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
        model.zero_grad(set_to_none=True)
    (want, want_grads), (got, got_grads) = found
    assert forward._head_is_last == in_parts
    assert float((got - want).abs()) < 1e-6 * float(want)
    assert want_grads.keys() == got_grads.keys()
    for name, grad in want_grads.items():
        assert float((got_grads[name] - grad).abs().max()) < 1e-5 * max(1.0, float(grad.abs().max())), name
