"""How fast the ledger answers with 10,000 artifacts in it.

    python benchmarks/ledger.py [--artifacts 10000]

Writes benchmarks/results/ledger.json. The history is a real one as far as the ledger can tell: every
artifact is a file in the store, every one but the source was written by a run that read the one
before, and every run carries the environment it would carry in a project. A timing is the median of
seven; `runs` is timed in a fresh process too, as a person at a prompt meets it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id, write_atomic
from tunesmith.core.nouns import Artifact, Run
from tunesmith.ledger.backup import backup
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.environment import environment
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.lineage import lineage
from tunesmith.ledger.records import now, run_fact, run_id

RESULT = Path(__file__).parent / "results" / "ledger.json"
REPEATS = 7
CHAIN = 7  # runs from a source to a bundle
PAGE = 50  # rows a screen of `tunesmith runs` shows
FRESH = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from tunesmith.ledger.ledger import Ledger
imported = time.perf_counter()
with Ledger.open(Path(sys.argv[1])) as ledger:
    runs = ledger.runs(limit=int(sys.argv[2]))
print(time.perf_counter() - imported)
"""


def fill(ledger: Ledger, folder: Path, artifacts: int) -> list[Run]:
    """Chains of CHAIN runs, each from a source of its own."""
    made: list[Run] = []
    before = ""
    for n in range(artifacts):
        (folder / "file.txt").write_text(f"content {n}\n" * 20, encoding="utf-8")
        if n % (CHAIN + 1) == 0:
            before = ledger.add_files("source", {"file.txt": folder / "file.txt"}, move=False).id
            continue
        with ledger.objects.session() as session:
            artifact = ledger.store(session, "dataset", {"file.txt": folder / "file.txt"}, move=True)
            run = a_run(n, before, artifact)
            ledger.append_new([artifact], run_fact(run))
        made.append(run)
        before = artifact.id
    return made


def a_run(n: int, source: str, output: Artifact) -> Run:
    spec = {"lr": 1e-3, "epochs": 1.0, "global_batch": 16, "method": {"kind": "lora", "rank": 16}, "seed": n}
    run = Run(
        id="",
        key=content_id({"spec": spec, "source": source}),
        stage=("check", "prepare", "sft", "answer", "evaluate", "gate", "bundle")[n % 7],
        version=1,
        spec=spec,
        inputs={"source": source},
        outputs={"dataset": output.id},
        status="finished",
        started=now(),
        seconds=1.0,
        metrics={"loss": 0.5, "rows": n},
        environment={**environment(), "seed": n, "resumed": False},
    )
    return replace(run, id=run_id(run))


def median_seconds(action: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 5)


def fresh_seconds(state: Path, limit: int) -> float:
    """Opening the ledger and listing, in a new process; imports not counted."""
    command = [sys.executable, "-c", FRESH, str(state), str(limit)]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(REPEATS)]
    return round(statistics.median(times), 5)


def once(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return round(time.perf_counter() - started, 3), result


def measure(artifacts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / ".tunesmith"
        with Ledger.open(state) as ledger:
            filled, runs = once(lambda: fill(ledger, folder, artifacts))
            last = runs[-1]
            seconds: dict[str, float] = {
                "runs_first_page": median_seconds(lambda: ledger.runs(limit=PAGE)),
                "runs_last_page": median_seconds(lambda: ledger.runs(limit=PAGE, before=runs[PAGE].id)),
                "runs_of_one_stage_first_page": median_seconds(lambda: ledger.runs(stage="sft", limit=PAGE)),
                "runs_all": median_seconds(ledger.runs),
                "runs_first_page_fresh_process": fresh_seconds(state, PAGE),
                "runs_all_fresh_process": fresh_seconds(state, -1),
                "run_by_prefix": median_seconds(lambda: ledger.run(last.id[:10])),
                "finished": median_seconds(lambda: ledger.finished(last.key)),
                "path": median_seconds(lambda: ledger.path(last.outputs["dataset"])),
                "lineage": median_seconds(lambda: lineage(ledger, last.outputs["dataset"])),
                "note": median_seconds(lambda: ledger.note("n", {"n": 1})),
            }
            seconds["doctor"], health = once(lambda: doctor(ledger))
            seconds["backup"], copy = once(lambda: backup(ledger, folder / "backup"))
            assert health.findings == ()
            assert len(ledger.runs()) == len(runs)
            return {
                "artifacts": artifacts,
                "runs": len(runs),
                "facts": copy.facts,
                "database_bytes": (folder / "backup" / "ledger.db").stat().st_size,
                "filled_s": filled,
                "additions_per_s": round(artifacts / filled, 1),
                "seconds": seconds,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=int, default=10_000)
    given = parser.parse_args()
    told = environment()
    measured = measure(given.artifacts)
    slowest_list = max(measured["seconds"][n] for n in ("runs_first_page", "runs_first_page_fresh_process", "runs_all"))
    result = {
        "command": f"python benchmarks/ledger.py --artifacts {given.artifacts}",
        "question": "does `runs` answer within 0.2 s with 10,000 artifacts?",
        "answer": slowest_list < 0.2,
        "machine": {
            "cpu": told["cpu"],
            "cores": told["cores"],
            "memory_bytes": told["memory_bytes"],
            "system": told["system"],
            "load_average": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "tunesmith": told["tunesmith"],
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        **measured,
    }
    write_atomic(RESULT, (json.dumps(result, indent=2) + "\n").encode("utf-8"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
