"""Peak memory of a training step under each setting that saves some, on SmolLM2-135M-Instruct and a CPU.

    python benchmarks/memory.py [--only lora]

A small optimizer step, then one of made-up examples of 256 tokens, half of them trained, all in one micro-batch. Each
measurement is a process of its own and its peak the resident memory the kernel counted, the program itself included.
"stepping" arms are of an optimizer alone: what its second step of these embeddings takes besides, in bytes a number, which
the planner counts (`passing` in train/optimizers/names.py). Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
RESULT = Path(__file__).resolve().parent / "results" / "memory.json"
FULL = {"method": "full", "at_once": 1}
LORA = {"method": "lora", "at_once": 1}
ARMS: dict[str, dict[str, Any]] = {
    "full, 4 at once": FULL | {"at_once": 4},
    "full, 1 at once": FULL,
    "full, 1 at once, adafactor": FULL | {"optimizer": "adafactor"},
    "lora, 1 at once": LORA,
    "qlora, 1 at once, bf16": LORA | {"method": "qlora", "precision": "bf16"},
    "full, 4 at once, checkpointing": FULL | {"at_once": 4, "checkpointing": True},
    "full, 1 at once, adamw_8bit": FULL | {"optimizer": "adamw_8bit"},
    "lora, 4 at once": LORA | {"at_once": 4},
    "lora, 1 at once, bf16": LORA | {"precision": "bf16"},
    "full, 4 at once, selective checkpointing": FULL | {"at_once": 4, "checkpointing": "selective"},
    "full, 1 at once, bf16 weights, stochastic": FULL
    | {"precision": "bf16", "weights": "bf16", "master": "stochastic"},
    "full, 4 at once, 128 tokens": FULL | {"at_once": 4, "length": 128},
} | {f"stepping, {name}": {"stepping": name} for name in ("adamw", "adafactor", "lion", "schedule_free", "adamw_8bit")}
EMBEDDINGS = (49152, 576)  # SmolLM2-135M's


def stepping(name: str) -> dict[str, float]:
    import torch

    from tunesmith.train.cost import machine
    from tunesmith.train.optimizers.catalog import make

    weight = torch.nn.Parameter(torch.randn(EMBEDDINGS))
    weight.grad = torch.randn(EMBEDDINGS)
    optimizer = make(name, {"model.embed_tokens.weight": weight}, weight_decay=0.01)
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    optimizer.step()  # after it, the optimizer remembers
    machine.forget_peak()
    before = machine.resident_bytes()
    optimizer.step()
    return {"bytes_each": round((machine.peak_mib() * machine.MIB - before) / weight.numel(), 1)}


def one(a: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    import gpu
    from tunesmith.core.stage import Exec
    from tunesmith.model.catalog import find
    from tunesmith.train import optim
    from tunesmith.train.learner import accumulate, at_start

    folder = find("smollm2-135m-instruct").folder
    batch = gpu.documents(a["at_once"], a.get("length", 256), 49152)
    spec = replace(
        gpu.spec_of(a["method"], a.get("precision", "fp32")),
        optimizer=a.get("optimizer", "adamw"),
        weights=a.get("weights", "fp32"),
        master=a.get("master", "fp32"),
    )
    exec = Exec(device="cpu", gradient_checkpointing=a.get("checkpointing", False))
    learner = at_start(spec, folder, batch, exec)
    parameters, optimizer, forward = learner.parameters, learner.optimizer, learner.forward
    for step, few in enumerate((gpu.documents(1, 16, 49152), batch)):  # after the first, the optimizer remembers
        accumulate(forward, few, step, 1 << 20)
        optim.clip(parameters.values(), 1.0)
        optim.apply(optimizer, lr=1e-5)
    return {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "path": forward.path}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one")
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    a = parser.parse_args()
    if a.one:
        arm = json.loads(a.one)
        print(json.dumps(stepping(arm["stepping"]) if "stepping" in arm else one(arm)))
        return
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name, arm in ARMS.items():
        if a.only not in name or (not a.again and name in found):
            continue
        command = [sys.executable, __file__, "--one", json.dumps(arm)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        last = (done.stderr.strip().splitlines() or ["?"])[-1][:300]
        if RESULT.exists():  # others may be measuring too
            found |= json.loads(RESULT.read_text())
        found[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": last}
        print(f"{name:45} {found[name]}", flush=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
