"""Why bf16 LoRA starts a step late in PEFT and TRL, and whether that matters later.

    python benchmarks/bf16_lag.py [--steps 10] [--layers 0]

One PEFT model, the same rows and order (the demo's, batches of 4), the plain forward in fp32; only how a LoRA layer
adds up differs:

    fp32    W x + s B A x, nothing rounded
    apart   bf16(bf16(W x) + bf16(s B bf16(A x))): the base product is rounded before the update is added, as PEFT does
    once    bf16(W x + (s B) bf16(A x)): one product, rounded once, as model/flat_weights.py does

Products of numbers that bf16 holds, summed in fp32 and rounded at the end, are what matrix units compute; so the
experiment needs none and isolates the one cause. Gradients pass the rounding unchanged. `--layers N` keeps the first N
layers alone, so that hundreds of steps are affordable: another model, trained just the same. Writes
benchmarks/results/bf16_lag.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import torch
from training_arms import wrapped
from training_data import ROOT, documents, folder_of

RESULT = ROOT / "benchmarks" / "results" / "bf16_lag.json"
BATCH, RATE = 4, 2e-4


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x + (x.detach().bfloat16().float() - x.detach())


def patched(layer: Any, way: str) -> Any:
    base, a, b, scale = layer.base_layer, layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"]
    base.weight.data = base.weight.data.bfloat16().float() if way != "fp32" else base.weight.data

    def forward(x: torch.Tensor) -> torch.Tensor:
        if way == "fp32":
            return base(x) + scale * b(a(x))
        x = rounded(x)
        inner = rounded(x @ rounded(a.weight).T)
        if way == "apart":
            return rounded(rounded(base(x)) + rounded(scale * (inner @ rounded(b.weight).T)))
        return rounded(base(x) + inner @ rounded(scale * b.weight).T)

    return forward


def losses(way: str, steps: int, layers: int) -> list[float]:
    from tunesmith.model.methods import catalog as methods
    from tunesmith.train import optim
    from tunesmith.train.forward import PlainForward
    from tunesmith.train.learner import accumulate

    folder = folder_of("real")
    rows = documents("cls", folder, steps * BATCH)
    model = wrapped(folder, "lora", 16, "fp32")
    inner = model.get_base_model().model
    if layers:
        inner.layers = inner.layers[:layers]
    for m in model.modules():
        if hasattr(m, "lora_A"):
            m.forward = patched(m, way)
    parameters = methods.trainable_parameters(model)
    optimizer = optim.adamw(parameters, weight_decay=0.0)
    forward = PlainForward(model, precision="fp32", autocast=False, seed=0)
    found = []
    for step in range(steps):
        found.append(accumulate(forward, rows[step * BATCH : (step + 1) * BATCH], step, 8192))
        optim.clip(parameters.values(), 1.0)
        optim.apply(optimizer, lr=RATE)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--layers", type=int, default=0, help="0: all")
    options = parser.parse_args()
    book = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    of = {way: losses(way, options.steps, options.layers) for way in ("fp32", "apart", "once")}
    away = {w: [abs(a - b) for a, b in zip(of[w], of["fp32"], strict=True)] for w in ("apart", "once")}
    last = max(1, options.steps // 5)
    part = f"{options.steps} steps, {options.layers or 'all'} layers"
    book[part] = {
        "losses": {w: [round(x, 4) for x in xs] for w, xs in of.items()},
        "largest difference from fp32 in the first ten steps": {w: round(max(x[:10]), 4) for w, x in away.items()},
        f"mean loss of the last {last} steps": {w: round(statistics.mean(x[-last:]), 4) for w, x in of.items()},
        f"mean difference from fp32 over the last {last} steps": {
            w: round(statistics.mean(x[-last:]), 4) for w, x in away.items()
        },
    }
    RESULT.write_text(json.dumps(book, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(book[part], indent=1))


if __name__ == "__main__":
    main()
