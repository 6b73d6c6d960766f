"""What `tunesmith` costs before it does anything, beside a bare Python.

    python benchmarks/startup.py [--repeats 21]

Writes benchmarks/results/startup.json. Processes of the compared kinds take turns, so that a busy
moment of the machine meets all of them; a time is the median, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import write_atomic
from tunesmith.ledger.environment import environment

RESULT = Path(__file__).parent / "results" / "startup.json"
LIMIT_MS = 150  # of `--help` over bare Python
PROJECT = "task: {kind: classify, text: text, label: label}\ndata: {files: [rows.csv]}\n"


def commands(folder: Path) -> dict[str, list[str]]:
    run = [sys.executable, "-c", "from tunesmith.cli import main; main()"]
    return {
        "bare_python": [sys.executable, "-c", "pass"],
        "import_tunesmith": [sys.executable, "-c", "import tunesmith"],
        "help": [*run, "--help"],
        "train_help": [*run, "train", "--help"],
        "config": [*run, "config", "--project", str(folder)],
        "runs": [*run, "runs", "--project", str(folder)],
    }


def measure(repeats: int) -> dict[str, list[float]]:
    """Milliseconds by command; the first round warms the caches and is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tunesmith.yaml").write_text(PROJECT)
        (folder / "rows.csv").write_text("text,label\n")
        taken: dict[str, list[float]] = {key: [] for key in commands(folder)}
        for turn in range(repeats + 1):
            for key, command in commands(folder).items():
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                if turn:
                    taken[key].append((time.perf_counter() - start) * 1000)
    return taken


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=21)
    repeats = arguments.parse_args().repeats
    taken = measure(repeats)
    bare = taken["bare_python"]
    told = environment()
    result: dict[str, Any] = {
        "command": f"python benchmarks/startup.py --repeats {repeats}",
        "question": "does --help cost less than 0.15 s over bare Python?",
        "answer": False,
        "machine": {
            **{k: told[k] for k in ("cpu", "cores", "memory_bytes", "system")},
            "load_average": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("tunesmith", "click", "pydantic")},
        },
        "median_ms": {key: round(statistics.median(ms), 1) for key, ms in taken.items()},
        "over_bare_python_ms": {
            key: round(statistics.median(a - b for a, b in zip(ms, bare, strict=True)), 1)
            for key, ms in taken.items()
            if key != "bare_python"
        },
        "repeats": repeats,
        "limit_ms": LIMIT_MS,
    }
    result["answer"] = result["over_bare_python_ms"]["help"] < LIMIT_MS
    write_atomic(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
