"""The files of a checkpoint: the trained weights and what is needed to use them.

They hold no time and no path of this machine: equal runs give equal bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.model import new_tokens
from tunesmith.model.merging.merge import IDENTITY, identity
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import method_json
from tunesmith.text.render import Renderer
from tunesmith.train import state
from tunesmith.train.retention import Retention, as_best
from tunesmith.train.stages import SftSpec
from tunesmith.train.start import carry_start
from tunesmith.train.state import Position

BESIDE_WEIGHTS = (".json", ".jinja", ".txt", ".model")  # tokenizer, chat template, generation settings


def folders(scratch: Path, retention: Retention, at: Position) -> tuple[Path, dict[str, Path]]:
    """Where the best checkpoint and those beside it are written: the outputs `checkpoint` and `kept`."""
    beside = {str(step): scratch / f"kept-{step}" for step in retention.steps(at) if step != at.best_step}
    return scratch / "checkpoint", beside


def kept_facts(retention: Retention, at: Position) -> dict[str, list[dict[str, Any]]]:
    """For the run's record, by rank: the outputs' names, each with its metric, or its loss where there is none."""
    beside = [j for j in retention.of(at) if j.step != at.best_step]
    scores = [
        {"output": f"kept-{j.step}", "validation": j.validation_loss if j.metric is None else j.metric} for j in beside
    ]
    return {"kept": scores} if scores else {}


def write_held(
    scratch: Path,
    held: Path,
    retention: Retention,
    parameters: Mapping[str, nn.Parameter],
    at: Position,
    start: Path | None,
    **facts: Any,
) -> None:
    """A checkpoint of each validation whose weights are held: the folder `held` has them, `parameters` are the
    model's, and `facts` are what `write_checkpoint` takes beside. The best first: it is the same whatever else is kept."""
    best, beside = folders(scratch, retention, at)
    for judgment in retention.of(at):
        state.load_held(held, judgment.step, parameters)
        folder = best if judgment.step == at.best_step else beside[str(judgment.step)]
        write_checkpoint(folder, at=as_best(at, judgment), best_of_run=at.best_step, **facts)
        carry_start(start, folder)


def write_checkpoint(
    folder: Path,
    spec: SftSpec,
    base: Path,
    model: Any,
    renderer: Renderer,
    at: Position,
    steps: int,
    places: Sequence[str] = (),
    best_of_run: int | None = None,
) -> None:
    """`steps` is what was planned; `at` says where the best was found. `places`: "file:line" of each row, to name
    those that were left out. `best_of_run`: the step of the best, where this one is kept beside it."""
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
    if best_of_run not in (None, at.best_step):
        facts["best_of_run"] = best_of_run
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
