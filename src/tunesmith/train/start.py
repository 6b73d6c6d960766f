"""Training on top of training: a checkpoint merged into the base first, and kept with what is trained on it.

Domain adaptation, then instruction tuning, is one project: the domain's checkpoint is the `start` of the second
training. What comes out carries its start inside, in the folder `start`, so that it still needs nothing but the base:

    checkpoint/adapter_model.safetensors        on top of
    checkpoint/start/adapter_model.safetensors  on top of the base

A start may have a start of its own. Weights trained whole (method full) hold all of it and carry nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import file_id, read_json
from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.model import new_tokens as rows
from tunesmith.model.load import dtype_of, load_base
from tunesmith.model.merging.merge import refuse_other_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS, START, new_tokens_of, read_method
from tunesmith.text.render import Renderer


def base_with(base: Path, start: Path | None, *, dtype: str, new_tokens: Sequence[str] = ()) -> Any:
    """The model that training begins with: the base, or the base with the checkpoint `start` merged into it, in fp32
    and cast once. In eval mode, plain weights. `new_tokens` have a row each: the start's, or one made of their pieces.

    Raises InputError for a start that cannot be merged, ModelError for one that was trained on another base.
    """
    if new_tokens and (start is None or not new_tokens_of(start)):
        return rows.add_rows(base_with(base, start, dtype=dtype), base, new_tokens)
    if start is None:
        return load_base(base, dtype=dtype)
    refuse_unmergeable(start)
    refuse_other_base(base, start)
    method = read_method(start)
    if method.kind == "full":
        return load_base(start, dtype=dtype)
    inner = start / START
    under = rows.put_rows(base_with(base, inner if inner.is_dir() else None, dtype="fp32"), start)
    model = methods.load(under, start)
    return methods.merge(model, method).to(dtype_of(dtype)).requires_grad_(True).eval()


def refuse_start(start: Path, base: Path, renderer: Renderer) -> None:
    """All that would be refused of a start once a training reads it."""
    refuse_unmergeable(start)
    refuse_other_base(base, start)
    check_start(start, renderer)


def refuse_unmergeable(start: Path) -> None:
    method = read_method(start)
    if not METHODS[method.kind].mergeable:
        what = f"{method.kind} is no change of the base's weights, so nothing can be trained on top of it"
        fix = "train the start with a method that can be merged: tunesmith methods"
        raise InputError(Problem(where="train.start", what=what, fix=fix))


def check_start(start: Path, renderer: Renderer) -> None:
    """Raises ModelError where the start was trained with another tokenizer, InputError where it has other new tokens.
    Its system prompt may differ: texts have none."""
    receipt = start / "renderer.json"
    said: dict[str, Any] = read_json(receipt, dict[str, Any])
    own, its = renderer.tokenizer.new_tokens, tuple(said.get("new_tokens", ()))
    if its and its != own:
        what = (
            f"has the new tokens {', '.join(map(repr, its))}, and here they are {', '.join(map(repr, own)) or 'none'}"
        )
        fix = f"--set 'train.new_tokens={json.dumps(list(its), ensure_ascii=False)}'"
        raise InputError(Problem(where="train.start", what=what, fix=fix))
    if said["tokenizer_sha256"] not in (
        renderer.tokenizer.sha256,
        file_id(renderer.tokenizer.folder / "tokenizer.json"),
    ):
        raise ModelError(
            "was trained with another tokenizer than the base has", where=str(receipt), fix="train it on this base"
        )


def carry_start(start: Path | None, folder: Path) -> None:
    """Copy the start into the checkpoint `folder`, whose own files are there, unless its weights are whole."""
    if start is not None and read_method(folder).kind != "full":
        shutil.copytree(start, folder / START)
