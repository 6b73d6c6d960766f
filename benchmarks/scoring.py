"""How much faster labels are scored than each prompt with each label in full, and than generating the answers.

    python benchmarks/scoring.py [--precision fp32] [--rounds 3]

SmolLM2-135M-Instruct. Three cases: ICD-10-CM diagnoses with the 22 chapter names as labels, once with the demo's
short system prompt on a model tuned for a minute, once with one that lists the labels on the base model (the
demo's zero-shot arm), and prompts of some 400 tokens with 8 labels on the base model. In each round every way
runs once, one after another in one process; the ratios of the medians count, since speeds depend on the machine.
First the rankings of the ways are compared, in fp32.

probabilities   every label's probability to 1e-6           in_full     prompt + label in batches, every pair
winner          the likeliest label alone, exactly          generated   transformers' generate, greedy, in batches

Generating gives a text and no probabilities; the goals ask all of them in no more time, and `winner` is given too.
The tuned model stops by itself; the base model does not, and generates as many tokens as labels have on average.
Writes benchmarks/results/scoring.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the core to others
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import numpy as np  # noqa: E402 - after the thread policy
import torch  # noqa: E402

from tunesmith.core.nouns import Message, Task  # noqa: E402
from tunesmith.model.catalog import find  # noqa: E402
from tunesmith.model.forward import Network  # noqa: E402
from tunesmith.model.load import load_base, load_tuned, quiet  # noqa: E402
from tunesmith.model.methods import catalog as methods  # noqa: E402
from tunesmith.model.methods.spec import MethodSpec, method_json  # noqa: E402
from tunesmith.model.plain import score_in_full  # noqa: E402
from tunesmith.model.routes import fastest, label_scores, route  # noqa: E402
from tunesmith.model.trie import LabelTrie  # noqa: E402
from tunesmith.text.prompt import system_prompt  # noqa: E402
from tunesmith.text.render import Renderer  # noqa: E402

TASK = Task(kind="classify", text="description", label="chapter", audience="clinical coders", tone="terse")
TUNE_STEPS, TUNE_BATCH = 24, 16
BATCH_TOKENS = 4096
TOLERANCE = 1e-6
GOALS = {"demo": (5.0, 1.0), "demo_listed": (5.0, 1.0), "long": (8.0, 1.5)}  # over in full, over generate


@dataclass(frozen=True)
class Case:
    """Prompts and labels, and how many prompts the slow way gets."""

    name: str
    stop_id: int
    prompts: list[list[int]]
    labels: list[list[int]]
    names: list[str]
    in_full: int


def cases(folder: Path) -> list[Case]:
    import icd10

    rows = icd10.rows()
    rng = random.Random(0)
    chapters = sorted({chapter for _, chapter, _ in rows})
    found = []
    for name, listed, count, in_full in (("demo", False, 24, 3), ("demo_listed", True, 16, 1)):
        renderer = Renderer.load(folder, system=system_prompt(TASK, chapters, list_labels=listed))
        texts = [text for text, _, _ in rng.sample(rows, count)]
        found.append(case(name, renderer, texts, chapters, in_full))
    some = rng.sample(chapters, 8)
    examples = ["; ".join(rng.sample([t for t, c, _ in rows if c == chapter], 2)) for chapter in some]
    hints = "\n".join(f"- {c}: for example {e}" for c, e in zip(some, examples, strict=True))
    renderer = Renderer.load(folder, system=f"{system_prompt(TASK, [], list_labels=False)}\n\nThe chapters:\n{hints}")
    texts = []
    for _ in range(16):
        chapter = rng.choice(some)
        texts.append("; ".join(rng.sample([t for t, c, _ in rows if c == chapter] * 8, 8)))
    found.append(case("long", renderer, texts, some, 2))
    return found


def case(name: str, renderer: Renderer, texts: list[str], labels: list[str], in_full: int) -> Case:
    prompts = [renderer.prompt([Message(role="user", content=t)]) for t in texts]
    return Case(name, renderer.stop_id, prompts, [renderer.answer(label) for label in labels], labels, in_full)


def tune(folder: Path) -> Any:
    """A LoRA-tuned and merged model, fp32: sure of most answers, and it stops where they end."""
    import icd10

    rows = icd10.rows()
    random.Random(1).shuffle(rows)
    renderer = Renderer.load(folder, system=system_prompt(TASK, [], list_labels=False))
    spec = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
    model = methods.wrap(load_base(folder, dtype="bf16"), spec, seed=0).train()
    parameters = list(methods.trainable_parameters(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for step in range(TUNE_STEPS):
        batch = rows[step * TUNE_BATCH : (step + 1) * TUNE_BATCH]
        rendered = [renderer.render([Message(role="user", content=t)], chapter) for t, chapter, _ in batch]
        ids = torch.zeros(len(batch), max(len(r.ids) for r in rendered), dtype=torch.long)
        trained = torch.zeros_like(ids, dtype=torch.bool)
        for row, r in enumerate(rendered):
            ids[row, : len(r.ids)], trained[row, : len(r.ids)] = torch.tensor(r.ids), torch.tensor(r.trained)
        hidden = model.get_base_model().model(input_ids=ids).last_hidden_state[:, :-1][trained[:, 1:]]
        logits = model.get_base_model().lm_head(hidden).float()
        torch.nn.functional.cross_entropy(logits, ids[:, 1:][trained[:, 1:]]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with tempfile.TemporaryDirectory() as out:
        methods.save(model, spec, Path(out), base="base")
        (Path(out) / "checkpoint.json").write_text(json.dumps({"method": method_json(spec)}), encoding="utf-8")
        return load_tuned(folder, Path(out), dtype="fp32")


def generate(model: Any, c: Case, *, stops: bool) -> None:
    """`stops`: until every answer has ended, at most the longest label; else the labels' mean length."""
    width = max(map(len, c.prompts))
    ids = torch.zeros(len(c.prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(c.prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
    lengths = [len(label) for label in c.labels]
    most, least = (max(lengths), 1) if stops else (round(statistics.mean(lengths)),) * 2
    model.generate(
        ids, attention_mask=mask, max_new_tokens=most, min_new_tokens=least, do_sample=False, eos_token_id=c.stop_id
    )


def seconds_per_prompt(run: Callable[[], object], prompts: int) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / prompts


def compare_rankings(network: Network, c: Case) -> dict[str, Any]:
    """All labels of the first prompts in the same order, and probabilities within the stated tolerance."""
    prompts = c.prompts[: c.in_full]
    trie = LabelTrie(c.names, c.labels)
    want = score_in_full(network, prompts, c.labels, batch_tokens=BATCH_TOKENS)
    exact = label_scores(network, prompts, trie, batch_tokens=BATCH_TOKENS, tolerance=0.0)
    quick = label_scores(network, prompts, trie, batch_tokens=BATCH_TOKENS, tolerance=TOLERANCE)
    winner = label_scores(network, prompts, trie, batch_tokens=BATCH_TOKENS, tolerance=len(c.labels))
    assert (want.argsort(1) == exact.argsort(1)).all(), "the rankings differ"
    assert (want.argmax(1) == quick.argmax(1)).all(), "the winners differ"
    assert (want.argmax(1) == winner.argmax(1)).all(), "the winners differ"
    worst = float(np.abs(softmax(want) - softmax(quick)).max())
    assert worst < TOLERANCE + 1e-5, f"a probability differs by {worst}"
    return {"prompts": len(prompts), "largest_nats": float(np.abs(want - exact).max()), "largest_probability": worst}


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


def measure(network: Network, model: Any, c: Case, rounds: int, *, tuned: bool) -> dict[str, Any]:
    trie = LabelTrie(c.names, c.labels)

    def scored(tolerance: float) -> tuple[Callable[[], object], int]:
        return (
            lambda: label_scores(network, c.prompts, trie, batch_tokens=BATCH_TOKENS, tolerance=tolerance),
            len(c.prompts),
        )

    runs: dict[str, tuple[Callable[[], object], int]] = {
        "probabilities": scored(TOLERANCE),
        "winner": scored(len(c.labels)),
        "in_full": (
            lambda: score_in_full(network, c.prompts[: c.in_full], c.labels, batch_tokens=BATCH_TOKENS),
            c.in_full,
        ),
        "generated": (lambda: generate(model, c, stops=tuned), len(c.prompts)),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, prompts) in runs.items():
            times[name].append(seconds_per_prompt(run, prompts))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        "probabilities_over_in_full": medians["in_full"] / medians["probabilities"],
        "winner_over_in_full": medians["in_full"] / medians["winner"],
        "probabilities_over_generated": medians["generated"] / medians["probabilities"],
        "winner_over_generated": medians["generated"] / medians["winner"],
    }
    over_full, over_generated = GOALS[c.name]
    goals = {"probabilities_over_in_full": over_full, "probabilities_over_generated": over_generated}
    return {
        "model": "tuned" if tuned else "base",
        "prompts": len(c.prompts),
        "prompt_tokens": round(statistics.mean(map(len, c.prompts)), 1),
        "labels": len(c.labels),
        "label_tokens": round(statistics.mean(map(len, c.labels)), 1),
        "tree_tokens": len(trie.inner),
        "seconds_a_prompt": {name: [round(v, 4) for v in values] for name, values in times.items()},
        "times_faster": {name: round(v, 2) for name, v in ratios.items()},
        "goals": goals,
        "met": all(ratios[name] >= goal for name, goal in goals.items()),
    }


def machine() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = {"AVX-512": "avx512f", "AVX-512 bf16": "avx512_bf16", "AMX bf16": "amx_bf16"}
    has = [name for name, flag in names.items() if flag in flags]
    return {
        "words": f"{os.cpu_count()} cores, {platform.machine()}" + (f" with {', '.join(has)}" if has else ""),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    local = find("smollm2-135m-instruct")
    found = cases(local.folder)
    result: dict[str, Any] = {
        "command": f"python benchmarks/scoring.py --precision {asked.precision} --rounds {asked.rounds}",
        "model": local.name,
        "precision": asked.precision,
        "machine": machine(),
        "versions": {p: version(p) for p in ("tunesmith", "torch", "transformers")},
        "tolerance": TOLERANCE,
        "cases": {},
    }
    with quiet():
        for model, tuned in ((tune(local.folder), True), (load_base(local.folder, dtype="fp32"), False)):
            own = [c for c in found if (c.name == "demo") == tuned]
            network = Network(model)
            with network.evaluating():
                checks = {c.name: compare_rankings(network, c) for c in own}
                model.to(torch.bfloat16 if asked.precision == "bf16" else torch.float32)
                network = Network(model)
                route(network, 1)  # the one-time trials are not part of a measurement
                forward = type(fastest(network)).__name__
                for c in own:
                    measured = measure(network, model, c, asked.rounds, tuned=tuned)
                    result["cases"][c.name] = measured | {"forward": forward, "same_as_in_full": checks[c.name]}
                    print(c.name, json.dumps(result["cases"][c.name]), flush=True)
    result["machine"]["load_average_after"] = round(os.getloadavg()[0], 1)
    result["met"] = all(c["met"] for c in result["cases"].values())
    out = ROOT / "benchmarks" / "results" / "scoring.json"
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"all goals met: {result['met']}; written to {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
