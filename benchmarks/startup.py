"""What `tunesmith` costs before it does anything, beside a bare Python.

    python benchmarks/startup.py [--repeats 21]

Writes benchmarks/results/startup.json. Processes of the compared kinds take turns, so that a busy
moment of the machine meets all of them; times are in milliseconds. The question is answered by the
fastest of each, which a busy machine disturbs least; processor time, user and system, stands beside.
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
from collections.abc import Callable
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


def processor_ms() -> float:
    """Spent so far by all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def measure(repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of wall and of processor by command; the first round warms the caches and is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tunesmith.yaml").write_text(PROJECT)
        (folder / "rows.csv").write_text("text,label\n")
        wall: dict[str, list[float]] = {key: [] for key in commands(folder)}
        busy: dict[str, list[float]] = {key: [] for key in commands(folder)}
        for turn in range(repeats + 1):
            for key, command in commands(folder).items():
                start, used = time.perf_counter(), processor_ms()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                if turn:
                    wall[key].append((time.perf_counter() - start) * 1000)
                    busy[key].append(processor_ms() - used)
    return wall, busy


def over(taken: dict[str, list[float]], typical: Callable[[list[float]], float]) -> dict[str, float]:
    bare = typical(taken["bare_python"])
    return {key: round(typical(ms) - bare, 1) for key, ms in taken.items() if key != "bare_python"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=21)
    repeats = arguments.parse_args().repeats
    wall, busy = measure(repeats)
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
        "median_ms": {key: round(statistics.median(ms), 1) for key, ms in wall.items()},
        "median_over_bare_python_ms": over(wall, statistics.median),
        "fastest_over_bare_python_ms": over(wall, min),
        "processor_over_bare_python_ms": over(busy, statistics.median),
        "repeats": repeats,
        "limit_ms": LIMIT_MS,
    }
    result["answer"] = result["fastest_over_bare_python_ms"]["help"] < LIMIT_MS
    write_atomic(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
