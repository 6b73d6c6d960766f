"""Rows of the embedding and the head for tokens that the base did not have: made, trained, kept, put back.

    model = add_rows(load_base(base, ...), base, tokens)   each row is the mean of the rows of the pieces before
    model = train_rows(wrapped, base, tokens)                    the new rows are trained, all others stay
    save_rows(model, folder); put_rows(model, folder)      new_tokens.safetensors beside the adapter

A checkpoint names its tokens and their ids in checkpoint.json. A row that is put back is a plain row of plain weights:
for everything that answers, the model is one with a larger vocabulary. Start: the mean of the pieces, in place of the
mean of all rows in Hewitt 2021 ("Initializing new word embeddings for pretrained language models"), since here the
pieces that wrote the token before are known.

Shapes: N new tokens, M hidden size; ids first .. first + N - 1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.model.methods.spec import new_tokens_of
from tunesmith.text.growth import WHERE, refuse_tokens
from tunesmith.text.tokenizer import Tokenizer

FILE = "new_tokens.safetensors"
ROWS = "new_tokens"  # the part of a parameter's name that says which rows it holds


def add_rows(model: PreTrainedModel, folder: Path, tokens: Sequence[str]) -> PreTrainedModel:
    """`model` with a row for each of `tokens`, of the base in `folder`, whose tokenizer writes each in pieces.

    Rows that are there already, as padding of the vocabulary, are taken. The random state stays. Raises InputError
    for tokens that the tokenizer cannot take.
    """
    if not tokens:
        return model
    before = Tokenizer.load(folder)
    refuse_tokens(before, tokens)
    _make_room(model, before.vocab_size + len(tokens))
    pieces = [before.encode(token) for token in tokens]
    for weight in _weights(model).values():
        means = [weight[ids].float().mean(0) for ids in pieces]
        with torch.no_grad():
            weight[before.vocab_size : before.vocab_size + len(tokens)] = torch.stack(means).to(weight.dtype)
    return model


def train_rows(model: Any, folder: Path, tokens: Sequence[str]) -> Any:
    """`model`, wrapped by its method, of the base in `folder`, with the new rows trained too, in fp32: parameters whose
    names hold `new_tokens`. An embedding and a head that are tied share one. Raises InputError for a head inside an
    adapter."""
    if not tokens:
        return model
    first, count = Tokenizer.load(folder).vocab_size, len(tokens)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or type(head) is not nn.Linear:
        raise InputError(in_adapter(type(head).__name__))
    rows = _rows(embedding.weight, first, count)
    of_head = rows if head.weight is embedding.weight else _rows(head.weight, first, count)
    _replace(model, embedding, GrownEmbedding(embedding, rows, first))
    _replace(model, head, GrownHead(head, of_head, first))
    return model


def in_adapter(what: str) -> Problem:
    fix = "leave embeddings and head out of train.method.targets"
    return Problem(where=WHERE, what=f"the embeddings or the output head are inside an adapter ({what})", fix=fix)


class GrownEmbedding(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """An embedding whose rows first .. first + N - 1 are a parameter of their own."""

    def __init__(self, inner: nn.Embedding, rows_NM: nn.Parameter, first: int):
        super().__init__()
        self.inner = inner  # first: the model's dtype is that of its first weight
        self.new_tokens = copy.copy(inner)  # of the inner's own class, which may scale what it finds
        self.new_tokens._parameters = {"weight": rows_NM}
        self.new_tokens.num_embeddings, self.new_tokens.padding_idx = len(rows_NM), None
        self.first, self.count = first, len(rows_NM)

    @property
    def weight(self) -> Tensor:
        """Of the base: (V, M), whose new rows are those of the start."""
        return self.inner.weight

    def forward(self, ids_BT: Tensor) -> Tensor:
        found: Tensor = self.inner(ids_BT)
        place = ids_BT - self.first
        is_new = (place >= 0) & (place < self.count)
        new = self.new_tokens(place.clamp(0, self.count - 1)).to(found.dtype)
        return torch.where(is_new[..., None], new, found)


class GrownHead(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A head whose rows first .. first + N - 1 are a parameter of their own."""

    def __init__(self, inner: nn.Linear, rows_NM: nn.Parameter, first: int):
        super().__init__()
        self.inner = inner
        self.new_tokens = nn.Module()
        self.new_tokens.weight = rows_NM
        self.first, self.count = first, len(rows_NM)

    @property
    def weight(self) -> Tensor:
        return self.inner.weight

    @property
    def bias(self) -> Tensor | None:
        return self.inner.bias

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.inner(hidden)
        end = self.first + self.count
        bias = None if self.inner.bias is None else self.inner.bias[self.first : end]
        new = nn.functional.linear(hidden, self.new_tokens.weight.to(hidden.dtype), bias)
        return torch.cat([logits[..., : self.first], new.to(logits.dtype), logits[..., end:]], -1)


def check_rows(folder: Path, tokens: Sequence[str], names: Sequence[str]) -> list[str]:
    """`names` of the weights that a method would train on the base in `folder`, and those that `train_rows` adds. Reads
    no weight. Raises InputError for what `add_rows` and `train_rows` would refuse."""
    from tunesmith.model.load import skeleton

    refuse_tokens(Tokenizer.load(folder), tokens)
    model = skeleton(folder)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(model.config.get_text_config(decoder=True).tie_word_embeddings)
    places = [n for n, m in model.named_modules() if m is embedding or m is head]
    inside = [n for n in names for place in places if f".{place}." in f".{n}" and not n.endswith(f"{place}.weight")]
    if inside:
        raise InputError(in_adapter(inside[0]))
    own = places[:1] if tied else places
    return [*names, *(f"base_model.model.{place}.{ROWS}.weight" for place in own)]


def save_rows(model: Any, folder: Path) -> None:
    """new_tokens.safetensors: "embedding" (N, M) and, where they are not tied, "head" (N, M); "bias" (N,) of a head that has
    one. Nothing where no rows are trained by themselves."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, GrownEmbedding):
        return
    rows = {"embedding": embedding.new_tokens.weight}
    if head.new_tokens.weight is not embedding.new_tokens.weight:
        rows["head"] = head.new_tokens.weight
    if head.bias is not None:  # not trained
        rows["bias"] = head.bias[head.first : head.first + head.count]
    save_file({n: t.detach().cpu().contiguous() for n, t in rows.items()}, folder / FILE, metadata={"format": "pt"})


def put_rows(model: PreTrainedModel, checkpoint: Path) -> PreTrainedModel:
    """`model` with the rows that a checkpoint holds; as it is where the checkpoint has no new tokens.

    Raises ModelError for rows that are missing, left over or of another width.
    """
    ids = new_tokens_of(checkpoint)
    if not ids:
        return model
    path = checkpoint / FILE
    rows: dict[str, Tensor] = load_file(path) if path.is_file() else {}
    first, count = min(ids.values()), len(ids)
    _make_room(model, first + count)
    weights = _weights(model)
    wanted = {n: (count, *w.shape[1:]) for n, w in weights.items()}
    if {n: tuple(t.shape) for n, t in rows.items()} != wanted:
        what = f"holds {sorted(rows)}, not the rows of {count} new tokens for this base"
        raise ModelError(what, where=str(path), fix="load it on the model it was trained on")
    with torch.no_grad():
        for name, t in rows.items():
            weights[name][first : first + count] = t.to(weights[name])
    return model


def _make_room(model: PreTrainedModel, size: int) -> None:
    from tunesmith.model.load import quiet

    if model.get_input_embeddings().weight.shape[0] >= size:
        return
    with quiet(), torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(size, mean_resizing=False)


def _is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _weights(model: Any) -> dict[str, Tensor]:
    """What has a row for each token."""
    found = {"embedding": model.get_input_embeddings().weight.detach()}
    head = model.get_output_embeddings()
    if not _is_tied(model):
        found["head"] = head.weight.detach()
    if getattr(head, "bias", None) is not None:
        found["bias"] = head.bias.detach()
    return found


def _rows(weight: Tensor, first: int, count: int) -> nn.Parameter:
    return nn.Parameter(weight.detach()[first : first + count].float().clone())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """In the last module that has it: PEFT's wrapper and the model may both point to it."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old and parent is not new:
                setattr(parent, name, new)
