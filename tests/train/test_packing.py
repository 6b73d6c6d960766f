"""Documents in one row: used where they do not see each other, and refused, with the reason, where they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tests.train.test_noise import close, gradients, rendered
from tunesmith.core.stage import Exec
from tunesmith.model.flat_layout import Document
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.train.batches import like_lengths
from tunesmith.train.forward import Forward, PlainForward, choose_forward

RIGHT = ["gpt2", "gpt_neox", "phi", "gemma3_text", "falcon"]
LEAKS = [("opt", {}), ("bloom", {}), ("falcon", {"alibi": True})]


def chosen(tmp_path: Path, family: str, shape: dict[str, object] | None = None, **options: object) -> Forward:
    base = make_tiny(tmp_path / family, family, initializer_range=0.3, **(shape or {}))
    model = methods.wrap(load_base(base, dtype="fp32"), data.FULL, seed=0)
    return choose_forward(model, rendered(base), "fp32", full=True, seed=0, **options)


@pytest.mark.parametrize("family", RIGHT)
def test_packed_gradients_are_the_plain_ones(tmp_path: Path, family: str) -> None:
    base = make_tiny(tmp_path / family, family)
    want, loss, plain = gradients(base, 400, method=data.FULL)
    got, same_loss, packed = gradients(base, 400, method=data.FULL, packing=True)
    assert (plain.path, packed.path) == ("plain", "packed")
    assert same_loss == pytest.approx(loss, abs=1e-5)
    close(got, want, relative=1e-3)


@pytest.mark.parametrize(("family", "shape"), LEAKS)
def test_an_architecture_whose_documents_see_each_other_is_found_out(
    tmp_path: Path, family: str, shape: dict[str, object]
) -> None:
    forward = chosen(tmp_path, family, shape, packing=True)
    assert forward.path == "plain"
    assert "documents in one row see each other" in forward.why or "takes no positions" in forward.why


def test_documents_with_noise_of_their_own_keep_their_rows(tmp_path: Path) -> None:
    assert "noise belongs to a document" in chosen(tmp_path, "gpt2", packing=True, neftune_alpha=5.0).why
    base = make_tiny(tmp_path / "dropout", "gpt2")
    model = methods.wrap(load_base(base, dtype="fp32"), replace(data.LORA, dropout=0.1), seed=0)
    forward = choose_forward(model, rendered(base), "fp32", full=False, seed=0, packing=True)
    assert forward.path == "plain" and "noise belongs to a document" in forward.why


def test_without_packing_documents_of_like_length_share_a_padded_batch(tmp_path: Path) -> None:
    forward = chosen(tmp_path, "gpt2")
    assert isinstance(forward, PlainForward) and forward.path == "plain"
    documents = rendered(tmp_path / "gpt2")
    with torch.no_grad():
        together = forward.logits(documents)
        alone = torch.cat([forward.logits([d]) for d in documents])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_packing_does_not_change_a_training(tmp_path: Path, dataset: Path) -> None:
    base = make_tiny(tmp_path / "gpt2", "gpt2")
    runs = [
        data.train(
            tmp_path / str(packing),
            dataset,
            base,
            exec=Exec(micro_batch_tokens=300, threads=1, packing=packing),
            method=data.FULL,
            lr=1e-3,
        )
        for packing in (False, True)
    ]
    assert [run.summary["path"].split(":")[0] for run in runs] == ["plain", "packed"]
    assert data.losses(runs[0]) == pytest.approx(data.losses(runs[1]), abs=1e-5)
    assert data.max_difference(*runs) < 1e-5


def test_documents_of_unlike_length_are_padded_apart(tmp_path: Path) -> None:
    """Twelve short and two long ones are two groups, with the gradients of one."""
    short = [Document(ids=tuple(range(i, i + 30)), trained=(False,) * 28 + (True,) * 2, key=str(i)) for i in range(12)]
    long = [Document(ids=tuple(range(i, i + 300)), trained=(False,) * 290 + (True,) * 10, key=str(i)) for i in (90, 91)]
    mixed = [long[0], *short, long[1]]
    assert [len(g) for g in like_lengths(mixed)] == [12, 2]
    base = make_tiny(tmp_path / "gpt2", "gpt2")
    model = methods.wrap(load_base(base, dtype="fp32"), data.FULL, seed=0)
    forward = choose_forward(model, mixed, "fp32", full=True, seed=0)
    assert isinstance(forward, PlainForward)
    found = []
    for groups in (forward._groups(mixed), [mixed]):
        forward._groups = lambda documents, groups=groups: groups  # type: ignore[method-assign]
        loss = forward.nll_sum(mixed, step=0)
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in methods.trainable_parameters(model).items()}))
        model.zero_grad(set_to_none=True)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    close(found[0][1], found[1][1], relative=1e-3)
