"""How much faster every near-duplicate pair is found than datasketch finds most of them, and how many it misses.

    python benchmarks/near.py [--texts FILE.jsonl --field text] [--rows 5000] [--rounds 3] [--memory 200000]

The same rows, one thread, every way once in each round, one after another in one process; the ratios of the medians
of processor seconds count, since speeds depend on the machine and on what else it does.

exact        word pairs, prefix filter, bitmap filter, verification: every pair at or above the threshold
minhash      the same shingles, 128 minima and bands for candidates, the same verification
datasketch   the same shingles as bytes, MinHash(num_perm=128).update_batch, MinHashLSH, verification by Python sets

Without --texts: made-up texts of 170 words by Zipf's law, half of them edited copies of others. --memory measures
the stages dedup and (without tokenizing) split on as many such rows in a process of their own, and the most
memory they hold. Writes benchmarks/results/near.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"


import numpy as np  # noqa: E402 - after the thread policy

from tunesmith.core.canonical import canonical_json  # noqa: E402
from tunesmith.core.nouns import Example, Message, Row  # noqa: E402
from tunesmith.core.stage import Workspace  # noqa: E402
from tunesmith.data.near.dedup import dedup  # noqa: E402
from tunesmith.data.near.join import Join, pairs  # noqa: E402
from tunesmith.data.near.minhash import minhash_keys  # noqa: E402
from tunesmith.data.near.shingles import shingles  # noqa: E402
from tunesmith.data.near.stages import DedupInputs, DedupSpec  # noqa: E402
from tunesmith.data.near.units import grow, naive_leak, prove  # noqa: E402

ROOT = Path(__file__).parents[1]
GOAL = 15.0  # times datasketch's speed, with at least its recall
Found = set[tuple[int, int]]


def made_up(rows: int, seed: int = 0) -> Iterator[str]:
    """Texts of about 170 words and 1 KB; half of them are copies with up to 40 words changed."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    vocabulary = np.array(["".join(rng.choices("etaoinshrdlucmf", k=rng.randint(2, 9))) for _ in range(50_000)])
    recent: list[list[str]] = []
    for _ in range(rows):
        if recent and rng.random() < 0.5:
            words = list(rng.choice(recent))
            for _ in range(rng.randint(0, 40)):
                words[rng.randrange(len(words))] = str(vocabulary[rng.randrange(50_000)])
        else:
            words = vocabulary[np.minimum(numbers.zipf(1.2, rng.randint(120, 220)), 50_000) - 1].tolist()
        recent = [*recent[-999:], words]
        yield " ".join(words)


def ours(texts: list[str], threshold: float, keys: Callable[..., Any] | None = None) -> Found:
    sets = shingles(texts)
    a, b, _ = pairs(Join(sets, threshold, keys) if keys else Join(sets, threshold))
    return set(zip(a.tolist(), b.tolist(), strict=True))


def theirs(texts: list[str], threshold: float) -> Found:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=threshold, num_perm=128)
    sets: list[set[bytes]] = []
    found: Found = set()
    for i, text in enumerate(texts):
        words = re.findall(r"[^\W_]+", text.casefold())
        mine = {f"{a} {b}".encode() for a, b in itertools.pairwise(words)} or {" ".join(words).encode()}
        minhash = MinHash(num_perm=128)
        minhash.update_batch(mine)
        for j in lsh.query(minhash):
            shared = len(mine & sets[j])
            if shared / (len(mine) + len(sets[j]) - shared) >= threshold:
                found.add((j, i))
        lsh.insert(i, minhash)
        sets.append(mine)
    return found


def compare(texts: list[str], threshold: float, rounds: int) -> dict[str, Any]:
    ways: dict[str, Callable[[], Found]] = {
        "exact": lambda: ours(texts, threshold),
        "minhash": lambda: ours(texts, threshold, minhash_keys),
        "datasketch": lambda: theirs(texts, threshold),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Found] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            found[name] = way()
            seconds[name].append(time.process_time() - start)
            print(f"  {name:10} {seconds[name][-1]:7.2f} s  {len(found[name]):,} pairs", file=sys.stderr)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    everything = set.union(*found.values())
    return {
        "rows": len(texts),
        "characters": round(statistics.mean(map(len, texts)), 1),
        "threshold": threshold,
        "seconds": {name: [round(s, 3) for s in taken] for name, taken in seconds.items()},
        "pairs": {name: len(f) for name, f in found.items()},
        "recall": {name: round(len(f) / max(len(everything), 1), 4) for name, f in found.items()},
        "times_faster_than_datasketch": {n: round(medians["datasketch"] / s, 2) for n, s in medians.items()},
        "goal": GOAL,
        "met": medians["datasketch"] / medians["exact"] >= GOAL and found["datasketch"] <= found["exact"],
    }


def stages(rows: int) -> dict[str, Any]:
    """Dedup, and what prepare does about near-duplicates, on made-up rows: seconds, and the most memory held."""
    out: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as name:
        examples = Path(name) / "examples"
        examples.mkdir()
        with open(examples / "rows.jsonl", "wb") as f:
            for i, text in enumerate(made_up(rows), start=1):
                example = Example(messages=(Message(role="user", content=text),), target="ab"[i % 2])
                row = Row(id=example.id, messages=example.messages, target=example.target, file="r", line=i, group=example.id)  # fmt: skip
                f.write(canonical_json(row) + b"\n")
        (examples / "left_out.jsonl").write_bytes(b"")
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        spec = DedupSpec(
            kind="instruct", near=0.8, across=True, keep="first", newest_by=None, templates=True,
            contradictions="review", candidates="exact", against=0.8, semantic=0.0, restored=(),
        )  # fmt: skip
        start = time.process_time()
        made = dedup(spec, DedupInputs(examples=examples), Workspace(root=Path(name) / "work")).examples
        out["dedup"] = {"seconds": round(time.process_time() - start, 1), "mib": _peak(), "base_mib": base}
        out["left_out"] = json.loads((made / "dedup.json").read_bytes())["left_out"]
    start = time.process_time()
    sets = shingles(made_up(rows))
    out["split_shingles_seconds"] = round(time.process_time() - start, 1)
    start = time.process_time()
    join = Join(sets, 0.8)
    grown = grow(join, np.arange(rows), np.full(rows, -1), is_row=np.ones(rows, bool), limit=0.05 * rows)
    code = np.random.default_rng(0).choice(3, rows, p=[0.8, 0.1, 0.1])
    leak = naive_leak(join, code)
    del join
    prove(sets, np.arange(rows), code[grown.unit], 0.8)
    out["split"] = {"seconds": round(time.process_time() - start, 1), "mib": _peak(), "components": grown.components}
    out["naive_leak"] = round(len(leak.twins) / max(leak.test_rows, 1), 4)
    return out


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--field", default="text")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--stages", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stages:
        print(json.dumps(stages(asked.stages)))
        return
    cases: dict[str, list[str]] = {"made_up": list(made_up(asked.rows))}
    if asked.texts:
        lines = asked.texts.read_text("utf-8").splitlines()
        step = max(1, len(lines) // asked.rows)
        at = [i + k for i in range(0, len(lines), 10 * step) for k in range(10)]  # runs of ten: copies lie together
        cases[asked.texts.stem] = [json.loads(lines[i])[asked.field] for i in at if i < len(lines)]
    result: dict[str, Any] = {
        "versions": {name: version(name) for name in ("numpy", "datasketch")} | {"python": platform.python_version()},
        "cases": {},
    }
    for name, texts in cases.items():
        print(f"{name}: {len(texts):,} rows", file=sys.stderr)
        result["cases"][name] = compare(texts, asked.threshold, asked.rounds)
    if asked.memory:
        command = [sys.executable, __file__, "--stages", str(asked.memory)]
        result["stages"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    path = ROOT / "benchmarks" / "results" / "near.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
