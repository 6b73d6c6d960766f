"""Which methods fit a device, in the order in which the guide would take them, and what would make the others fit.

The order is a rule, not a promise: quality first as docs/guides/methods.md gives it (full fine-tuning, LoRA, QLoRA,
bottleneck adapters, prefix, IA3, prompt), then money, then time. Loads no torch but for what memory.py counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.stage import Exec
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting
from tunesmith.train.cost.memory import Memory
from tunesmith.train.cost.skeleton import Skeleton
from tunesmith.train.cost.work import Cost

RESERVED = 0.05  # share of a device's memory that other things hold, or that is lost between blocks
SMALL_MICRO_BATCH = 1  # one row at a time: the least that any training needs
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
FULL = replace(LORA, kind="full")
CANDIDATES: tuple[tuple[str, MethodSpec, str], ...] = (  # (name, method, optimizer), best quality first
    ("full, adamw", FULL, "adamw"),
    ("full, adamw_8bit", FULL, "adamw_8bit"),
    ("full, adafactor", FULL, "adafactor"),
    ("lora", LORA, "adamw"),
    ("qlora, 8 bits", replace(LORA, kind="qlora", bits=8), "adamw"),
    ("qlora, 4 bits", replace(LORA, kind="qlora", bits=4, double_quant=True), "adamw"),
    (
        "bottleneck",
        replace(LORA, kind="bottleneck", placement="pfeiffer", reduction=16.0, activation="relu"),
        "adamw",
    ),
    ("prefix", replace(LORA, kind="prefix", virtual_tokens=20), "adamw"),
    ("ia3", replace(LORA, kind="ia3"), "adamw"),
    ("prompt", replace(LORA, kind="prompt", virtual_tokens=20), "adamw"),
)
QUALITY = {"full": 1, "lora": 2, "qlora": 3, "bottleneck": 4, "prefix": 5, "ia3": 6, "prompt": 7}
RULE = "quality as the method guide orders it (full, lora, qlora, bottleneck, prefix, ia3, prompt), then cost"

Count = Callable[[MethodSpec, str, Exec], Memory]  # method, optimizer, exec → memory on the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One method on one device."""

    method: str
    device: str
    fits: bool | None  # None: within the uncertainty of the limit
    refused: str  # why the architecture cannot take it; "" where it can
    memory_mib: int
    memory_low_mib: int
    memory_high_mib: int
    parts_mib: dict[str, int]
    trained_weights: int
    cost: Cost | None
    why: str  # of one that does not fit: the largest parts
    would_fit: str  # what would make it fit; "" where nothing here does


def options(
    skeleton: Skeleton,
    *,
    device: str,
    limit_bytes: float,
    count: Count,
    cost: Callable[[MethodSpec], Cost | None],
    exec: Exec,
    configured: tuple[MethodSpec, str] | None = None,
    new_tokens: int = 0,
) -> list[Option]:
    """Every candidate, those that fit first. `configured`: the project's own method, which stands for its kind.
    `new_tokens`: whose rows each trains beside."""
    found = []
    for name, method, optimizer in candidates(configured):
        refused = counting.refusal(skeleton, method)
        if refused:
            found.append(_refused(name, device, refused))
        else:
            limit = limit_bytes * (1 - RESERVED)
            found.append(_option(name, device, method, optimizer, limit, count, cost, exec, skeleton, new_tokens))
    return sorted(found, key=_place)


def candidates(configured: tuple[MethodSpec, str] | None) -> list[tuple[str, MethodSpec, str]]:
    """The usual ones; the project's own method in place of the one of its kind and optimizer."""
    every = list(CANDIDATES)
    if configured is None:
        return every
    own, optimizer = configured
    same = [i for i, (_, m, o) in enumerate(every) if m.kind == own.kind and m.bits == own.bits and o == optimizer]
    entry = (f"{own.kind}, as configured", own, optimizer)
    if same:
        every[same[0]] = entry
    else:
        every.append(entry)
    return every


def _option(
    name: str,
    device: str,
    method: MethodSpec,
    optimizer: str,
    limit: float,
    count: Count,
    cost: Callable[[MethodSpec], Cost | None],
    exec: Exec,
    skeleton: Skeleton,
    new_tokens: int,
) -> Option:
    memory = count(method, optimizer, exec)
    fits = fits_in(memory, limit)
    return Option(
        method=name,
        device=device,
        fits=fits,
        refused="",
        memory_mib=round(memory.total / 2**20),
        memory_low_mib=round(memory.low / 2**20),
        memory_high_mib=round(memory.high / 2**20),
        parts_mib={n: round(b / 2**20) for n, b in memory.parts.items()},
        trained_weights=counting.trained_count(skeleton, method) + counting.new_rows(skeleton, new_tokens),
        cost=cost(method),
        why="" if fits else largest(memory, limit),
        would_fit="" if fits else remedies(method, optimizer, limit, count, exec),
    )


def fits_in(memory: Memory, limit: float) -> bool | None:
    """None where the limit lies within the uncertainty."""
    return True if memory.high <= limit else False if memory.low > limit else None


def largest(memory: Memory, limit: float) -> str:
    """The parts that fill it, largest first."""
    parts = sorted(memory.parts.items(), key=lambda p: -p[1])[:2]
    shown = " and ".join(f"{n} {b / 2**30:,.1f} GiB" for n, b in parts)
    return f"{memory.total / 2**30:,.1f} of {limit / 2**30:,.1f} GiB: {shown}"


def remedies(method: MethodSpec, optimizer: str, limit: float, count: Count, exec: Exec) -> str:
    """The first of these that fits: smaller micro-batches, checkpointing, both, another optimizer, another method."""
    small = replace(exec, micro_batch_tokens=SMALL_MICRO_BATCH)
    twice = replace(exec, gradient_checkpointing=True)
    tries: list[tuple[str, MethodSpec, str, Exec]] = [
        ("exec.micro_batch_tokens: 64 (one row at a time)", method, optimizer, small),
    ]
    if method.kind != "prefix":  # which cannot be computed twice
        both = replace(small, gradient_checkpointing=True)
        tries += [
            ("exec.gradient_checkpointing: true", method, optimizer, twice),
            ("exec.gradient_checkpointing: true and exec.micro_batch_tokens: 64", method, optimizer, both),
        ]
    if method.kind == "full":
        tries.append(("train.optimizer: adafactor, with both of these", method, "adafactor", both))
    for words, m, o, e in tries:
        if fits_in(count(m, o, e), limit):
            return words
    if method.kind in ("full", "lora"):
        smaller = CANDIDATES[3][1] if method.kind == "full" else replace(LORA, kind="qlora", bits=4, double_quant=True)
        if fits_in(count(smaller, "adamw", both), limit):
            return f"train.method.kind: {smaller.kind}"
    return ""


def _refused(name: str, device: str, why: str) -> Option:
    return Option(
        method=name, device=device, fits=False, refused=why, memory_mib=0, memory_low_mib=0, memory_high_mib=0,
        parts_mib={}, trained_weights=0, cost=None, why=f"this architecture cannot take it: {why}", would_fit="",
    )  # fmt: skip


def _place(option: Option) -> tuple[Any, ...]:
    money = option.cost.money.middle if option.cost and option.cost.money else 0.0
    seconds = option.cost.seconds.middle if option.cost else 0.0
    fit = {True: 0, None: 1, False: 2}[option.fits]
    return fit, QUALITY.get(option.method.split(",")[0], 9), money, seconds
