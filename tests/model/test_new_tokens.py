"""New tokens: made of their pieces, trained as rows of their own, and plain rows wherever a model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.new_tokens import GrownEmbedding, GrownHead, add_rows, check_rows, train_rows
from tunesmith.text.tokenizer import Tokenizer

TOKENS = ("<ICD>", "[OPS-301]")
FAMILIES = {
    "llama": {},
    "untied": {"family": "llama", "tie_word_embeddings": False},
    "gpt2": {},
    "gemma3_text": {"sliding_window": 64},
    "phi": {"num_key_value_heads": 6},  # a head with a bias
    "opt": {"num_key_value_heads": None},
}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = dict(FAMILIES[request.param])
    family = said.pop("family", request.param)
    if request.param == "opt":
        said |= {"ffn_dim": 96, "word_embed_proj_dim": 48}
        said.pop("num_key_value_heads")
    return make_tiny(tmp_path_factory.mktemp("grown") / request.param, family, **said)


def grown(base: Path) -> Any:
    return add_rows(load_base(base, dtype="fp32"), base, TOKENS)


def new_ids(base: Path) -> list[int]:
    return [Tokenizer.load(base, TOKENS).id_of(t) for t in TOKENS]  # type: ignore[misc]


def test_a_row_starts_as_the_mean_of_the_pieces_it_had(base: Path) -> None:
    plain, model, before = load_base(base, dtype="fp32"), grown(base), Tokenizer.load(base)
    for token, id in zip(TOKENS, new_ids(base), strict=True):
        pieces = before.encode(token)
        assert len(pieces) > 1
        for part in ("get_input_embeddings", "get_output_embeddings"):
            want = getattr(plain, part)().weight[pieces].mean(0)
            assert torch.allclose(getattr(model, part)().weight[id], want)
    assert torch.equal(model.get_input_embeddings().weight[: before.vocab_size], plain.get_input_embeddings().weight)


def test_wrapped_is_plain_until_it_is_trained_and_only_new_rows_are(base: Path) -> None:
    ids = torch.tensor([[5, *new_ids(base), 9, 60]])
    model = grown(base)
    with torch.no_grad():
        want = model(ids).logits
    wrapped = train_rows(methods.wrap(model, data.LORA, seed=0), base, TOKENS)
    with torch.no_grad():
        assert torch.allclose(wrapped(ids).logits, want, atol=1e-6)
    rows = {n: p for n, p in methods.trainable_parameters(wrapped).items() if "lora" not in n}
    tied = load_base(base, dtype="fp32").config.tie_word_embeddings
    assert sorted(rows) == sorted(n for n in check_rows(base, TOKENS, []))
    assert len(rows) == (1 if tied else 2) and all(p.shape == (len(TOKENS), 48) for p in rows.values())
    wrapped(ids).logits[0, 1].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in rows.values())
    assert isinstance(wrapped.get_input_embeddings(), GrownEmbedding)
    assert isinstance(wrapped.get_output_embeddings(), GrownHead)


def test_a_tied_row_learns_from_both_sides_as_in_full_training(tiny_llama: Path) -> None:
    ids = torch.tensor([[5, *new_ids(tiny_llama), 9]])
    full = grown(tiny_llama)
    full(ids).logits.square().mean().backward()
    want = full.get_input_embeddings().weight.grad[new_ids(tiny_llama)]
    wrapped = train_rows(grown(tiny_llama), tiny_llama, TOKENS)
    wrapped(ids).logits.square().mean().backward()
    got = wrapped.get_input_embeddings().new_tokens.weight.grad
    assert torch.allclose(got, want, atol=1e-7) and want.abs().max() > 1e-4


def test_rows_that_pad_the_vocabulary_are_taken(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "padded", vocab_size=1024)
    model = grown(base)
    assert model.get_input_embeddings().weight.shape[0] == 1024
    pieces = Tokenizer.load(base).encode(TOKENS[0])
    weight = model.get_input_embeddings().weight
    assert torch.allclose(weight[new_ids(base)[0]], weight[pieces].mean(0))


def test_a_head_inside_an_adapter_is_refused(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "untied", tie_word_embeddings=False)
    spec = data.MethodSpec(kind="lora", rank=2, alpha=4.0, dropout=0.0, targets=("lm_head",))
    with pytest.raises(InputError, match="inside an adapter"):
        train_rows(methods.wrap(grown(base), spec, seed=0), base, TOKENS)
    with pytest.raises(InputError, match="inside an adapter"):
        check_rows(base, TOKENS, methods.check(base, spec))
