"""Peak memory and time of real trainings on a CPU under other allocators than glibc's, each put before it by LD_PRELOAD.

    apt-get install libtcmalloc-minimal4 libmimalloc2.0 libjemalloc2
    python benchmarks/allocators.py [--cases 'lora*'] [--steps 3]

Cases are those of planner.py, made-up rows on SmolLM2-135M-Instruct; each run is a process of its own, the allocators take
turns, and times are of the processor. Use one thread (OMP_NUM_THREADS=1). Writes benchmarks/results/allocators.json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import planner

RESULT = Path(__file__).resolve().parent / "results" / "allocators.json"
PLANNER = Path(__file__).resolve().parent / "planner.py"
LIBRARIES = {"tcmalloc": "libtcmalloc_minimal.so.*", "mimalloc": "libmimalloc.so.*", "jemalloc": "libjemalloc.so.*"}
CASES: tuple[planner.Case, ...] = (
    ("lora checkpointed", 384, 1),
    ("lora", 384, 1),
    ("lora", 128, 4),
    ("full", 128, 4),
    ("full checkpointed", 384, 1),
    ("full bf16 weights", 128, 1),
)


def allocators() -> dict[str, str]:
    """Name to the library's path; glibc's own needs none."""
    found = {"glibc": ""}
    for name, pattern in LIBRARIES.items():
        paths = sorted(p for folder in Path("/usr/lib").glob("*-linux-gnu") for p in folder.glob(pattern))
        if paths:
            found[name] = str(paths[0])
        else:
            print(f"{name} is not installed ({pattern}) and is left out", file=sys.stderr)
    return found


def measured(case: planner.Case, library: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        planner.dataset(Path(scratch) / "dataset", case, steps)
        command = [sys.executable, str(PLANNER), "--child", "whole", *(str(x) for x in case), scratch]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LD_PRELOAD": library})
    if done.returncode:
        raise SystemExit(f"{planner.name_of(case)}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return {"peak_mib": said["peak_mib"], "seconds": round(said["seconds"], 1), "path": said["path"].split(":")[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="*", metavar="PATTERN")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    libraries = allocators()
    rows: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
    for case in CASES:
        name = planner.name_of(case)
        if fnmatch.fnmatchcase(name, options.cases):
            rows[name] = {a: measured(case, path, options.steps) for a, path in libraries.items()}
            print(name, json.dumps(rows[name]), flush=True)
    facts = {
        "question": "peak memory and seconds of the processor of trainings, by the allocator that holds the heap",
        "command": f"python benchmarks/allocators.py --steps {options.steps}",
        "libraries": {n: Path(p).name for n, p in libraries.items()},
        "machine": f"{os.cpu_count()} cores, 1 used, {' '.join(platform.libc_ver())}, {platform.machine()}",
        "rows": rows,
    }
    RESULT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
