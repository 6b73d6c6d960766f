"""`auto` values, measured before anything is hashed, and what a training will cost.

Timings use the base model's real shapes, the path that training would take, and made-up tokens: the
values of weights and tokens do not change how long a product takes.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.stage import Exec
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting, machine
from tunesmith.train.cost.machine import MIB, free_bytes
from tunesmith.train.cost.memory import Load, Memory, load_of, memory
from tunesmith.train.cost.skeleton import Skeleton, skeleton_of
from tunesmith.train.stages import SftSpec

__all__ = ["estimate", "free_bytes", "resolve_micro_batch_tokens", "resolve_precision", "tokens_per_second"]

GAIN = 1.3  # bf16 must be so many times faster: below that its rounding is not worth it
PRODUCT = (256, 512, 1024)  # rows, inner and columns of a product that is timed
SAMPLE_TOKENS = 256  # of one timed step
TIMED_STEPS = 3
TIMED_SECONDS = 6.0  # no further step after so many: a slow machine gets an answer too
ANSWER_TOKENS = 8  # supervised tokens of a made-up example
MICRO_BATCH_TOKENS = (256, 8192)  # bounds of the automatic choice: below it products are thin, above it nothing is won
SPARE = 0.5  # share of the free memory that activations may take
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
FULL = MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")


def resolve_precision(base: Path, tokens: int) -> Literal["fp32", "bf16"]:
    """The faster of both for a forward and backward of LoRA on examples of `tokens` tokens, on this machine."""
    if not bf16_products_are_faster():  # nothing else of a step makes up for it, and timing one could take minutes
        return "fp32"
    speed = {p: _speed(base, tokens, LORA, p) for p in ("fp32", "bf16")}
    return "bf16" if speed["bf16"] >= GAIN * speed["fp32"] else "fp32"


def bf16_products_are_faster() -> bool:
    """Whether this processor multiplies bf16 faster than fp32; without units for it, up to a hundred times slower."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(PRODUCT[0], PRODUCT[1], dtype=dtype), torch.ones(PRODUCT[1], PRODUCT[2], dtype=dtype)
        taken = []
        for _ in range(3):  # the first warms up
            start = time.perf_counter()
            a @ b
            taken.append(time.perf_counter() - start)
        return min(taken[1:])

    return seconds(torch.bfloat16) < seconds(torch.float32)


def tokens_per_second(base: Path, tokens: int, spec: SftSpec) -> float:
    """Tokens that training would read in a second, from a few steps on made-up examples."""
    return _speed(base, tokens, spec.method, spec.precision)


def resolve_micro_batch_tokens(base: Path, longest: int, method: str) -> int:
    """The largest power of two whose activations fit half of the free memory, from one measured step.

    At least the longest example, which cannot be split, and never more than 8,192.
    """
    low, high = MICRO_BATCH_TOKENS
    config = _read_config(base)
    skeleton = skeleton_of(config)
    free = machine.free_bytes() - skeleton.count * (16 if method == "full" else 4)  # with gradients and two moments
    counted = _counted_bytes_per_token(config, skeleton, method, longest)
    if free * SPARE / counted > 4 * high:
        return max(high, longest)  # plenty: no need to measure
    per_token = max(counted, _measured_bytes_per_token(base, method))
    fitting = max(1, int(free * SPARE / per_token))
    return max(min(high, 1 << (fitting.bit_length() - 1)), low, longest)


def estimate(
    config: dict[str, Any],
    dataset: dict[str, Any],
    spec: Any,
    tokens_per_second: float,
    *,
    exec: Exec | None = None,
    skeleton: Skeleton | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """What a training will take: steps, tokens, seconds (validation not counted), memory and disk.

    `config` is the base model's config.json, `dataset` is dataset.json, `spec` an SftSpec or a DomainSpec, `exec`
    the micro-batch and whether layers are computed twice (default: as Exec's own), `device` cpu or cuda. memory_mib is the sum of
    `memory`'s parts and lies between memory_low_mib and memory_high_mib.
    """
    exec, skeleton = exec or Exec(), skeleton or skeleton_of(config)
    tokens = tokens_of(dataset, spec.epochs)
    found = training_memory(config, skeleton, dataset, spec, exec, device=device)
    rows = counting.new_rows(skeleton, len(spec.new_tokens))
    trained = counting.trained_count(skeleton, spec.method) + rows
    parts = {name: round(size / MIB, 1) for name, size in found.parts.items()}
    return {
        "steps": steps_of(spec, dataset, tokens),
        "tokens": tokens,
        "seconds": round(tokens / max(tokens_per_second, 1e-9), 1),
        "memory": parts,
        "memory_mib": round(sum(parts.values())),
        "memory_low_mib": round(found.low / MIB),
        "memory_high_mib": round(found.high / MIB),
        "path": found.path,
        "checkpoint_mib": round((skeleton.count + rows if spec.method.kind == "full" else trained) * 4 / MIB, 1),
        "trained_weights": trained,
        "weights": skeleton.count,
    }


def tokens_of(dataset: dict[str, Any], epochs: float) -> int:
    """Of all steps: as they were counted (flows/cost/worded.py), else by the mean of all rows."""
    rows, total = dataset["counts"]["train"], sum(dataset["counts"].values())
    mean = dataset["tokens"]["total"] / max(1, total)
    return int(dataset["tokens"].get("trained") or round(mean * rows * epochs))


def training_memory(
    config: dict[str, Any],
    skeleton: Skeleton,
    dataset: dict[str, Any],
    spec: Any,
    exec: Exec,
    *,
    method: MethodSpec | None = None,
    optimizer: str | None = None,
    precision: str | None = None,
    device: str = "cpu",
) -> Memory:
    """Of `spec`'s training, or of the same with another method, optimizer or precision."""
    method = method or spec.method
    load = load_of(
        dataset,
        global_batch=spec.global_batch,
        micro_batch_tokens=exec.micro_batch_tokens,
        virtual_tokens=method.virtual_tokens,
    )
    if not isinstance(spec, SftSpec):  # every token of a text is predicted
        load = replace(load, answers=load.tokens)
    return memory(
        config,
        skeleton,
        method,
        load,
        precision=precision or spec.precision,
        optimizer=optimizer or spec.optimizer,
        noisy=bool(getattr(spec, "neftune_alpha", 0.0)),
        checkpointing=exec.gradient_checkpointing,
        trained_in=spec.weights,
        master=spec.master,
        device=device,
        new_tokens=len(spec.new_tokens),
        glibc=machine.heap_is_glibc(),
    )


def steps_of(spec: Any, dataset: dict[str, Any], tokens: int) -> int:
    """As they were counted (flows/cost/worded.py), else by the number of rows, or of a domain's tokens."""
    if isinstance(spec, SftSpec):
        return dataset["tokens"].get("steps") or _steps(dataset["counts"]["train"], spec.epochs, spec.global_batch)
    return max(1, math.ceil(tokens / (spec.global_batch * spec.max_tokens)))


def _steps(rows: int, epochs: float, global_batch: int) -> int:
    whole, part = int(epochs), round((epochs - int(epochs)) * rows)
    return whole * math.ceil(rows / global_batch) + math.ceil(part / global_batch)


def parameter_count(config: dict[str, Any]) -> int:
    return skeleton_of(config).count


def trained_count(config: dict[str, Any], method: MethodSpec) -> int:
    return counting.trained_count(skeleton_of(config), method)


def _counted_bytes_per_token(config: dict[str, Any], skeleton: Skeleton, method: str, longest: int) -> float:
    load = Load(rows=1, tokens=longest, answers=min(ANSWER_TOKENS, longest), all_rows=0, all_tokens=0)
    chosen = FULL if method == "full" else LORA
    found = memory(config, skeleton, chosen, load, precision="fp32", optimizer="adamw")
    return found.parts["activations"] / load.padded


# -- measuring: torch from here on -----------------------------------------------------------------------


def _speed(base: Path, tokens: int, method: MethodSpec, precision: Literal["fp32", "bf16"]) -> float:
    """Tokens a second of the fastest of a few steps, after one that warms up."""
    forward, model, documents = _prepared(base, tokens, method, precision)
    seconds: list[float] = []
    while len(seconds) <= TIMED_STEPS and (len(seconds) < 2 or sum(seconds) < TIMED_SECONDS):
        start = time.perf_counter()
        forward.nll_sum(documents, step=0).backward()
        model.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return sum(len(d.ids) for d in documents) / min(seconds[1:])


def _measured_bytes_per_token(base: Path, method: str) -> float:
    """Resident memory that a first forward adds, while its graph is alive, one-time buffers included."""
    forward, _, documents = _prepared(base, 128, FULL if method == "full" else LORA, "fp32")
    before = machine.resident_bytes()
    alive = forward.nll_sum(documents, step=0)
    grown = max(0, machine.resident_bytes() - before)
    del alive
    return grown / sum(len(d.ids) for d in documents)


def _prepared(base: Path, tokens: int, method: MethodSpec, precision: Literal["fp32", "bf16"]) -> Any:
    """(forward, model, documents): made-up examples that share no beginning."""
    from tunesmith.model.flat_layout import Document
    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog as methods
    from tunesmith.train.forward import choose_forward

    full = method.kind == "full"
    model = methods.wrap(load_base(base, dtype="fp32" if full else precision), method, seed=0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    length = max(2, tokens)
    answer = min(ANSWER_TOKENS, length - 1)
    documents = [
        Document(
            ids=tuple((7 * i + 13 * t) % vocabulary for t in range(length)),
            trained=(False,) * (length - answer) + (True,) * answer,
        )
        for i in range(max(1, SAMPLE_TOKENS // length))
    ]
    return choose_forward(model, documents, precision, full=full, seed=0), model, documents


def _read_config(base: Path) -> dict[str, Any]:
    from tunesmith.core.canonical import read_json

    found: dict[str, Any] = read_json(base / "config.json")
    return found
