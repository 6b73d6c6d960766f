"""The files of a checkpoint: the trained weights and what is needed to use them.

They hold no time and no path of this machine: equal runs give equal bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.model import new_tokens
from tunesmith.model.merging.merge import IDENTITY, identity
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import method_json
from tunesmith.text.render import Renderer
from tunesmith.train.stages import SftSpec
from tunesmith.train.state import Position

BESIDE_WEIGHTS = (".json", ".jinja", ".txt", ".model")  # tokenizer, chat template, generation settings


def write_checkpoint(
    folder: Path,
    spec: SftSpec,
    base: Path,
    model: Any,
    renderer: Renderer,
    at: Position,
    steps: int,
    places: Sequence[str] = (),
) -> None:
    """`steps` is what was planned; `at` says where the best was found. `places`: "file:line" of each row, to name
    those that were left out."""
    folder.mkdir(parents=True)
    methods.save(model, spec.method, folder, base=spec.base)
    ids = new_ids(renderer)
    if ids:
        new_tokens.save_rows(model, folder)
        write_atomic(folder / "tokenizer.json", renderer.tokenizer.source.encode("utf-8"))
    if spec.method.kind == "full":
        for file in sorted(base.iterdir()):
            index = file.name.endswith(".index.json")
            if file.suffix in BESIDE_WEIGHTS and not index and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
    facts = {
        "method": method_json(spec.method),
        "base": spec.base,
        "best_step": at.best_step,
        "steps": steps,
        "metric": spec.metric or "validation_loss",
        "best": at.best if spec.metric else at.best_loss,
    }
    if spec.method.kind != "full":
        facts[IDENTITY] = identity(base)  # an update means nothing on other weights
    if ids:
        facts["new_tokens"] = ids
    if at.left_out:
        facts["left_out"] = [{"step": b.step, "loss": b.loss, "rows": [places[i] for i in b.rows]} for b in at.left_out]
    write_atomic(folder / "checkpoint.json", canonical_json(facts) + b"\n")
    write_atomic(folder / "renderer.json", canonical_json(renderer.describe()) + b"\n")


def new_ids(renderer: Renderer) -> dict[str, int]:
    """The new tokens' ids, which follow each other."""
    tokenizer = renderer.tokenizer
    first = tokenizer.vocab_size - len(tokenizer.new_tokens)
    return {token: first + i for i, token in enumerate(tokenizer.new_tokens)}
