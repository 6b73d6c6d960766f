"""A training's first steps, for their figures alone: run as a process of its own, so that its peak is clean.

    python -m tunesmith.train.cost.probe < question.json > answer.json

The recipe's own `at_start` and `accumulate` run on the batch of the longest examples, then on the first batches
of the schedule. Nothing is written. measure.py asks; read it for the question's and the answer's fields. They run on
the device that training will run on, with its offload, attention, kernels and checkpointing; always as one process:
exec.processes, nodes and engine are not taken into account, and flows/cost/forecast.py says so in place of asking.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from tunesmith.core.nouns import Row
from tunesmith.core.stage import Exec
from tunesmith.model.device import device_of
from tunesmith.model.flat_layout import Document
from tunesmith.text.render import Renderer
from tunesmith.train import optim
from tunesmith.train.batches import Schedule
from tunesmith.train.cost import machine
from tunesmith.train.domain_stages import DomainInputs, DomainSpec
from tunesmith.train.learner import accumulate, at_start
from tunesmith.train.recipes import domain, sft
from tunesmith.train.stages import SftSpec

STEPS = 3
CANDIDATES = 4  # times the batch: rows that are rendered to find the longest
SECONDS = 60.0  # no further timed step after so many


def answer(question: dict[str, Any]) -> dict[str, Any]:
    machine.forget_peak()
    exec = msgspec.convert(question["exec"], Exec)
    if exec.threads:
        torch.set_num_threads(exec.threads)
    device = device_of(exec.device)
    free = free_mib(device)
    spec: Any = msgspec.convert(question["spec"], DomainSpec if question["stage"] == "domain" else SftSpec)
    base = Path(question["base"])
    longest, typical = batches(spec, question, base)
    known = [d for batch in (longest, *typical) for d in batch]
    program = machine.resident_bytes()
    start = Path(question["start"]) if isinstance(spec, SftSpec) and question["start"] else None
    learner = at_start(spec, base, known, exec, start=start)
    loaded = machine.peak_mib()
    timed = []
    energy, begun = machine.energy_joules(), time.perf_counter()
    for batch in (*[longest] * (STEPS + 1), *typical):  # the first one warms up
        started = time.perf_counter()
        accumulate(learner.forward, batch, 0, exec.micro_batch_tokens)
        learner.clip()
        optim.apply(learner.optimizer, lr=0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what was asked of it is done
        timed.append((sum(len(d.ids) for d in batch), time.perf_counter() - started))
        if time.perf_counter() - begun > SECONDS and len(timed) > 2:
            break
    passed, drawn = time.perf_counter() - begun, machine.energy_joules()
    return {
        "program_mib": round(program / machine.MIB),
        "loaded_mib": loaded,
        "peak_mib": peak_mib(device),
        "device": str(device),
        "free_mib": free,
        "trained_weights": sum(p.numel() for p in learner.parameters.values()),
        "path": learner.forward.path,
        "why": learner.forward.why,
        "longest": rate(timed[1 : STEPS + 1]),
        "typical": rate(timed[STEPS + 1 :]) if typical else None,
        "watts": (drawn - energy) / passed if energy is not None and drawn is not None and drawn > energy else None,
    }


def peak_mib(device: torch.device) -> int:
    """Of this process, or on a GPU of what torch took of its memory."""
    if device.type != "cuda":
        return machine.peak_mib()
    return round(torch.cuda.max_memory_reserved(device) / machine.MIB)


def free_mib(device: torch.device) -> int:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.free_bytes()
    return round(free / machine.MIB)


def rate(timed: Sequence[tuple[int, float]]) -> dict[str, Any] | None:
    """None where no step was reached."""
    if not timed:
        return None
    return {
        "tokens": timed[0][0],
        "steps": len(timed),
        "tokens_per_s": round(sum(n for n, _ in timed) / sum(s for _, s in timed), 1),
        "seconds": [round(s, 3) for _, s in timed],
    }


def batches(spec: Any, question: dict[str, Any], base: Path) -> tuple[list[Document], list[list[Document]]]:
    """(the longest examples as one batch, the first batches of the schedule)."""
    if isinstance(spec, DomainSpec):
        return _windows(spec, question, base)
    rows = sft.rows_of(spec, Path(question["dataset"]))
    # of a mixture with general data, the rows alone: they are as long
    schedule = Schedule(rows, epochs=spec.epochs, global_batch=spec.global_batch, seed=spec.seed)
    by_size = sorted(rows, key=_characters, reverse=True)[: CANDIDATES * spec.global_batch]
    longest = [max(worded, key=lambda d: len(d.ids)) for worded in sft.documents_of(spec, base, by_size)]
    typical = []
    for step in range(min(STEPS, schedule.steps)):
        worded = sft.documents_of(spec, base, [rows[i] for i in schedule.batch(step)])
        typical.append([each[(step + place) % len(each)] for place, each in enumerate(worded)])  # every wording in turn
    return sorted(longest, key=lambda d: -len(d.ids))[: spec.global_batch], typical


def _windows(spec: DomainSpec, question: dict[str, Any], base: Path) -> tuple[list[Document], list[list[Document]]]:
    general = Path(question["general"]) if question["general"] else None
    inputs = DomainInputs(dataset=Path(question["dataset"]), base=base, general=general)
    texts = domain.Texts(spec, inputs, Renderer.load(base, system="", new_tokens=spec.new_tokens))
    longest: list[Document] = []
    budget, tokens = spec.global_batch * spec.max_tokens, 0
    for d in sorted(texts.documents, key=lambda d: -len(d.ids)):
        if longest and tokens + len(d.ids) > budget:
            break
        longest.append(d)
        tokens += len(d.ids)
    return longest, []  # every step is about as large


def _characters(row: Row) -> int:
    return len(row.target or "") + sum(len(m.content or "") for m in row.messages)


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
