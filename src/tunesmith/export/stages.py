"""The contracts of bundle and merge; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.errors import require
from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSpec:
    name: str  # the project's name, for the card
    kind: str
    audience: str
    tone: str
    system: str  # the default system prompt it was trained with
    base_name: str  # catalogue or hub name
    base_artifact: str
    base_files: dict[str, dict[str, Any]]  # path -> {"sha256", "bytes"}
    base_license: str
    precision: str  # of the evaluated answers: fp32 or bf16
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInputs:
    checkpoint: Path
    base: Path
    dataset: Path
    report: Path
    verdict: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleOutputs:
    bundle: Path = field(metadata={"kind": "bundle"})


BUNDLE = Stage(
    name="bundle",
    version=1,
    function="tunesmith.export.bundle:bundle",
    spec=BundleSpec,
    inputs=BundleInputs,
    outputs=BundleOutputs,
)

How = Literal["whole", "average", "ties", "dare", "svd", "slerp"]
HOW = ("whole", "average", "ties", "dare", "svd", "slerp")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSpec:
    """One checkpoint into whole weights, or several into one."""

    how: How
    weights: tuple[float, ...]  # one for each checkpoint; () for whole
    density: float  # of ties: the share of each update that is kept, the largest; of dare: by chance; 1 elsewhere
    rank: int  # of the adapter that comes out; 0: exact, which an average of adapters can be
    seed: int  # of dare
    prompts_of: int | None  # whose renderer the result has, from 0, where the checkpoints' differ
    precision: Literal["fp32", "bf16"]  # of whole weights: merged in fp32 and cast once
    base: str  # portable name of the base model

    def __post_init__(self) -> None:
        require(self.how in HOW, "how", self.how, f"one of {', '.join(HOW)}")
        require(0 < self.density <= 1, "density", self.density, "in (0, 1]")
        require(self.rank >= 0, "rank", self.rank, "0 (exact) or positive")
        require(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeInputs:
    base: Path
    checkpoints: dict[str, Path]  # "0", "1", ... in the order of the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOutputs:
    checkpoint: Path = field(metadata={"kind": "checkpoint"})


MERGE = Stage(
    name="merge",
    version=1,
    function="tunesmith.export.merge:merge",
    spec=MergeSpec,
    inputs=MergeInputs,
    outputs=MergeOutputs,
)
