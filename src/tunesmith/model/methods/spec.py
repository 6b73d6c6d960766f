"""The methods in one literal catalogue, and the values that choose one. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import plain, read_json
from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.text.growth import WHERE, listed_problems

Kind = Literal["lora", "qlora", "full", "ia3", "prompt", "p_tuning", "prefix", "bottleneck"]
Start = Literal["uniform", "pissa", "olora", "eva"]
START = "start"  # the folder in a checkpoint of the one that it was trained on top of; see train/start.py


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """Which weights are trained. Each kind reads the values that METHODS lists for it and no other.

    The defaults are no recommendations: each is what a checkpoint meant that was written before its field
    existed, which is "not used". A value that the kind does not read is refused unless it is this one; the
    first five are older than this rule and are passed over in silence.
    """

    kind: Kind
    rank: int  # inner width of the update
    alpha: float  # the update is scaled by alpha / rank, or alpha / sqrt(rank) with rslora
    dropout: float  # on the update's input, while training
    targets: str | tuple[str, ...]  # "all-linear" (never the output head), or last parts of module names
    init: Start = "uniform"  # of A and B; pissa and olora start from the base's own weights, eva from its inputs
    rslora: bool = False  # scale by alpha / sqrt(rank): large ranks keep learning
    dora: bool = False  # direction and length of each output's weights apart
    b_lr_ratio: float = 1.0  # LoRA+: B learns at so many times the rate of A
    ranks: tuple[tuple[str, int], ...] = ()  # (pattern of module names, rank): the first that fits, else `rank`
    bits: int = 0  # of the quantized base: 4 (NF4) or 8 (LLM.int8)
    double_quant: bool = False  # the scales of the 4-bit blocks are quantized too
    virtual_tokens: int = 0  # trained vectors before every text
    projection: int = 0  # inner width of the network that makes them while training; 0: none
    placement: str = ""  # of bottleneck: "houlsby", "pfeiffer" or "parallel"
    reduction: float = 0.0  # the bottleneck's width is the model's divided by it; 0: it is `rank`
    activation: str = ""  # inside the bottleneck: "relu", "gelu", "silu" or "tanh"
    scaling: float = 1.0  # the bottleneck's update is multiplied by it; 4 is usual for parallel
    train_layers: str | tuple[str, ...] = "all"  # of full: "last:4", or patterns of parameter names

    def __post_init__(self) -> None:
        if self.kind not in METHODS:
            raise InputError([_problem("kind", f"{self.kind!r} is no method", f"use one of {', '.join(METHODS)}")])
        found = [*_first_five(self), *_unread(self), *_impossible(self)]
        if found:
            raise InputError(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One line of the catalogue."""

    trains: str  # in words, for plan and report
    values: tuple[str, ...]  # the fields of MethodSpec that it reads besides kind
    mergeable: bool  # whether the result is one set of plain weights
    servable: str  # in which form it answers: "merged", "whole" or "beside its base"
    use: str  # when to choose it
    default_lr: float
    lr_source: str
    module: str  # has wrap, save, load, merge
    extra: str = ""  # the optional dependencies that it needs


LORA_VALUES = ("rank", "alpha", "dropout", "targets", "init", "rslora", "dora", "b_lr_ratio", "ranks")

METHODS: dict[str, Method] = {
    "lora": Method(
        trains="a low-rank update of every targeted linear layer, in fp32",
        values=LORA_VALUES,
        mergeable=True,
        servable="merged",
        use="the start: near full fine-tuning at a hundredth of the trained weights",
        default_lr=1e-3,
        lr_source="measured here on a 135M model, rank 16",
        module="tunesmith.model.methods.lora",
    ),
    "qlora": Method(
        trains="a low-rank update of every targeted linear layer, in fp32, on a base quantized to 4 or 8 bits",
        values=(*LORA_VALUES, "bits", "double_quant"),
        mergeable=True,
        servable="merged",
        use="when the base in bf16 does not fit the memory; slower than lora where it does",
        default_lr=1e-3,
        lr_source="as lora; Dettmers et al. 2023 (arXiv:2305.14314) use 2e-4 for 7B and 13B",
        module="tunesmith.model.methods.qlora",
        extra="quant",
    ),
    "full": Method(
        trains="every weight, or those of train_layers, in fp32",
        values=("train_layers",),
        mergeable=True,
        servable="whole",
        use="many rows and memory for 16 bytes a weight, or a language or domain new to the base",
        default_lr=2e-5,
        lr_source="the rate of transformers' and TRL's examples",
        module="tunesmith.model.methods.full",
    ),
    "bottleneck": Method(
        trains="a small network beside the residual stream in each layer, in fp32",
        values=("rank", "dropout", "placement", "reduction", "activation", "scaling"),
        mergeable=False,
        servable="beside its base",
        use="many tasks on one untouched base, where the update should depend on the input; slower than merged LoRA",
        default_lr=1e-3,
        lr_source="Houlsby et al. 2019 (arXiv:1902.00751) choose from 3e-5 to 3e-3; the `adapters` library uses 1e-4",
        module="tunesmith.model.methods.bottleneck",
    ),
    "ia3": Method(
        trains="one factor for each key, value and inner feed-forward channel, in fp32",
        values=("targets",),
        mergeable=True,
        servable="merged",
        use="few rows, or thousands of adapters to keep: a tenth of LoRA's weights and less",
        default_lr=8e-3,
        lr_source="PEFT's example; Liu et al. 2022 (arXiv:2205.05638) use 3e-3 with Adafactor",
        module="tunesmith.model.methods.ia3",
    ),
    "prompt": Method(
        trains="the embeddings of virtual tokens before every text, in fp32",
        values=("virtual_tokens",),
        mergeable=False,
        servable="beside its base",
        use="large bases (billions of weights) and many tasks on one base; weak on small ones",
        default_lr=3e-2,
        lr_source="PEFT's example; Lester et al. 2021 (arXiv:2104.08691) use 0.3 with Adafactor",
        module="tunesmith.model.methods.prompts",
    ),
    "p_tuning": Method(
        trains="virtual tokens before every text through a three-layer network, in fp32",
        values=("virtual_tokens", "projection"),
        mergeable=False,
        servable="beside its base",
        use="as prompt, where its training does not settle",
        default_lr=1e-3,
        lr_source="PEFT's example",
        module="tunesmith.model.methods.prompts",
    ),
    "prefix": Method(
        trains="keys and values of virtual tokens in every layer, in fp32",
        values=("virtual_tokens", "projection"),
        mergeable=False,
        servable="beside its base",
        use="many tasks on one untouched base, with more room than prompt",
        default_lr=1e-2,
        lr_source="PEFT's example, without projection; with one, 5e-5 (Li & Liang 2021, arXiv:2101.00190)",
        module="tunesmith.model.methods.prompts",
    ),
}


def _first_five(spec: MethodSpec) -> list[Problem]:
    """Of the values that every method has, read or not."""
    found = []
    if spec.rank < 1:
        found.append(_problem("rank", f"{spec.rank!r} is not a positive integer", "try 16"))
    if not 0 < spec.alpha < math.inf:
        found.append(_problem("alpha", f"{spec.alpha!r} is not positive and finite", "twice the rank is usual"))
    if not 0 <= spec.dropout < 1:
        found.append(_problem("dropout", f"{spec.dropout!r} is not in [0, 1)", "0.05 is usual, 0 is none"))
    names = (spec.targets,) if isinstance(spec.targets, str) else spec.targets
    if not names or not all(names):
        what = f"{spec.targets!r} names no module"
        found.append(_problem("targets", what, "use all-linear, or a list of module names"))
    return found


def _unread(spec: MethodSpec) -> list[Problem]:
    """Values that were set and that the kind would pass over."""
    found = []
    for field in fields(spec)[5:]:
        value = getattr(spec, field.name)
        if value != field.default and field.name not in METHODS[spec.kind].values:
            readers = ", ".join(k for k, m in METHODS.items() if field.name in m.values)
            what = f"{value!r} would change nothing: {spec.kind} does not read it"
            found.append(_problem(field.name, what, f"leave it out, or use {readers}"))
    return found


def _impossible(spec: MethodSpec) -> list[Problem]:
    found = []
    if spec.init not in ("uniform", "pissa", "olora", "eva"):
        found.append(_problem("init", f"{spec.init!r} is not uniform, pissa, olora or eva", "use uniform"))
    if not 0 < spec.b_lr_ratio < math.inf:
        what = f"{spec.b_lr_ratio!r} is not positive and finite"
        found.append(_problem("b_lr_ratio", what, "16 is what LoRA+ recommends"))
    for pattern, rank in spec.ranks:
        if not pattern or rank < 1:
            what = f"{pattern!r}: {rank!r} is not a pattern and a positive rank"
            found.append(_problem("ranks", what, "for example down_proj: 8"))
    if spec.init in ("pissa", "olora"):
        if spec.dora:
            what = f"dora cannot start from {spec.init}: its lengths belong to the untouched base"
            found.append(_problem("dora", what, "use init: uniform"))
        if spec.kind == "qlora":
            what = f"{spec.init} decomposes the base's weights, and here they are quantized"
            found.append(_problem("init", what, "use kind: lora, or init: uniform"))
    if spec.kind == "qlora":
        if spec.bits not in (4, 8):
            found.append(_problem("bits", f"{spec.bits!r} is not 4 or 8", "4 takes half the memory of 8"))
        if spec.double_quant and spec.bits != 4:
            found.append(_problem("double_quant", "is only for 4 bits", "leave it out, or use bits: 4"))
    if spec.kind == "bottleneck":
        if spec.placement not in ("houlsby", "pfeiffer", "parallel"):
            what = f"{spec.placement!r} is not houlsby, pfeiffer or parallel"
            found.append(_problem("placement", what, "pfeiffer is one adapter in each layer"))
        if spec.activation not in ("relu", "gelu", "silu", "tanh"):
            found.append(_problem("activation", f"{spec.activation!r} is not relu, gelu, silu or tanh", "use relu"))
        if not 0 <= spec.reduction < math.inf:
            what = f"{spec.reduction!r} is negative or not finite"
            found.append(_problem("reduction", what, "16 is usual, or 0 and a rank"))
        if spec.scaling == 0 or not math.isfinite(spec.scaling):
            found.append(_problem("scaling", f"{spec.scaling!r} would train nothing sound", "1, or 4 for parallel"))
    if spec.kind in ("prompt", "p_tuning", "prefix") and spec.virtual_tokens < 1:
        found.append(_problem("virtual_tokens", f"{spec.virtual_tokens!r} is not a positive integer", "try 20"))
    if spec.projection < 0 or (spec.kind == "p_tuning" and spec.projection < 1):
        found.append(_problem("projection", f"{spec.projection!r} is not a positive integer", "try 128"))
    if spec.kind == "full" and isinstance(spec.train_layers, str) and spec.train_layers != "all":
        count = spec.train_layers.removeprefix("last:")
        if count == spec.train_layers or not count.isdecimal() or int(count) < 1:
            what = f"{spec.train_layers!r} is not all, last:N or a list of patterns of parameter names"
            found.append(_problem("train_layers", what, "last:4 trains the last four layers"))
    elif not spec.train_layers:
        found.append(_problem("train_layers", "is empty: nothing would be trained", "last:4, or patterns"))
    return found


def _problem(field: str, what: str, fix: str) -> Problem:
    return Problem(where=f"train.method.{field}", what=what, fix=fix)


def methods_facts() -> list[dict[str, Any]]:
    """The catalogue for a reader: one plain dictionary a method, in the catalogue's order."""
    return [
        {
            "name": name,
            "trains": m.trains,
            "values": list(m.values),
            "mergeable": m.mergeable,
            "servable": m.servable,
            "use": m.use,
            "default_lr": m.default_lr,
            "lr_source": m.lr_source,
            "extra": m.extra,
        }
        for name, m in METHODS.items()
    ]


def method_json(spec: MethodSpec) -> dict[str, Any]:
    """The "method" entry of checkpoint.json."""
    return dict(plain(spec))


def read_method(checkpoint: Path) -> MethodSpec:
    """The MethodSpec in a checkpoint's checkpoint.json; fields that it lacks were not in use. Raises ModelError."""
    path = checkpoint / "checkpoint.json"
    try:
        values = read_json(path)["method"]
        if unknown := sorted(set(values) - {f.name for f in fields(MethodSpec)}):
            raise TypeError(f"{', '.join(unknown)} would be passed over")
        return msgspec.convert(values, MethodSpec)
    except OSError as e:
        raise ModelError("cannot be read", where=str(path), fix="give the folder of a checkpoint or bundle") from e
    except (msgspec.MsgspecError, KeyError, TypeError, InputError) as e:
        raise ModelError(f"names no method that is known here: {e}", where=str(path), fix="train it again") from e


NO_NEW_ROWS = ("prompt", "p_tuning", "prefix")  # what they train is no part of the model that answers


def new_token_problems(tokens: Sequence[str], method: MethodSpec) -> list[Problem]:
    """What is wrong with new tokens and their training by this method, whatever the base."""
    found = listed_problems(tokens)
    if tokens and method.kind in NO_NEW_ROWS:
        what = f"{method.kind} leaves the whole model as it is, its embeddings too"
        found.append(Problem(where=WHERE, what=what, fix="train with kind: lora, or leave the new tokens out"))
    if tokens and method.kind == "full" and method.train_layers != "all":
        what = f"would not be trained: train_layers is {method.train_layers!r}"
        found.append(Problem(where=WHERE, what=what, fix="train_layers: all, or kind: lora"))
    return found


def new_tokens_of(checkpoint: Path) -> dict[str, int]:
    """The tokens that a checkpoint adds to its base, and their ids, in the ids' order; empty for most."""
    said: dict[str, int] = read_json(checkpoint / "checkpoint.json").get("new_tokens", {})
    return dict(sorted(said.items(), key=lambda item: item[1]))
