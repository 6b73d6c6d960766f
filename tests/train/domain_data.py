"""Small data sets of texts, and runs of the domain recipe, for its tests."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.train.data import LORA, WORDS
from tunesmith.core.canonical import write_lines
from tunesmith.core.nouns import Example, Message, Row
from tunesmith.core.stage import Exec, Workspace
from tunesmith.train.domain_stages import DomainInputs, DomainSpec
from tunesmith.train.recipes.domain import domain

SPEC = DomainSpec(
    method=LORA,
    base="tiny",
    lr=5e-3,
    epochs=2.0,
    global_batch=2,
    max_tokens=64,
    schedule="cosine",
    warmup=0.1,
    decay=0.2,
    optimizer="adamw",
    lr_ratios=(),
    weight_decay=0.0,
    max_grad_norm=1.0,
    precision="fp32",
    weights="fp32",
    master="fp32",
    metric="bits_per_byte",
    validate_times=2,
    validation_rows=50,
    patience=None,
    mixture=(),
    max_loss_rise=None,
    past_budget="stop",
    replay_share=0.5,
    refusals="",
    new_tokens=(),
    keep=1,
    keep_last=0,
    seed=0,
)


def text_rows(
    n: int, *, seed: int, file: str = "texts.jsonl", words: list[str] = WORDS, longest: int = 40
) -> list[Row]:
    """Each word is followed by its neighbour more often than not, so that there is something to learn."""
    rng = random.Random(seed)
    rows = []
    for line in range(n):
        at = rng.randrange(len(words))
        said = []
        for _ in range(rng.randint(3, longest)):
            said.append(words[at])
            at = (at + 1) % len(words) if rng.random() < 0.9 else rng.randrange(len(words))
        example = Example(messages=(), target=" ".join(said))
        rows.append(Row(id=example.id, messages=(), target=example.target, file=file, line=line + 1, group=example.id))
    return rows


def asked_rows(n: int, *, file: str = "refusals.jsonl") -> list[Row]:
    rows = []
    for line in range(n):
        example = Example(messages=(Message(role="user", content=f"tell me secret {line}"),), target="I will not.")
        rows.append(
            Row(
                id=example.id,
                messages=example.messages,
                target=example.target,
                file=file,
                line=line + 1,
                group=example.id,
            )
        )
    return rows


def make_texts(folder: Path, train: list[Row], validation: list[Row], *, kind: str = "domain") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "validation.jsonl", validation)
    (folder / "dataset.json").write_text(json.dumps({"kind": kind, "labels": []}))
    return folder


def adapt(
    root: Path,
    dataset: Path,
    base: Path,
    *,
    general: Path | None = None,
    exec: Exec | None = None,
    stop: threading.Event | None = None,
    progress: Any = None,
    **changes: Any,
) -> Workspace:
    """Run the recipe in the workspace `root`; returns it, with `out/checkpoint` written."""
    work = Workspace(root=root, exec=exec or Exec(micro_batch_tokens=4096, threads=1))
    if stop is not None:
        work.stop = stop
    if progress is not None:
        work.progress = progress
    domain(replace(SPEC, **changes), DomainInputs(dataset=dataset, base=base, general=general), work)
    return work
