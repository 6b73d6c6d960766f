"""Training tokens a second, against TRL's SFTTrainer on the same rows, model, adapter, batch and order.

    python benchmarks/training.py --cases cls,summ,clsl,chat --methods lora --rounds 5
    python benchmarks/training.py --cases cls,summ --methods full,qlora --rounds 5
    python benchmarks/training.py --losses
    python benchmarks/training.py --growth
    python benchmarks/training.py --models gpt2,opt --cases cls --methods lora

SmolLM2-135M-Instruct (or random weights of GPT-2's and OPT's shape, which take the plain path); LoRA of rank 16 on all
linear layers at 2e-4, or all weights at 2e-5; AdamW, clipping at 1; training_data.py says what the cases are. Each
measurement is a process of its own; the arms take turns within a round, so what else the machine does meets all of
them. bf16 arms run only where the machine multiplies bf16 faster than fp32, unless --arms names them. Every
measurement is written at once to benchmarks/results/training.json, and a part that is run again replaces itself alone.
On a busy machine read `cpu`, ratios of processor time with --threads 1; on an idle one `wall`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training_data import CASES, OTHERS, ROOT

RESULT = ROOT / "benchmarks" / "results" / "training.json"
FAST = 1.3  # bf16 products must be so many times faster than fp32 ones for its arms to run
BF16 = ("tunesmith bf16", "tunesmith fp32", "trl default", "trl best", "trl fp32")
FP32 = ("tunesmith fp32", "trl fp32 checkpointing", "trl fp32")
LOSS_ARMS = ("tunesmith fp32", "trl fp32", "tunesmith bf16", "trl best")
LOSS_STEPS, LOSS_BATCH = 10, 4
GOALS = {  # least times TRL's default and best
    ("cls", "lora"): 3.5,
    ("summ", "lora"): 3.5,
    ("clsl", "lora"): 8.0,
    ("cls", "full"): 2.0,
    ("summ", "full"): 2.0,
    ("cls", "qlora"): 1.5,
    ("summ", "qlora"): 1.5,
}
PLAIN_GOAL = 1.3  # of architectures that take the plain path
LENGTHS, BATCHES, RANKS = (64, 128, 256, 512, 1024), (2, 8, 32), (4, 16, 64)


def child(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    given = {k: getattr(options, k) for k in ("steps", "threads", "rank", "batch", "micro_tokens")} | changes
    command = [sys.executable, __file__]
    for key, value in given.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{changes} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "tokens_per_s" in found:
        words = " ".join(str(v) for v in changes.values())
        print(
            f"{words:42} {found['tokens_per_s']:8} tokens/s, {found['tokens_per_cpu_s']} a CPU-second, "
            f"{found['peak_mib']} MiB {found.get('path', '')}",
            file=sys.stderr,
        )
    return found


class Book:
    """results/training.json, rewritten after every measurement."""

    def __init__(self) -> None:
        self.all: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        if "parts" not in self.all:
            self.all = {"parts": {}}

    def write(self, part: str, content: dict[str, Any]) -> None:
        content["load_average"] = [round(x, 1) for x in os.getloadavg()]
        self.all["question"] = "training tokens a second against TRL's SFTTrainer: same rows, model, batch, order"
        self.all["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, {processor()}"
        self.all["versions"] = {n: version(n) for n in ("torch", "transformers", "peft", "trl", "bitsandbytes")}
        self.all["parts"][part] = content
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(self.all, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compare(options: argparse.Namespace, book: Book, model: str, case: str, method: str, peak: dict[str, Any]) -> None:
    """Rounds of all arms on one case."""
    arms = options.arms.split(",") if options.arms else (BF16 if fast_bf16(peak) else FP32)
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    part = case + ("" if model == "real" else f" {model}") + f" {method}"
    content: dict[str, Any] = {
        "command": f"--cases {case} --methods {method} --models {model} --rounds {options.rounds} "
        f"--steps {options.steps} --threads {options.threads} --batch {options.batch} --rank {options.rank}",
        "matmul_peak": peak,
        "runs": runs,
    }
    for _ in range(options.rounds):
        for arm in arms:
            runs[arm].append(child(options, arm=arm, case=case, models=model, methods=method))
            if all(runs.values()):
                content["summary"] = summary(runs, peak, GOALS.get((case, method)) if model == "real" else PLAIN_GOAL)
            book.write(part, content)
    print(json.dumps({part: content["summary"]}, indent=1))


def summary(runs: dict[str, list[dict[str, Any]]], peak: dict[str, Any], goal: float | None) -> dict[str, Any]:
    middle = {
        arm: {k: statistics.median(r[k] for r in of) for k in ("tokens_per_s", "tokens_per_cpu_s", "peak_mib")}
        for arm, of in runs.items()
    }
    own = [a for a in runs if a.startswith("tunesmith")]
    found: dict[str, Any] = {"medians": middle, "wall": {}, "cpu": {}, "memory": {}, "matmul_peak_share": {}}
    for mine in own:
        for peer in (a for a in runs if not a.startswith("tunesmith")):
            pairs = list(zip(runs[mine], runs[peer], strict=False))
            for key, clock in (("wall", "tokens_per_s"), ("cpu", "tokens_per_cpu_s")):
                each = [a[clock] / b[clock] for a, b in pairs]
                found[key][f"{mine} / {peer}"] = round(statistics.median(each), 2)
            found["memory"][f"{mine} / {peer}"] = round(middle[mine]["peak_mib"] / middle[peer]["peak_mib"], 2)
        if "gflop_per_s" in runs[mine][0]:
            dtype = "bfloat16" if mine.endswith("bf16") else "float32"
            found["matmul_peak_share"][mine] = {
                clock: round(statistics.median(r[name] for r in runs[mine]) / peak[dtype][name], 3)
                for clock, name in (("wall", "gflop_per_s"), ("cpu", "gflop_per_cpu_s"))
            }
    if goal:
        found["goal"] = goal
    found["largest_loss_difference"] = differences({arm: of[0]["losses"] for arm, of in runs.items()})
    return found


def differences(losses: dict[str, list[float]]) -> dict[str, float]:
    pairs = (("tunesmith fp32", "trl fp32"), ("tunesmith bf16", "tunesmith fp32"), ("trl best", "trl fp32"))
    return {
        f"{a}, {b}": round(max(abs(x - y) for x, y in zip(losses[a], losses[b], strict=True)), 6)
        for a, b in pairs
        if a in losses and b in losses
    }


def trajectories(options: argparse.Namespace, book: Book, case: str, method: str) -> None:
    """Ten steps: fp32 is TRL's fp32, and bf16 follows it without being a step behind. Fails otherwise."""
    options.steps, options.batch = LOSS_STEPS - 1, LOSS_BATCH  # one more warms up, and counts here
    losses = {a: child(options, arm=a, case=case, models="real", methods=method)["losses"] for a in LOSS_ARMS}
    problems = faults(losses)
    found = {"losses": losses, "largest_difference": differences(losses), "problems": problems}
    book.write(f"losses {case} {method}", found)
    print(json.dumps({f"losses {case} {method}": found}, indent=1))
    if problems:
        raise SystemExit("\n".join(problems))


def faults(losses: dict[str, list[float]]) -> list[str]:
    exact, rounded = losses["tunesmith fp32"], losses["tunesmith bf16"]
    found = []
    for step, (a, b) in enumerate(zip(exact, losses["trl fp32"], strict=True), 1):
        if abs(a - b) > 1e-3:
            found.append(f"step {step}: fp32 {a:.4f}, TRL's fp32 {b:.4f}")
    for step, (a, b) in enumerate(zip(exact, rounded, strict=True), 1):
        if abs(a - b) > 0.06:
            found.append(f"step {step}: fp32 {a:.4f}, bf16 {b:.4f}")
    return found


def growth(options: argparse.Namespace, book: Book, peak: dict[str, Any]) -> None:
    """How the speed of both changes with the rows' length, the batch, the adapter's rank, and the number of rows."""
    pair = ("tunesmith bf16", "trl best") if fast_bf16(peak) else ("tunesmith fp32", "trl fp32")
    found: dict[str, Any] = {"length, batch 4": {}, "batch, 64 tokens": {}, "rank, 4 x 128 tokens": {}}

    def measure(group: str, at: int, case: str, **changes: int) -> None:
        of = {arm: child(options, arm=arm, case=case, models="real", methods="lora", **changes) for arm in pair}
        found[group][str(at)] = {
            arm: {k: v for k, v in r.items() if k not in ("losses", "why")} for arm, r in of.items()
        }
        book.write("growth", found)

    for length in LENGTHS:
        measure("length, batch 4", length, f"len:{length}", batch=4)
    for batch in BATCHES:
        measure("batch, 64 tokens", batch, "len:64", batch=batch)
    for rank in RANKS:
        measure("rank, 4 x 128 tokens", rank, "len:128", batch=4, rank=rank)
    found["rows: CPU-milliseconds a row before the first step"] = child(options, arm="rows")
    book.write("growth", found)
    print(json.dumps({"growth": found}, indent=1))


def fast_bf16(peak: dict[str, Any]) -> bool:
    return bool(peak["bfloat16"]["gflop_per_cpu_s"] >= FAST * peak["float32"]["gflop_per_cpu_s"])


def processor() -> str:
    """The CPU's name and its matrix units, which decide what bf16 is worth."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8").splitlines()
    name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown")
    flags = next((x.split(":", 1)[1].split() for x in lines if x.startswith("flags")), [])
    return ", ".join([name, *(f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags)])


def one_arm(options: argparse.Namespace) -> dict[str, Any]:
    """In the child."""
    import torch
    import training_arms as arms

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.arm == "peak":
        return arms.peak()
    if options.arm == "rows":
        return arms.rows_cost()
    batch = options.batch or CASES.get(options.case, 4)
    given = {"steps": options.steps + arms.WARMUP, "batch": batch, "rank": options.rank}
    settings = arms.ARMS[options.arm]
    if options.arm.startswith("tunesmith"):
        own = {"micro_tokens": options.micro_tokens, **settings, **given}
        return arms.ours(options.case, options.models, options.methods, **own)
    return arms.trl(options.case, options.models, options.methods, settings, **given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="cls", help=f"of {', '.join(CASES)}")
    parser.add_argument("--methods", default="lora", help="of lora, dora, full, qlora, int8")
    parser.add_argument("--models", default="real", help=f"real, {', '.join(OTHERS)}")
    parser.add_argument("--arms", default="", help="in place of those that suit the machine, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed ones; one more warms up")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--batch", type=int, default=0, help="0: the case's own")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--micro-tokens", type=int, default=8192)
    parser.add_argument("--losses", action="store_true", help="ten steps of each precision, and fail where they part")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm is not None:
        print(json.dumps(one_arm(options)))
        return
    book = Book()
    cases, methods = options.cases.split(","), options.methods.split(",")
    if options.losses:
        for method in methods:
            for case in cases:
                trajectories(options, book, case, method)
        return
    if options.growth:
        growth(options, book, child(options, arm="peak"))
        return
    for model in options.models.split(","):
        for method in methods:
            for case in cases:
                compare(options, book, model, case, method, child(options, arm="peak"))


if __name__ == "__main__":
    main()
