"""`auto` values, measured before anything is hashed, and what a training will cost.

Timings use the base model's real shapes, the path that training would take, and made-up tokens: the
values of weights and tokens do not change how long a product takes.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.stages import SftSpec

GAIN = 1.3  # bf16 must be so many times faster: below that its rounding is not worth it
SAMPLE_TOKENS = 256  # of one timed step
TIMED_STEPS = 3
TIMED_SECONDS = 6.0  # no further step after so many: a slow machine gets an answer too
ANSWER_TOKENS = 8  # supervised tokens of a made-up example
MICRO_BATCH_TOKENS = (256, 8192)  # bounds of the automatic choice: below it products are thin, above it nothing is won
MATH_KEYS = 512  # as in model/flat_layout.py, which loads torch
SPARE = 0.5  # share of the free memory that activations may take
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
FULL = MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")


def resolve_precision(base: Path, tokens: int) -> Literal["fp32", "bf16"]:
    """The faster of both for a forward and backward of LoRA on examples of `tokens` tokens, on this machine."""
    speed = {p: _speed(base, tokens, LORA, p) for p in ("fp32", "bf16")}
    return "bf16" if speed["bf16"] >= GAIN * speed["fp32"] else "fp32"


def tokens_per_second(base: Path, tokens: int, spec: SftSpec) -> float:
    """Tokens that training would read in a second, from a few steps on made-up examples."""
    return _speed(base, tokens, spec.method, spec.precision)


def resolve_micro_batch_tokens(base: Path, longest: int, method: str) -> int:
    """The largest power of two whose activations fit half of the free memory, from one measured step.

    At least the longest example, which cannot be split, and never more than 8,192.
    """
    low, high = MICRO_BATCH_TOKENS
    config = _read_config(base)
    free = free_bytes() - parameter_count(config) * (4 if method == "lora" else 16)  # with gradients and two moments
    counted = activation_bytes_per_token(config, method, keys=longest)
    if free * SPARE / counted > 4 * high:
        return max(high, longest)  # plenty: no need to measure
    per_token = max(counted, _measured_bytes_per_token(base, method))
    fitting = max(1, int(free * SPARE / per_token))
    return max(min(high, 1 << (fitting.bit_length() - 1)), low, longest)


def estimate(
    config: dict[str, Any], dataset: dict[str, Any], spec: SftSpec, tokens_per_second: float
) -> dict[str, Any]:
    """What a training will take: steps, tokens, seconds (validation not counted), memory and disk.

    `config` is the base model's config.json, `dataset` is dataset.json. memory_mib is the sum of `memory`'s parts.
    """
    rows, total = dataset["counts"]["train"], sum(dataset["counts"].values())
    steps = _steps(rows, spec.epochs, spec.global_batch)
    tokens = round(dataset["tokens"]["total"] / max(1, total) * rows * spec.epochs)
    count, trained = parameter_count(config), trained_count(config, spec.method)
    bytes_each = 2 if spec.precision == "bf16" and spec.method.kind == "lora" else 4
    longest = dataset["tokens"]["longest"]
    micro = max(longest, min(4096, spec.global_batch * longest))
    memory = {
        "weights": count * bytes_each,
        "trained": trained * 4 if spec.method.kind == "lora" else 0,
        "gradients": trained * 4,
        "optimizer": trained * 8,
        "activations": micro * activation_bytes_per_token(config, spec.method.kind, keys=longest, size=bytes_each),
        "program": 500 << 20,  # torch and transformers themselves
    }
    parts = {name: round(size / 2**20, 1) for name, size in memory.items()}
    return {
        "steps": steps,
        "tokens": tokens,
        "seconds": round(tokens / max(tokens_per_second, 1e-9), 1),
        "memory": parts,
        "memory_mib": round(sum(parts.values())),
        "checkpoint_mib": round(trained * 4 / 2**20, 1),
        "trained_weights": trained,
        "weights": count,
    }


def _steps(rows: int, epochs: float, global_batch: int) -> int:
    whole, part = int(epochs), round((epochs - int(epochs)) * rows)
    return whole * math.ceil(rows / global_batch) + math.ceil(part / global_batch)


# -- counting, from config.json alone ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The widths that cost depends on. Families spell them differently."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    gated: bool  # two input projections in the MLP


def shape_of(config: dict[str, Any]) -> Shape:
    def first(*names: str, default: int | None = None) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        return default if default is not None else 0

    hidden = first("hidden_size", "n_embd", "d_model")
    heads = first("num_attention_heads", "n_head", default=1)
    gated = "intermediate_size" in config and config.get("model_type") not in ("gpt_neox", "phi", "opt", "bloom")
    return Shape(
        hidden=hidden,
        inner=first("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        layers=first("num_hidden_layers", "n_layer", default=1),
        heads=heads,
        key_heads=first("num_key_value_heads", default=heads),
        head_size=first("head_dim", default=hidden // heads),
        vocabulary=first("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", True)),
        gated=gated,
    )


def _linears(s: Shape) -> dict[str, tuple[int, int]]:
    """Name → (inputs, outputs) of one layer's linear maps, under the Llama names."""
    q, kv = s.heads * s.head_size, s.key_heads * s.head_size
    found = {
        "q_proj": (s.hidden, q),
        "k_proj": (s.hidden, kv),
        "v_proj": (s.hidden, kv),
        "o_proj": (q, s.hidden),
        "up_proj": (s.hidden, s.inner),
        "down_proj": (s.inner, s.hidden),
    }
    return found | ({"gate_proj": (s.hidden, s.inner)} if s.gated else {})


def parameter_count(config: dict[str, Any]) -> int:
    """Exact for the Llama family but for its norms' biases; near for others."""
    s = shape_of(config)
    layer = sum(a * b for a, b in _linears(s).values()) + 2 * s.hidden
    return s.layers * layer + s.vocabulary * s.hidden * (1 if s.tied else 2) + s.hidden


def trained_count(config: dict[str, Any], method: MethodSpec) -> int:
    if method.kind == "full":
        return parameter_count(config)
    s = shape_of(config)
    names = {method.targets} if isinstance(method.targets, str) else set(method.targets)
    chosen = [ab for name, ab in _linears(s).items() if "all-linear" in names or name in names]
    return s.layers * method.rank * sum(a + b for a, b in chosen)


def activation_bytes_per_token(config: dict[str, Any], method: str, *, keys: int, size: int = 4) -> int:
    """What the backward keeps of one token that sees `keys` others, numbers of `size` bytes.

    Counted on the flat path: per layer two residual streams in fp32, the inputs of the four fused
    products, query, key and value, the attention's probabilities (none where flash attends), gate and up.
    The plain path keeps about half as much again, and full fine-tuning logits for supervised tokens.
    """
    s = shape_of(config)
    probabilities = s.heads * keys if keys <= MATH_KEYS else 0
    attention = s.hidden + (2 * s.heads + 2 * s.key_heads) * s.head_size + probabilities
    layer = 4 * 2 * s.hidden + size * (attention + s.hidden + 3 * s.inner)
    return s.layers * layer if method == "lora" else s.layers * layer * 3 // 2 + 12 * s.vocabulary // 4


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
    forward, _, documents = _prepared(base, 128, LORA if method == "lora" else FULL, "fp32")
    before = _resident_bytes()
    alive = forward.nll_sum(documents, step=0)
    grown = max(0, _resident_bytes() - before)
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
    vocabulary = shape_of(_read_config(base)).vocabulary
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


def free_bytes() -> int:
    """Memory that may still be taken: what the system calls available, and no more than a container's limit allows."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text(encoding="ascii")))
    except OSError:
        pass  # not Linux, or no container: the first figure stands
    return free


def _resident_bytes() -> int:
    """Of this process now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
