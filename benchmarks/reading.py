"""How fast JSON lines are validated, beside `json.loads` alone; and what `check` holds for a million rows.

    python benchmarks/reading.py [--rows 20000] [--check 200000] [--million]

Writes benchmarks/results/reading.json. Validation is what every line goes through before anyone knows what it means:
sound UTF-8 and JSON, no duplicate keys, no NaN, no NUL, one object a line, its place counted. It is compared with
`json.loads` of the same lines, which does none of that but the parsing, in turns within one run; a ratio below 1
means that validating is the faster of the two. Memory is the peak of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import write_atomic
from tunesmith.data.lines import Record
from tunesmith.data.read import facts_of, read_file

RESULT = Path(__file__).parent / "results" / "reading.json"
REPEATS = 9
WORDS = ["the", "report", "of", "a", "number", "when", "patient", "fracture", "ticket", "server", "please", "is", "not"]
CHECK = """
import json, resource, sys, time
from pathlib import Path
from tunesmith.core.stage import Workspace
from tunesmith.data.check import check
from tunesmith.data.stages import CheckInputs, CheckSpec
spec = CheckSpec(kind="classify", text="text", label="label", group=None, shape=None, query=None, sheet=None, keep=(),
    labels=(), bad_rows="refuse", duplicates="leave_out", contradictions="leave_out", min_class_rows=1, restored=())
started = time.perf_counter()
check(spec, CheckInputs(source=Path(sys.argv[1])), Workspace(root=Path(sys.argv[2])))
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": round(seconds, 1), "peak_mib": round(peak)}))
"""


def text(rng: random.Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        words.append(rng.choice(WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)


def flat(rng: random.Random, i: int) -> dict[str, Any]:
    return {"text": text(rng, 950), "label": rng.choice(["a", "b", "c"]), "group": f"g{i // 3}"}


def chat(rng: random.Random, i: int) -> dict[str, Any]:
    roles = ["user", "assistant"] * 2
    return {"messages": [{"role": role, "content": text(rng, 220)} for role in roles], "id": i}


def colons(rng: random.Random, i: int) -> dict[str, Any]:
    return {
        "text": f"At {i % 24}:30, he said: {text(rng, 880)} (see http://example.org/{i})",
        "label": "a",
        "time": "9:15",
    }


def quoted(rng: random.Random, i: int) -> dict[str, Any]:
    inner = json.dumps({"name": "look_up", "arguments": {"word": text(rng, 20), "n": i}})
    return {"prompt": text(rng, 850), "completion": inner, "lines": "a\nb\tc \u00fc \u4e16"}


KINDS: dict[str, Callable[[random.Random, int], dict[str, Any]]] = {
    "text and label": flat,
    "four turns of chat": chat,
    "texts with colons": colons,
    "texts with JSON in them": quoted,
}


def timed(run: Callable[[], int]) -> float:
    """Seconds of this process's own time: both sides run on one core, and other programs must not decide."""
    started = time.process_time()
    run()
    return time.process_time() - started


def validation(folder: Path, rows: int) -> dict[str, Any]:
    found = {}
    for kind, make in KINDS.items():
        rng = random.Random(0)
        path = folder / "rows.jsonl"
        with open(path, "w", encoding="utf-8") as f:
            for i in range(rows):
                f.write(json.dumps(make(rng, i), ensure_ascii=False) + "\n")
        lines = path.read_bytes().splitlines()

        def ours(path: Path = path) -> int:
            n = 0
            for record in read_file(path, facts_of(path)):
                n += isinstance(record, Record)
            assert n == rows
            return n

        def loads(lines: list[bytes] = lines) -> int:
            for line in lines:
                json.loads(line)
            return len(lines)

        def loads_from_file(path: Path = path) -> int:
            with open(path, "rb") as f:
                return sum(1 for line in f if json.loads(line) is not None)

        ratios, from_file, seconds = [], [], []
        for _ in range(REPEATS):
            own, alone, read = timed(ours), timed(loads), timed(loads_from_file)
            ratios.append(own / alone)
            from_file.append(own / read)
            seconds.append(own)
        found[kind] = {
            "microseconds_per_line": round(statistics.median(seconds) / rows * 1e6, 2),
            "ratio_to_json_loads": round(statistics.median(ratios), 3),
            "ratios": [round(r, 3) for r in ratios],
            "ratio_to_json_loads_reading_the_file": round(statistics.median(from_file), 3),
        }
        print(kind, found[kind], flush=True)
    return found


def checking(folder: Path, rows: int) -> dict[str, Any]:
    source = folder / f"source-{rows}"
    source.mkdir()
    rng = random.Random(0)
    size = 0
    with open(source / "rows.jsonl", "w", encoding="utf-8") as f:
        for i in range(rows):
            size += f.write(json.dumps({"text": f"{i} {text(rng, 950)}", "label": rng.choice("abcd")}) + "\n")
    command = [sys.executable, "-c", CHECK, str(source), str(folder / f"work-{rows}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {"rows": rows, "bytes": size, **json.loads(done.stdout)}
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--check", type=int, default=200_000)
    parser.add_argument("--million", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, Any] = {
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "msgspec": msgspec.__version__,
            "validation": {"rows": asked.rows, "repeats": REPEATS, **validation(folder, asked.rows)},
            "check": [
                checking(folder, n) for n in ([asked.check] if asked.check else []) + [1_000_000] * asked.million
            ],
        }
    write_atomic(RESULT, json.dumps(result, indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()
