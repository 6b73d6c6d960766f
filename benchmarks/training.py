"""Training tokens a second, against TRL's SFTTrainer on the same rows, model and adapter.

    python benchmarks/training.py [--rounds 3] [--steps 5] [--threads 0]

SmolLM2-135M-Instruct, LoRA of rank 16 on all linear layers, batches of 16 rows of the demo (ICD-10-CM
texts to chapters), AdamW at 2e-4, clipping at 1; the same token ids and loss masks in the same order.
Each measurement is a process of its own; the arms take turns within a round, so what else the machine
does meets all of them. Speeds count real tokens (no padding; a shared prefix for each row) after one
step of warm-up. The ratio of medians is what counts. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "training.json"
BATCH, WARMUP, LR = 16, 1, 2e-4
ARMS = {
    "tunesmith bf16": {"precision": "bf16"},
    "tunesmith fp32": {"precision": "fp32"},
    "trl defaults": {},
    "trl best": {"activation_checkpointing": False},
    "trl fp32": {"activation_checkpointing": False, "bf16": False},
}
BEST_OF = "no checkpointing (packing, padding-free rows and bf16 weights were slower or equal on CPUs)"


def rendered(steps: int) -> tuple[Path, list[Any]]:
    """The model's folder and its examples, in a seeded order."""
    sys.path.insert(0, str(ROOT / "examples"))
    import icd10

    from tunesmith.core.nouns import Example, Message, Row, Task
    from tunesmith.model.catalog import find
    from tunesmith.text.prompt import system_prompt
    from tunesmith.text.render import Renderer
    from tunesmith.train.batches import render_rows, shuffled

    task = Task(kind="classify", text="description", label="chapter", audience="clinical coders", tone="terse")
    rows = []
    for line, (text, label, category) in enumerate(icd10.rows()):
        e = Example(messages=(Message(role="user", content=text),), target=label)
        row = Row(id=e.id, messages=e.messages, target=label, file="diagnoses.csv", line=line + 2, group=category)
        rows.append(row)
    chosen = [rows[i] for i in shuffled(rows, 0, 0)[: steps * BATCH]]
    folder = find("smollm2-135m-instruct").folder
    renderer = Renderer.load(folder, system=system_prompt(task, (), list_labels=False))
    return folder, render_rows(chosen, renderer, 1024)


def lora(folder: Path, dtype: str) -> Any:
    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog as methods
    from tunesmith.model.methods.spec import MethodSpec

    method = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
    return methods.wrap(load_base(folder, dtype=dtype), method, seed=0)


def ours(steps: int, precision: str) -> dict[str, Any]:
    """The steps of train/recipes/sft.py."""
    from tunesmith.model.methods import catalog as methods
    from tunesmith.train import optim
    from tunesmith.train.forward import choose_forward
    from tunesmith.train.recipes.sft import accumulate

    folder, documents = rendered(steps)
    model = lora(folder, precision)
    parameters = methods.trainable_parameters(model)
    optimizer = optim.adamw(parameters, weight_decay=0.0)
    forward = choose_forward(model, documents, precision, full=False, seed=0)  # type: ignore[arg-type]
    marks, losses, tokens = [], [], []
    for step in range(steps):
        batch = documents[step * BATCH : (step + 1) * BATCH]
        marks.append((time.perf_counter(), time.process_time()))
        losses.append(accumulate(forward, batch, step, 8192))
        optim.clip(parameters.values(), 1.0)
        optim.apply(optimizer, lr=LR)
        tokens.append(sum(len(d.ids) for d in batch))
    return {"path": forward.path, **speeds(marks, tokens), "losses": losses}


def trl(steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder, documents = rendered(steps)
    rows = [{"input_ids": list(d.ids), "completion_mask": [int(t) for t in d.trained]} for d in documents]
    trainer = SFTTrainer(
        model=lora(folder, "fp32").train(),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            completion_only_loss=True,
            train_sampling_strategy="sequential",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=0,
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    marks, tokens, inner = [], [], trainer.training_step

    def training_step(model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        marks.append((time.perf_counter(), time.process_time()))
        tokens.append(int(inputs["attention_mask"].sum()))
        return inner(model, inputs, *more, **named)

    trainer.training_step = training_step
    trainer.train()
    return {**speeds(marks, tokens), "losses": [x["loss"] for x in trainer.state.log_history if "loss" in x]}


def speeds(marks: list[tuple[float, float]], tokens: list[int]) -> dict[str, float]:
    """`marks` are the wall and CPU clocks at the start of each step; the last step ends now."""
    ends = (time.perf_counter(), time.process_time())
    timed = sum(tokens[WARMUP:])
    return {
        "tokens_per_s": round(timed / (ends[0] - marks[WARMUP][0]), 1),
        "tokens_per_cpu_s": round(timed / (ends[1] - marks[WARMUP][1]), 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measure(arm: str, steps: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--arm", arm, "--steps", str(steps), "--threads", str(threads)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{arm:16} {found['tokens_per_s']:8} tokens/s, {found['tokens_per_cpu_s']} a CPU-second", file=sys.stderr)
    return found


def compare(rounds: int, steps: int, threads: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in ARMS:
            runs[arm].append(measure(arm, steps, threads))
    middle = {
        arm: {key: statistics.median(r[key] for r in of) for key in ("tokens_per_s", "tokens_per_cpu_s", "peak_mib")}
        for arm, of in runs.items()
    }

    def ratio(a: str, b: str, key: str = "tokens_per_s") -> float:
        return round(middle[a][key] / middle[b][key], 2)

    exact = zip(runs["tunesmith fp32"][0]["losses"], runs["trl fp32"][0]["losses"], strict=True)
    rounded = zip(runs["tunesmith bf16"][0]["losses"], runs["tunesmith fp32"][0]["losses"], strict=True)
    return {
        "question": "training tokens a second against TRL's SFTTrainer: same rows, model, adapter, batch, order",
        "command": f"python benchmarks/training.py --rounds {rounds} --steps {steps} --threads {threads}",
        "ratios": {
            "bf16 to trl defaults": ratio("tunesmith bf16", "trl defaults"),
            "bf16 to trl best": ratio("tunesmith bf16", "trl best"),
            "fp32 to trl fp32": ratio("tunesmith fp32", "trl fp32"),
            "bf16 to trl defaults, a CPU-second": ratio("tunesmith bf16", "trl defaults", "tokens_per_cpu_s"),
            "fp32 to trl fp32, a CPU-second": ratio("tunesmith fp32", "trl fp32", "tokens_per_cpu_s"),
        },
        "each_round_bf16_to_trl_defaults": [
            round(a["tokens_per_s"] / b["tokens_per_s"], 2)
            for a, b in zip(runs["tunesmith bf16"], runs["trl defaults"], strict=True)
        ],
        "medians": middle,
        "runs": {arm: [{k: v for k, v in r.items() if k != "losses"} for r in of] for arm, of in runs.items()},
        "losses": {arm: [round(x, 4) for x in of[0]["losses"]] for arm, of in runs.items()},
        "largest_loss_difference": {
            "fp32 and trl fp32": round(max(abs(a - b) for a, b in exact), 6),
            "bf16 and fp32": round(max(abs(a - b) for a, b in rounded), 4),
        },
        "trl_settings": {"defaults": "bf16 autocast, activation checkpointing", "best": BEST_OF},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {processor()}",
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")}
        | {"python": platform.python_version()},
    }


def processor() -> str:
    """The CPU's name and its matrix units, which decide what bf16 is worth."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8").splitlines()
    name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown")
    flags = next((x.split(":", 1)[1].split() for x in lines if x.startswith("flags")), [])
    return ", ".join([name, *(f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm is None:
        result = compare(options.rounds, options.steps, options.threads)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(json.dumps({k: result[k] for k in ("ratios", "largest_loss_difference", "machine")}, indent=2))
        return
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    settings = ARMS[options.arm]
    steps = options.steps + WARMUP
    found = ours(steps, **settings) if options.arm.startswith("tunesmith") else trl(steps, settings)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
