"""What the planner says against what happens: peak memory and time of real trainings.

    python benchmarks/planner.py [--cases 'lora/128*'] [--time] [--steps 2] [--again]

SmolLM2-135M-Instruct in fp32, made-up rows of stated lengths. A case is method/TOKENSxROWS, ROWS in one micro-batch.
Three figures for each: counted (from config.json and the lengths alone), happened (the whole recipe with validation and
saving, in a process of its own) and with --time also measured (the planner's three steps, in a process of its own, just
before). Times are in seconds of the processor, not of the clock, so that what else the machine does counts little: use
one thread (OMP_NUM_THREADS=1). benchmarks/results/planner.json is written after each case, and a case that is in it
already is left out unless --again is given: the matrix can be run in parts.
"""

from __future__ import annotations

import argparse
import fnmatch
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
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
FULL = replace(LORA, kind="full")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": LORA},
    "full": {"method": FULL},
    "qlora 4 bit": {"method": replace(LORA, kind="qlora", bits=4, double_quant=True)},
    "bottleneck": {"method": replace(LORA, kind="bottleneck", placement="pfeiffer", reduction=16.0, activation="relu")},
    "dora": {"method": replace(LORA, dora=True)},
    "qlora 8 bit": {"method": replace(LORA, kind="qlora", bits=8)},
    "full last:4": {"method": replace(FULL, train_layers="last:4")},
    "full adafactor": {"method": FULL, "optimizer": "adafactor"},
    "full bf16 weights": {"method": FULL, "precision": "bf16", "weights": "bf16", "master": "stochastic"},
    "ia3": {"method": replace(LORA, kind="ia3")},
    "prompt": {"method": replace(LORA, kind="prompt", virtual_tokens=20)},
    "prefix": {"method": replace(LORA, kind="prefix", virtual_tokens=20)},
    "p_tuning": {"method": replace(LORA, kind="p_tuning", virtual_tokens=20, projection=128)},
    "lora checkpointed": {"method": LORA, "gradient_checkpointing": True},
    "full checkpointed": {"method": FULL, "gradient_checkpointing": True},
}
SHAPES = ((128, 1), (384, 1), (128, 4), (384, 2))  # tokens of a row, rows in the one micro-batch of a step
ANSWER = 8  # tokens of it, about
TIMED_STEPS = 10
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "green", "rivers", "old")
Case = tuple[str, int, int]  # method, tokens, rows


def every_case() -> list[Case]:
    return [(name, tokens, rows) for tokens, rows in SHAPES for name in METHODS]


def name_of(case: Case) -> str:
    return f"{case[0]}/{case[1]}x{case[2]}"


def asked(case: Case) -> tuple[SftSpec, Exec]:
    name, tokens, rows = case
    said = dict(METHODS[name])
    virtual = said["method"].virtual_tokens
    exec = Exec(
        micro_batch_tokens=rows * (tokens + virtual + 16), threads=int(os.environ.get("OMP_NUM_THREADS", 1)),
        gradient_checkpointing=said.pop("gradient_checkpointing", False),
    )  # fmt: skip
    spec = SftSpec(
        kind="instruct", base="smollm2-135m-instruct", system="Answer.", lr=1e-4, epochs=1.0, global_batch=rows,
        max_tokens=tokens + 200, schedule="constant", warmup=0.0, decay=0.2, lr_ratios=(), weight_decay=0.0,
        max_grad_norm=1.0, label_smoothing=0.0, neftune_alpha=0.0, on_spike="ignore", spike_z=8.0, averaging="none",
        ema_decay=0.9, average_last=2, metric="", validate_times=1, validate_every_steps=None,
        validate_every_epochs=None, validation_rows=1, patience=None, max_new_tokens=8, seed=0, turns="all",
        mixture=(), max_loss_rise=None, past_budget="stop", replay_share=0.2, refusals="", new_tokens=(),
        template="{text}", templates=(), systems=(), keep=1, keep_last=0,
        **({"precision": "fp32", "optimizer": "adamw", "weights": "fp32", "master": "fp32"} | said),
    )  # fmt: skip
    return spec, exec


def dataset(folder: Path, case: Case, steps: int) -> None:
    """Rows of 90 to 100 % of the length, in tokens: a word is one, and the chat's frame about 25."""
    _, tokens, rows = case
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for split, count in (("train", rows * steps), ("validation", 1)):
        made = []
        for line in range(count):
            long = rng.uniform(0.9, 1.0) if split == "train" else 0.5  # which no peak and no time depends on
            size = max(4, round(tokens * long) - ANSWER - 25)
            text, target = " ".join(rng.choices(WORDS, k=size)), " ".join(rng.choices(WORDS, k=ANSWER))
            e = Example(messages=(Message(role="user", content=f"{line} {text}"),), target=target)
            row = Row(id=e.id, messages=e.messages, target=target, file="rows.csv", line=line + 2, group=e.id)
            made.append(row)
        write_lines(folder / f"{split}.jsonl", made)
    (folder / "dataset.json").write_text(json.dumps({"kind": "instruct", "labels": []}))


def base_folder() -> Path:
    from tunesmith.model.catalog import find

    return find("smollm2-135m-instruct").folder


def happen(case: Case, folder: Path) -> dict[str, Any]:
    """The whole recipe, in this process."""
    from tunesmith.core.stage import Workspace
    from tunesmith.train.recipes.sft import sft

    spec, exec = asked(case)
    work = Workspace(root=folder / "work", exec=exec)
    sft(spec, SftInputs(dataset=folder / "dataset", base=base_folder()), work)
    return dict(work.summary)


def try_steps(case: Case, folder: Path) -> dict[str, Any]:
    """The planner's own three steps, in this process: what `measure` starts."""
    from tunesmith.train.cost import probe

    spec, exec = asked(case)
    question = {"stage": "sft", "spec": plain(spec), "exec": plain(exec), "start": None, "general": None}
    return probe.answer(question | {"dataset": str(folder / "dataset"), "base": str(base_folder())})


def facts_of(folder: Path, spec: SftSpec) -> dict[str, Any]:
    """dataset.json's facts of the made-up rows, as the planner reads them."""
    from tunesmith.text.render import Renderer
    from tunesmith.train.batches import read_rows, render_rows

    rows = read_rows(folder / "dataset" / "train.jsonl")
    documents = render_rows(rows, Renderer.load(base_folder(), system=spec.system), 4096)
    sizes, answers = [len(d.ids) for d in documents], [sum(d.trained) for d in documents]
    longest = {"mean": statistics.mean(answers), "longest": max(answers)}
    return {
        "counts": {"train": len(documents)},
        "tokens": {"total": sum(sizes), "longest": max(sizes), "answer": longest},
    }


def child(kind: str, case: Case, folder: Path) -> dict[str, Any]:
    """`kind` in a process of its own: one at a time."""
    command = [sys.executable, __file__, "--child", kind, *(str(x) for x in case), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name_of(case)}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(case: Case, steps: int, timed: bool) -> dict[str, Any]:
    """The row of a case for the table."""
    from tunesmith.train import precision

    spec, exec = asked(case)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset(folder / "dataset", case, TIMED_STEPS if timed else steps)
        facts = facts_of(folder, spec)
        tried = child("steps", case, folder) if timed else None
        happened = child("whole", case, folder)
    counted = precision.estimate(read_json(base_folder() / "config.json"), facts, spec, 1.0, exec=exec)
    found = {
        "case": name_of(case), "method": case[0], "tokens": case[1], "rows": case[2], "longest": facts["tokens"]["longest"],
        "path": happened["path"].split(":")[0], "planned_path": counted["path"],
        "happened_mib": happened["peak_mib"], "counted_mib": counted["memory_mib"],
        "ratio": round(counted["memory_mib"] / happened["peak_mib"], 3), "steps": happened["steps"],
        "parts_mib": counted["memory"],
    }  # fmt: skip
    if tried is not None:
        speed = (tried["typical"] or tried["longest"])["tokens_per_s"]
        found |= {
            "measured_mib": tried["peak_mib"],
            "measured_ratio": round(tried["peak_mib"] / happened["peak_mib"], 3),
            "happened_s": happened["seconds"],
            "planned_s": round(happened["tokens"] / speed, 2),
            "time_ratio": round(happened["tokens"] / speed / happened["seconds"], 2),
        }
    return found


def recount(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with what the planner counts now: what happened stays."""
    from tunesmith.train import precision

    case: Case = (row["method"], row["tokens"], row["rows"])
    spec, exec = asked(case)
    with tempfile.TemporaryDirectory() as scratch:
        dataset(Path(scratch) / "dataset", case, row.get("steps", 2))
        facts = facts_of(Path(scratch), spec)
    counted = precision.estimate(read_json(base_folder() / "config.json"), facts, spec, 1.0, exec=exec)
    ratio = round(counted["memory_mib"] / row["happened_mib"], 3)
    return row | {"counted_mib": counted["memory_mib"], "ratio": ratio, "parts_mib": counted["memory"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", action="append", metavar="PATTERN", help="of names such as 'lora/128x1'; repeatable")
    parser.add_argument("--time", action="store_true", help=f"three steps of the planner, then {TIMED_STEPS} real ones")
    parser.add_argument("--steps", type=int, default=2, help="of a real training without --time")
    parser.add_argument("--again", action="store_true", help="also what the result file has already")
    parser.add_argument("--recount", action="store_true", help="run nothing: count the cases of the result file anew")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, name, tokens, rows, folder = options.child
        time.perf_counter = time.process_time  # every step's time is read from it
        run = try_steps if kind == "steps" else happen
        print(json.dumps(run((name, int(tokens), int(rows)), Path(folder)), default=str))
        return
    if options.recount:
        write([recount(r) for r in read()])
        return
    rows_by_case = {r["case"]: r for r in read()}
    for case in every_case():
        name = name_of(case)
        known = rows_by_case.get(name, {})
        wanted = not options.cases or any(fnmatch.fnmatchcase(name, p) for p in options.cases)
        if not wanted or (known and not options.again and (not options.time or "time_ratio" in known)):
            continue
        rows_by_case[name] = one(case, options.steps, options.time)
        print(json.dumps({k: v for k, v in rows_by_case[name].items() if k != "parts_mib"}), flush=True)
        write([rows_by_case[name_of(c)] for c in every_case() if name_of(c) in rows_by_case])


def read() -> list[dict[str, Any]]:
    if not RESULT.exists():
        return []
    return [r for r in read_json(RESULT, dict[str, Any])["rows"] if "case" in r]


def write(rows: list[dict[str, Any]]) -> None:
    def off(key: str) -> dict[str, float] | None:
        each = [abs(r[key] - 1) for r in rows if key in r]
        if not each:
            return None
        return {"cases": len(each), "median": round(statistics.median(each), 3), "largest": round(max(each), 3)}

    found = {
        "question": "peak memory and time: what the planner says against what happened",
        "command": "python benchmarks/planner.py, in parts",
        "memory_counted_off": off("ratio"),
        "memory_measured_off": off("measured_ratio"),
        "time_off": off("time_ratio"),
        "rows": rows,
        "machine": f"{os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} used, {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")}
        | {"python": platform.python_version()},
    }
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(RESULT)


if __name__ == "__main__":
    main()
