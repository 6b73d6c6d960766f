"""How fast the labelling page answers over HTTP with 100,000 items.

    python benchmarks/labelling.py [--items 100000] [--requests 1000]

A ledger on disk with half of the items judged by three people (one in ten items is judged twice), a server
in a process of its own, and two people who label at the same time over kept-alive connections, each waiting
for the answer before the next key. Every judgment is on disk (fsync) before it is answered. Timed from the
client's side. Writes benchmarks/results/labelling.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import write_atomic
from tunesmith.ledger.judgments import JUDGMENT, Judgments
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import Fact
from tunesmith.review.items import Item, Source
from tunesmith.review.queues import Queue, QueueRules
from tunesmith.review.room import Room
from tunesmith.web.label.door import cookie_name
from tunesmith.web.label.server import serve_labels

RESULT = Path(__file__).parent / "results" / "labelling.json"
LABELS = tuple(f"topic {n:02d}" for n in range(20))
BAR_MS = 50.0
PEOPLE = ("ann", "ben")
FULL = ("cy", "dora", "emil")  # who judged the first half


def make_queue(items: int, order: Any) -> Queue:
    rng = random.Random(1)
    words = [f"word{n}" for n in range(2000)]
    texts = (" ".join(rng.choices(words, k=120)) for _ in range(items))
    made = [
        Item(
            id=f"{n:064x}",
            kind="label",
            text=text,
            suggested=LABELS[n % 20],
            confidence=0.6,
            uncertainty=rng.random(),
            source=Source(file="rows.jsonl", line=n + 1),
        )
        for n, text in enumerate(texts)
    ]
    rules = QueueRules(
        name="labels", kind="label", title="Which topic?", labels=LABELS, order=order, overlap=0.1, annotators=2
    )
    return Queue(rules, made)


class Bulk:
    """A journal that keeps all in memory; its judgments are then written to the ledger at once."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def append(self, judgment: Mapping[str, Any]) -> Mapping[str, Any]:
        self.kept.append(dict(judgment))
        return judgment

    def list(self) -> list[dict[str, Any]]:
        return []

    def add_annotator(self, annotator: Mapping[str, Any]) -> None: ...

    def annotators(self) -> list[dict[str, Any]]:
        return []


def fill(state: Path, queue: Queue, items: int) -> tuple[int, dict[str, str]]:
    """Half of the items judged; returns how many judgments, and the tokens of those who label now."""
    bulk, rng = Bulk(), random.Random(2)
    room = Room("bench", [queue], bulk)
    while room.ask("cy", "labels")["progress"]["finished"] < items // 2:
        for who in FULL:
            held = room.ask(who, "labels")["items"]
            if held:
                said = {"queue": "labels", "item": held[0]["id"], "verb": "label", "value": rng.choice(LABELS)}
                room.judge(who, said | {"id": f"fill{len(bulk.kept):08d}", "seconds": 3.0})
    with Ledger.open(state) as ledger:
        ledger.records.append([Fact("note", {"kind": JUDGMENT, "body": j}) for j in bulk.kept])
        invited = Room("bench", [make_queue(1, "listed")], Judgments(ledger))
        return len(bulk.kept), {who: invited.invite(who, "owner") for who in PEOPLE}


def serve(state: Path, items: int, order: str) -> None:
    started = time.perf_counter()
    room = Room("bench", [make_queue(items, order)], Judgments(Ledger.open(state)))
    print(f"opened in {time.perf_counter() - started:.2f}", flush=True)
    serve_labels(room, host="127.0.0.1", port=0, me="olga", say=lambda text: print(text, flush=True))


def ask(
    connection: http.client.HTTPConnection, token: str, method: str, path: str, body: Any = None
) -> tuple[float, bytes]:
    """(milliseconds, answer)."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Cookie": f"{cookie_name('bench')}={token}", "Content-Type": "application/json"}
    started = time.perf_counter()
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    content = answer.read()
    took = (time.perf_counter() - started) * 1000
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
    return took, content


def label(port: int, who: str, token: str, requests: int, times: dict[str, list[float]]) -> None:
    """One person: ask, judge, now and then undo and look at the page and the overview."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    rng = random.Random(who)
    for n in range(requests):
        took, content = ask(connection, token, "GET", "/api/q/labels")
        times["next_item"].append(took)
        item = json.loads(content)["items"][0]["id"]
        said = {"id": f"{who}{n:08d}", "queue": "labels", "item": item, "seconds": 1.0}
        times["judge"].append(
            ask(connection, token, "POST", "/api/judge", said | {"verb": "label", "value": rng.choice(LABELS)})[0]
        )
        if n % 10 == 0:
            undo = said | {"id": f"{who}undo{n:08d}", "verb": "undo", "value": said["id"]}
            times["undo"].append(ask(connection, token, "POST", "/api/judge", undo)[0])
            times["page"].append(ask(connection, token, "GET", "/q/labels")[0])
            times["next_dispute"].append(ask(connection, token, "GET", "/api/q/labels/disputes")[0])
        if n % 50 == 0:
            times["overview"].append(ask(connection, token, "GET", "/overview")[0])
    connection.close()


def summary(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "n": len(times), "p50_ms": round(cuts[49], 2), "p95_ms": round(cuts[94], 2), "p99_ms": round(cuts[98], 2),
        "slowest_ms": round(max(times), 2),
    }  # fmt: skip


def measure(items: int, requests: int, order: str, folder: Path) -> dict[str, Any]:
    state = folder / order
    judged, tokens = fill(state, make_queue(items, order), items)
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(state), "--items", str(items), "--order", order],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    opened = float(process.stdout.readline().split()[-1])
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found
    times: dict[str, list[float]] = {k: [] for k in ("next_item", "judge", "undo", "page", "next_dispute", "overview")}
    people = [threading.Thread(target=label, args=(int(found[1]), who, tokens[who], requests, times)) for who in PEOPLE]
    started = time.perf_counter()
    for person in people:
        person.start()
    for person in people:
        person.join()
    took = time.perf_counter() - started
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    memory = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    process.stdout.close()
    return {
        "order": order, "judgments_before": judged, "opened_s": opened, "peak_memory_mib": memory,
        "judgments_per_s": round(len(times["judge"]) / took, 1),
        "times": {name: summary(found) for name, found in times.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=1000, help="judgments of each of two people")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--order", default="uncertainty", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(Path(options.serve), options.items, options.order)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        orders = [measure(options.items, options.requests, o, Path(folder)) for o in ("uncertainty", "random")]
    result = {
        "command": f"python benchmarks/labelling.py --items {options.items} --requests {options.requests}",
        "question": f"does the page answer within {BAR_MS:.0f} ms at the 95th percentile with {options.items:,} items?",
        "answer": all(o["times"][t]["p95_ms"] < BAR_MS for o in orders for t in ("next_item", "judge")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load_average": {"before": round(load, 1), "after": round(os.getloadavg()[0], 1)},
        "versions": {name: version(name) for name in ("fastapi", "uvicorn", "starlette")}
        | {"python": platform.python_version()},
        "items": options.items,
        "item_bytes": "about 900 of text",
        "labels": len(LABELS),
        "people_at_once": len(PEOPLE),
        "orders": orders,
    }
    write_atomic(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
