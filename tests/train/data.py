"""A small data set, specs and runs for the tests of training."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tunesmith.core.canonical import write_lines
from tunesmith.core.nouns import Example, Message, Row
from tunesmith.core.stage import Exec, Workspace
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.recipes.sft import sft
from tunesmith.train.stages import SftInputs, SftSpec

LABELS = ["business", "politik", "sports"]
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "ball",
    "aktie",
    "spiel",
    "prozent",
    "drei",
    "rund",
    "minuten",
    "shaft",
    "left",
    "tibia",
]


def make_rows(n: int, *, seed: int, file: str = "rows.csv", longest: int = 12) -> list[Row]:
    """The label follows from the first word, so that there is something to learn."""
    rng = random.Random(seed)
    rows = []
    for line in range(n):
        words = [rng.choice(WORDS) for _ in range(rng.randint(2, longest))]
        target = LABELS[WORDS.index(words[0]) % len(LABELS)]
        example = Example(messages=(Message(role="user", content=" ".join(words)),), target=target)
        rows.append(
            Row(
                id=example.id,
                messages=example.messages,
                target=target,
                file=file,
                line=line + 2,
                group=example.id,
                weight=1.0,
            )
        )
    return rows


def make_dataset(folder: Path, *, train: int = 24, validation: int = 9, labels: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "train.jsonl", make_rows(train, seed=1))
    write_lines(folder / "validation.jsonl", make_rows(validation, seed=2))
    facts = {"kind": "classify" if labels else "instruct", "labels": LABELS if labels else []}
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
FULL = MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")


def small_methods(*, virtual_tokens: int, projection: int) -> dict[str, MethodSpec]:
    """Methods that a test of all of them takes as they are, by name."""
    virtual = {"virtual_tokens": virtual_tokens}
    projected = virtual | {"projection": projection}
    return {
        "dora": replace(LORA, dora=True),
        "nf4": replace(LORA, kind="qlora", bits=4, double_quant=True),
        "int8": replace(LORA, kind="qlora", bits=8),
        "ia3": replace(LORA, kind="ia3"),
        "prompt": replace(LORA, kind="prompt", **virtual),
        "p_tuning": replace(LORA, kind="p_tuning", **projected),
        "prefix": replace(LORA, kind="prefix", **virtual),
        "prefix_projection": replace(LORA, kind="prefix", **projected),
    }


SPEC = SftSpec(
    kind="classify",
    method=LORA,
    base="tiny",
    system="Give the label of the text.",
    lr=5e-3,
    epochs=2.0,
    global_batch=8,
    max_tokens=128,
    schedule="cosine",
    warmup=0.1,
    decay=0.2,
    optimizer="adamw",
    lr_ratios=(),
    weight_decay=0.0,
    max_grad_norm=1.0,
    label_smoothing=0.0,
    neftune_alpha=0.0,
    on_spike="ignore",
    spike_z=8.0,
    averaging="none",
    ema_decay=0.9,
    average_last=2,
    precision="fp32",
    weights="fp32",
    master="fp32",
    metric="macro_f1",
    validate_times=2,
    validate_every_steps=None,
    validate_every_epochs=None,
    validation_rows=6,
    patience=None,
    max_new_tokens=8,
    template="{text}",
    templates=(),
    systems=(),
    turns="all",
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


def train(
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
    sft(replace(SPEC, **changes), SftInputs(dataset=dataset, base=base, general=general), work)
    return work


def opened(root: Path) -> Workspace:
    """The workspace of a training that was run elsewhere."""
    return Workspace(root=root)


def files(work: Workspace) -> dict[str, bytes]:
    """Every byte that must be equal in equal runs: the checkpoint, those kept beside it, and the metric log."""
    found = {p.name: p.read_bytes() for p in sorted((work.scratch / "checkpoint").iterdir())}
    for p in sorted(work.scratch.glob("kept-*/*")):
        found[f"{p.parent.name}/{p.name}"] = p.read_bytes()
    return found | {"metrics.jsonl": work.metrics_file.read_bytes()}


def log(work: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in work.metrics_file.read_text().splitlines()]


def losses(work: Workspace) -> list[float]:
    return [line["loss"] for line in log(work) if "loss" in line]


def weights(work: Workspace) -> dict[str, Any]:
    folder = work.scratch / "checkpoint"
    return load_file(next(p for p in sorted(folder.iterdir()) if p.suffix == ".safetensors"))


def max_difference(a: Workspace, b: Workspace) -> float:
    """Largest difference of a final weight."""
    x, y = weights(a), weights(b)
    assert x.keys() == y.keys()
    return max(float((x[n] - y[n]).abs().max()) for n in x)
