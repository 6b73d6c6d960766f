"""How much faster the server answers eight clients at once than the same requests one after another.

    python benchmarks/serving.py [--precision fp32] [--rounds 3]

SmolLM2-135M-Instruct behind the real HTTP server on loopback: 8 free answers of up to 48 tokens, and 8
classifications over 8 labels, with the system prompts of a demo project. Sequential and concurrent runs
alternate in one process; the ratio of the medians is what counts, since speeds depend on the machine.
Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

LABELS = ("infection", "cancer", "blood", "endocrine", "mental", "nervous", "eye and ear", "injury")
SYSTEM = "You label short medical terms for clinical coders. Answer with one of: " + ", ".join(LABELS) + "."
TEXTS = [
    "Fracture of shaft of left tibia, initial encounter",
    "Malignant neoplasm of upper lobe, right bronchus",
    "Iron deficiency anemia secondary to blood loss",
    "Type 2 diabetes mellitus with hyperglycemia",
    "Recurrent depressive disorder, current episode mild",
    "Parkinson's disease without dyskinesia",
    "Age-related nuclear cataract, left eye",
    "Typhoid fever with heart involvement, unspecified",
]
CLIENTS = len(TEXTS)


def start(precision: str) -> tuple[str, Any, threading.Thread]:
    """A live server with the base model under two names; (address, uvicorn's server, its thread)."""
    import uvicorn

    from tunesmith.http.listening import LOOPBACK, listen, uvicorn_config
    from tunesmith.model.catalog import find
    from tunesmith.model.load import load_base
    from tunesmith.serve.bundle import Generation, LoadedBundle, context_of
    from tunesmith.serve.server import Limits, create_app
    from tunesmith.text.render import Renderer

    local = find("smollm2-135m-instruct")
    model = load_base(local.folder, dtype=precision)
    renderer = Renderer.load(local.folder, system=SYSTEM)
    settings = Generation(max_new_tokens=48)
    bundles = {
        name: LoadedBundle(
            model=model,
            renderer=renderer,
            labels=labels,
            kind=kind,
            id=local.artifact.id,
            settings=settings,
            context=context_of(model),
        )
        for name, kind, labels in (("chat", "chat", ()), ("labels", "classify", LABELS))
    }
    app = create_app(
        bundles,
        token=None,
        allowed_hosts=LOOPBACK,
        trace=lambda _: None,
        store_content=False,
        limits=Limits(max_queue=64, max_batch=CLIENTS, max_tokens=1024),
    )
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(app, drain_s=5))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    return f"http://127.0.0.1:{listener.getsockname()[1]}", server, thread


def ask(address: str, model: str, text: str) -> dict[str, Any]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"}, method="POST"
    )
    return json.load(urllib.request.urlopen(request, timeout=300))


def measure(address: str, model: str, workers: int) -> tuple[float, int, list[str]]:
    """Seconds for all texts, answer tokens, the answers."""
    with ThreadPoolExecutor(workers) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda text: ask(address, model, text), TEXTS))
        seconds = time.perf_counter() - started
    tokens = sum(a["usage"]["completion_tokens"] for a in answers)
    return seconds, tokens, [a["choices"][0]["message"]["content"] for a in answers]


def compare(address: str, model: str, rounds: int) -> dict[str, Any]:
    measure(address, model, CLIENTS)  # warm
    alone, together, same, tokens = [], [], 0, 0
    for _ in range(rounds):
        seconds, tokens, one_by_one = measure(address, model, 1)
        alone.append(seconds)
        seconds, _, at_once = measure(address, model, CLIENTS)
        together.append(seconds)
        same = sum(a == b for a, b in zip(one_by_one, at_once, strict=True))
    slow, fast = statistics.median(alone), statistics.median(together)
    return {
        "sequential_s": [round(s, 3) for s in alone],
        "concurrent_s": [round(s, 3) for s in together],
        "ratio": round(slow / fast, 2),
        "answer_tokens": tokens,
        "concurrent_tokens_per_s": round(tokens / fast, 1),
        "equal_answers": f"{same} of {CLIENTS}",  # in bf16 a near tie may round the other way in a batch
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    address, server, thread = start(options.precision)
    result = {
        "question": f"{CLIENTS} concurrent clients against the same {CLIENTS} requests in sequence",
        "command": f"python benchmarks/serving.py --precision {options.precision} --rounds {options.rounds}",
        "precision": options.precision,
        "generate": compare(address, "chat", options.rounds),
        "label_scoring": compare(address, "labels", options.rounds),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {processor()}",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("torch", "transformers", "fastapi", "uvicorn")}
        | {"python": platform.python_version()},
    }
    server.should_exit = True
    thread.join(20)
    out = Path(__file__).parent / "results" / "serving.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2), file=sys.stdout)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
