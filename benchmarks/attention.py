"""Attention of one long document, forward and backward: in blocks of queries, whole, and by torch's fused kernel.

    python benchmarks/attention.py [--tokens 128,395,512,1024] [--rounds 6]

SmolLM2-135M's heads (9 over 3 key heads, 64 wide) in fp32 and one thread, in milliseconds of the processor: the ways take
turns, and of each the best round and the median are kept. "whole" is one block of all queries; "made again" is what
documents of more than KEPT_KEYS keys take. Writes benchmarks/results/attention.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from tunesmith.model import flat_attention
from tunesmith.model.flat_layout import Document, pack

RESULT = Path(__file__).resolve().parent / "results" / "attention.json"
HEADS, KEY_HEADS, SIZE = 9, 3, 64
BLOCKS = (32, 48, 64, 96, 128, 256)
WHOLE = 1 << 30
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def ours(inputs: Inputs, tokens: int, block: int, keys: int) -> None:
    flat_attention.BLOCK, flat_attention.KEPT_KEYS = block, keys
    packed = pack([Document(ids=tuple(range(tokens)), trained=(False,) * (tokens - 1) + (True,))])
    q, k, v, grad = inputs
    _, saved = flat_attention.attend(q, k, v, packed)
    flat_attention.attend_backward(grad, packed, saved, *(torch.empty_like(x) for x in (q, k, v)))


def fused(inputs: Inputs, tokens: int) -> None:
    q, k, v, grad = (x[:tokens].transpose(0, 1)[None] for x in inputs)
    learned = [x.detach().requires_grad_() for x in (q, k, v)]
    out = F.scaled_dot_product_attention(learned[0], *(_repeated(x) for x in learned[1:]), is_causal=True)
    torch.autograd.grad(out, learned, grad)


def _repeated(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(HEADS // KEY_HEADS, 1)


def ways(inputs: Inputs, tokens: int) -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {
        "whole": lambda: ours(inputs, tokens, WHOLE, WHOLE),
        "torch": lambda: fused(inputs, tokens),
        "64, made again": lambda: ours(inputs, tokens, 64, 0),
    }
    for block in BLOCKS:
        found[str(block)] = lambda block=block: ours(inputs, tokens, block, WHOLE)  # type: ignore[misc]
    return found


def measured(tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    rows = tokens + -tokens % 32  # as pack rounds them
    inputs = tuple(torch.randn(rows, n, SIZE) for n in (HEADS, KEY_HEADS, KEY_HEADS, HEADS))
    times: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # one warms up
        for name, way in ways(inputs, tokens).items():  # type: ignore[arg-type]
            began = time.process_time()
            way()
            times.setdefault(name, []).append(1e3 * (time.process_time() - began))
    return {
        name: {"best_ms": round(min(t[1:]), 2), "median_ms": round(statistics.median(t[1:]), 2)}
        for name, t in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="128,395,512,1024")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {n: measured(int(n), options.rounds) for n in options.tokens.split(",")}
    names = list(next(iter(found.values())))
    print("tokens", *names, sep=" | ")
    for tokens, row in found.items():
        print(tokens, *(f"{row[n]['best_ms']:.1f} ({row[n]['median_ms']:.1f})" for n in names), sep=" | ")
    facts = {
        "question": "milliseconds of the processor for attention of one document, forward and backward",
        "command": f"python benchmarks/attention.py --tokens {options.tokens} --rounds {options.rounds}",
        "machine": f"{os.cpu_count()} cores, 1 used, {platform.machine()}, torch {torch.__version__}",
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "tokens": found,
    }
    RESULT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
