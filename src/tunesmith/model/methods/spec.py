"""The methods in one literal catalogue, and the values that choose one. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import plain, read_json
from tunesmith.core.errors import ModelError, require

Kind = Literal["lora", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """Which weights are trained. `full` reads only `kind`."""

    kind: Kind
    rank: int  # inner width of the update
    alpha: float  # the update is scaled by alpha / rank
    dropout: float  # on the update's input, while training
    targets: str | tuple[str, ...]  # "all-linear" (never the output head), or last parts of module names

    def __post_init__(self) -> None:
        require(self.kind in METHODS, "method.kind", self.kind, f"one of {', '.join(METHODS)}")
        require(self.rank >= 1, "method.rank", self.rank, "a positive integer")
        require(self.alpha > 0, "method.alpha", self.alpha, "positive")
        require(0 <= self.dropout < 1, "method.dropout", self.dropout, "in [0, 1)")
        require(bool(self.targets), "method.targets", self.targets, "all-linear or a list of module names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One line of the catalogue."""

    trains: str  # in words, for plan and report
    mergeable: bool  # whether the result is one set of plain weights
    default_lr: float
    module: str  # has wrap, trainable_parameters, save, load, merge


METHODS: dict[str, Method] = {
    "lora": Method(
        trains="a low-rank update of every targeted linear layer, in fp32",
        mergeable=True,
        default_lr=1e-3,
        module="tunesmith.model.methods.lora",
    ),
    "full": Method(
        trains="every weight, in fp32",
        mergeable=True,
        default_lr=2e-5,
        module="tunesmith.model.methods.full",
    ),
}


def method_json(spec: MethodSpec) -> dict[str, Any]:
    """The "method" entry of checkpoint.json."""
    return dict(plain(spec))


def read_method(checkpoint: Path) -> MethodSpec:
    """The MethodSpec in a checkpoint's checkpoint.json. Raises ModelError."""
    path = checkpoint / "checkpoint.json"
    try:
        return msgspec.convert(read_json(path)["method"], MethodSpec)
    except OSError as e:
        raise ModelError("cannot be read", where=str(path), fix="give the folder of a checkpoint or bundle") from e
    except (msgspec.MsgspecError, KeyError, TypeError) as e:
        raise ModelError(f"names no method that is known here: {e}", where=str(path), fix="train it again") from e
