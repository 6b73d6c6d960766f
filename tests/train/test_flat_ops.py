"""Each hand-written backward equals autograd of the plain formula, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tunesmith.model import flat_attention, flat_layout, flat_ops
from tunesmith.model.flat_layout import Document, pack, shared_prefix

torch.set_default_dtype(torch.float32)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_norm() -> None:
    x, weight, grad = random(5, 8), random(8, seed=1), random(5, 8, seed=2)
    want_in = x.clone().requires_grad_()
    want = F.rms_norm(want_in, (8,), weight, 1e-5)
    want.backward(grad)
    out = torch.empty(5, 8)
    rstd = flat_ops.norm_forward(x, weight, 1e-5, out)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(flat_ops.norm_backward(grad, x, rstd, weight), want_in.grad)


def test_swiglu() -> None:
    x, grad = random(300, 12), random(300, 6, seed=2)
    want_in = x.clone().requires_grad_()
    gate, up = want_in.chunk(2, -1)
    want = F.silu(gate) * up
    want.backward(grad)
    out = torch.empty(300, 6)
    flat_ops.swiglu_forward(x, out)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(flat_ops.swiglu_backward(grad, x), want_in.grad)


def test_rotate_is_a_rotation_whose_backward_turns_back() -> None:
    x, angle = random(5, 3, 8), random(5, 1, 4, seed=1)
    turned = flat_ops.rotate(x, angle.cos(), angle.sin())
    first, second = x.chunk(2, -1)
    want = torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)
    torch.testing.assert_close(turned, want)
    torch.testing.assert_close(flat_ops.rotate(turned, angle.cos(), -angle.sin()), x)


def documents(lengths: list[int], prefix: int) -> list[Document]:
    return [
        Document(
            ids=(*range(prefix), *(100 * (i + 1) + t for t in range(n))),
            trained=(False,) * (prefix + 1) + (True,) * (n - 1),
        )
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("keys", [512, 3], ids=["kept", "made again"])
@pytest.mark.parametrize("block", [64, 4])
@pytest.mark.parametrize("prefix", [0, 4])
@pytest.mark.parametrize("lengths", [[5], [3, 3], [2, 6, 4], [3, 9, 17, 2, 6]])
def test_attention(monkeypatch: pytest.MonkeyPatch, lengths: list[int], prefix: int, block: int, keys: int) -> None:
    """Against attention of each whole document, prefix and all, by itself."""
    monkeypatch.setattr(flat_attention, "KEPT_KEYS", keys)
    monkeypatch.setattr(flat_attention, "BLOCK", block)
    monkeypatch.setattr(flat_layout, "TOGETHER", 8)
    docs = documents(lengths, prefix)
    packed = pack(docs)
    assert packed.prefix == (prefix if len(lengths) > 1 else 0)
    T, H, K, D = len(packed.ids_T), 6, 2, 4
    q, k, v, grad = (random(T, n, D, seed=i) for i, n in enumerate((H, K, K, H)))
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    out, saved = flat_attention.attend(q, k, v, packed)
    dq, dk, dv = (torch.full_like(x, float("nan")) for x in (q, k, v))
    flat_attention.attend_backward(grad, packed, saved, dq, dk, dv)

    P = packed.prefix
    want = torch.zeros(T, H, D)
    for i, (start, end) in enumerate(b for span in packed.spans if span.prefix == P for b in span.bounds):
        rows = torch.tensor([*range(P), *range(start, end)])
        qd, kd, vd = (x[rows].transpose(0, 1)[None] for x in inputs)
        o = F.scaled_dot_product_attention(qd, kd, vd, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        mine = rows if i == 0 else rows[P:]  # the prefix's own output is the same in each document
        want = want.index_add(0, mine, o[len(rows) - len(mine) :])
    want.backward(grad)
    torch.testing.assert_close(out, want)
    for got, x in zip((dq, dk, dv), inputs, strict=True):
        torch.testing.assert_close(got, x.grad)


def test_the_shared_prefix_ends_before_the_place_that_predicts_a_supervised_token() -> None:
    a = Document(ids=(1, 2, 3, 4, 5), trained=(False, False, False, True, True))
    b = Document(ids=(1, 2, 3, 4, 9), trained=(False, False, False, True, True))
    assert shared_prefix([a, b]) == 2
    packed = pack([a, b])
    assert packed.ids_T[: packed.end].tolist() == [1, 2, 3, 4, 5, 3, 4, 9]
    assert packed.positions_T[: packed.end].tolist() == [0, 1, 2, 3, 4, 2, 3, 4]
    assert packed.labels_N[: packed.supervised].tolist() == [4, 5, 4, 9]
    assert packed.rows_N[: packed.supervised].tolist() == [2, 3, 5, 6]


def test_shapes_are_rounded_up_with_rows_of_no_weight() -> None:
    packed = pack(documents([5, 9, 12], 4))
    assert (len(packed.ids_T), len(packed.rows_N), packed.spans[-1].longest) == (32, 32, 16)
    assert packed.weights_N.tolist() == [1.0] * packed.supervised + [0.0] * (32 - packed.supervised)


def test_text_that_is_trained_from_its_first_token_shares_nothing() -> None:
    a = Document(ids=(1, 2, 3), trained=(True, True, True))
    assert shared_prefix([a, a]) == 0
    packed = pack([a, a])
    assert packed.labels_N[: packed.supervised].tolist() == [2, 3, 2, 3]  # nothing comes before the first token


def test_documents_that_are_equal_up_to_the_end_keep_a_place_of_their_own() -> None:
    a = Document(ids=(1, 2, 3, 4), trained=(False, False, False, True))
    assert shared_prefix([a, a]) == 2
