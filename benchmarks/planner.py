"""What the planner says against what happens: peak memory and time of real trainings.

    python benchmarks/planner.py [--only NAME] [--threads 2]

SmolLM2-135M-Instruct, made-up rows of stated lengths; methods by length by rows in a step. Three figures for
each: counted (from config.json and the lengths alone), measured (the planner's three steps, in a process of its own)
and real (the whole recipe with validation and saving, in a process of its own). Speeds on a busy machine are
noise, so the time's ratio counts on an idle one only; memory holds anywhere. Writes benchmarks/results/planner.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import plain, read_json, write_lines
from tunesmith.core.nouns import Example, Message, Row
from tunesmith.core.stage import Exec
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.stages import SftInputs, SftSpec

RESULT = Path(__file__).resolve().parent / "results" / "planner.json"
STEPS = 3
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
FULL = replace(LORA, kind="full")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": LORA},
    "lora bf16": {"method": LORA, "precision": "bf16"},
    "dora": {"method": replace(LORA, dora=True)},
    "qlora 4 bit": {"method": replace(LORA, kind="qlora", bits=4, double_quant=True)},
    "qlora 8 bit": {"method": replace(LORA, kind="qlora", bits=8)},
    "ia3": {"method": replace(LORA, kind="ia3")},
    "prompt": {"method": replace(LORA, kind="prompt", virtual_tokens=20)},
    "p_tuning": {"method": replace(LORA, kind="p_tuning", virtual_tokens=20, projection=128)},
    "prefix": {"method": replace(LORA, kind="prefix", virtual_tokens=20)},
    "bottleneck": {"method": replace(LORA, kind="bottleneck", placement="pfeiffer", reduction=16.0, activation="relu")},
    "full": {"method": FULL},
    "full adafactor": {"method": FULL, "optimizer": "adafactor"},
    "full last:4": {"method": replace(FULL, train_layers="last:4")},
    "lora checkpointed": {"method": LORA, "gradient_checkpointing": True},
    "full checkpointed": {"method": FULL, "gradient_checkpointing": True},
}
SHAPES = ((64, 8, 512, 3), (256, 4, 512, 3), (384, 2, 768, 48))  # tokens, rows in a step, micro-batch, answer
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "while",
    "seven",
    "green",
    "rivers",
    "carry",
    "old",
]


def case(name: str, shape: tuple[int, int, int, int]) -> tuple[SftSpec, Exec]:
    length, rows, micro, _ = shape
    said = dict(METHODS[name])
    exec = Exec(micro_batch_tokens=micro, gradient_checkpointing=said.pop("gradient_checkpointing", False))
    spec = SftSpec(
        kind="instruct", base="smollm2-135m-instruct", system="Answer.", lr=1e-4, epochs=1.0, global_batch=rows,
        max_tokens=length + 200, schedule="constant", warmup=0.0, decay=0.2, lr_ratios=(), weight_decay=0.0,
        max_grad_norm=1.0, label_smoothing=0.0, neftune_alpha=0.0, on_spike="ignore", spike_z=8.0, averaging="none",
        ema_decay=0.9, average_last=2, metric="", validate_times=1, validate_every_steps=None,
        validate_every_epochs=None, validation_rows=2, patience=None, max_new_tokens=8, seed=0, turns="all", mixture=(), max_loss_rise=None, past_budget="stop", replay_share=0.2, refusals="", weights="fp32", master="fp32",
        **({"precision": "fp32", "optimizer": "adamw"} | said),
    )  # fmt: skip
    return spec, exec


def dataset(folder: Path, shape: tuple[int, int, int, int]) -> Path:
    """Rows of 60 to 100 % of the length, in tokens: a word is about one."""
    length, rows, _, answer = shape
    rng, folder = random.Random(0), folder / "dataset"
    folder.mkdir(parents=True)
    for split, count in (("train", rows * STEPS), ("validation", 8)):
        made = []
        for line in range(count):
            size = max(4, round(length * rng.uniform(0.6, 1.0)) - answer - 20)
            text, target = " ".join(rng.choices(WORDS, k=size)), " ".join(rng.choices(WORDS, k=answer))
            e = Example(messages=(Message(role="user", content=f"{line} {text}"),), target=target)
            row = Row(id=e.id, messages=e.messages, target=target, file="rows.csv", line=line + 2, group=e.id)
            made.append(row)
        write_lines(folder / f"{split}.jsonl", made)
    (folder / "dataset.json").write_text(json.dumps({"kind": "instruct", "labels": []}))
    return folder


def base_folder() -> Path:
    from tunesmith.model.catalog import find

    return find("smollm2-135m-instruct").folder


def real(name: str, shape: tuple[int, int, int, int], folder: Path) -> dict[str, Any]:
    """The whole recipe, in this process."""
    from tunesmith.core.stage import Workspace
    from tunesmith.train.recipes.sft import sft

    spec, exec = case(name, shape)
    marks: list[dict[str, Any]] = []

    def progress(done: float, total: float, label: str, **facts: Any) -> None:
        from tunesmith.train.cost import machine

        marks.append({"at": label, "step": done, "peak": machine.peak_mib(), "now": machine.resident_bytes() >> 20})

    work = Workspace(root=folder / "work", exec=exec, progress=progress)
    sft(spec, SftInputs(dataset=folder / "dataset", base=base_folder()), work)
    return work.summary | {"marks": marks}


def lengths(folder: Path, spec: SftSpec) -> dict[str, Any]:
    """dataset.json's facts of the made-up rows, as the planner reads them."""
    from tunesmith.text.render import Renderer
    from tunesmith.train.batches import read_rows, render_rows

    documents = render_rows(
        read_rows(folder / "dataset" / "train.jsonl"), Renderer.load(base_folder(), system=spec.system), 4096
    )
    sizes, answers = [len(d.ids) for d in documents], [sum(d.trained) for d in documents]
    return {
        "counts": {"train": len(documents)},
        "tokens": {
            "total": sum(sizes), "longest": max(sizes),
            "prompt": {"mean": statistics.mean(sizes) - statistics.mean(answers)},
            "answer": {"mean": statistics.mean(answers), "longest": max(answers)},
        },
    }  # fmt: skip


def one(name: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    from tunesmith.train import precision
    from tunesmith.train.cost.measure import measure

    spec, exec = case(name, shape)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset(folder, shape)
        facts = lengths(folder, spec)
        found = measure("sft", spec, exec, dataset=folder / "dataset", base=base_folder(), start=None, general=None)
        started = time.perf_counter()
        child = [sys.executable, __file__, "--child", name, *(str(x) for x in shape), str(folder)]
        done = subprocess.run(child, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        happened = json.loads(done.stdout.splitlines()[-1])
        happened["process_s"] = round(time.perf_counter() - started, 1)
    counted = precision.estimate(read_json(base_folder() / "config.json"), facts, spec, 1.0, exec=exec)
    return {
        "name": name,
        "shape": shape,
        "facts": facts,
        "counted": counted,
        "measured": plain(found),
        "real": happened,
    }


def row(found: dict[str, Any]) -> dict[str, Any]:
    real, counted, measured = found["real"], found["counted"], found["measured"]
    length, rows, micro, _ = found["shape"]
    return {
        "method": found["name"], "tokens": length, "rows": rows, "micro_batch": micro, "path": real["path"].split(":")[0],
        "real_mib": real["peak_mib"], "counted_mib": counted["memory_mib"], "measured_mib": measured["peak_mib"],
        "counted_ratio": round(counted["memory_mib"] / real["peak_mib"], 3),
        "measured_ratio": round(measured["peak_mib"] / real["peak_mib"], 3),
        "real_s": real["seconds"], "planned_s": round(real["tokens"] / measured["tokens_per_s"], 2),
        "time_ratio": round(real["tokens"] / measured["tokens_per_s"] / real["seconds"], 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(METHODS))
    parser.add_argument("--shape", type=int, action="append", help="index of a shape")
    parser.add_argument("--raw", type=Path, help="append every case's whole figures to this file")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *numbers, folder = options.child
        print(json.dumps(real(name, tuple(int(n) for n in numbers), Path(folder)), default=str))
        return
    rows = []
    for shape in [SHAPES[i] for i in options.shape or range(len(SHAPES))]:
        for name in options.only or METHODS:
            found = one(name, shape)
            if options.raw:
                with open(options.raw, "a") as f:
                    f.write(json.dumps(found, default=str) + "\n")
            rows.append(row(found))
            print(json.dumps(rows[-1]), flush=True)
    if options.only or options.shape:
        return
    RESULT.write_text(json.dumps(summary(rows), indent=2) + "\n", encoding="utf-8")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def off(key: str) -> dict[str, float]:
        each = [abs(r[key] - 1) for r in rows]
        return {"median": round(statistics.median(each), 3), "largest": round(max(each), 3)}

    return {
        "question": "peak memory and time: what the planner says against what happened",
        "command": "python benchmarks/planner.py",
        "memory_counted_off": off("counted_ratio"),
        "memory_measured_off": off("measured_ratio"),
        "time_off": off("time_ratio"),
        "rows": rows,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")}
        | {"python": platform.python_version()},
    }


if __name__ == "__main__":
    main()
