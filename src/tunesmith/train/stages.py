"""What training takes and gives. No torch here: planning and `--help` import this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.errors import require
from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage
from tunesmith.model.methods.spec import MethodSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSpec:
    """Everything that changes the weights, or which of them are kept."""

    kind: Kind
    method: MethodSpec
    base: str  # as the user named it; written into checkpoint.json
    system: str  # system prompt for rows that carry none
    lr: float  # the peak, after warm-up
    epochs: float  # 0.5: the first half of the first epoch's order
    global_batch: int  # examples per optimizer step, however they are split
    max_tokens: int  # longest example, prompt and answer; longer ones are refused
    schedule: Literal["cosine", "linear", "constant"]
    warmup: float  # share of all steps in which the rate rises from 0
    weight_decay: float
    max_grad_norm: float
    precision: Literal["fp32", "bf16"]  # of the forward pass; trained weights and optimizer are always fp32
    metric: str  # the goal's own, from metrics/; "" where only the loss decides
    validate_times: int
    validation_rows: int  # at most so many, a seeded choice
    patience: int | None  # validations without gain before stopping
    max_new_tokens: int  # when validation must generate answers
    seed: int

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", self.lr, "above 0")
        require(self.epochs > 0, "epochs", self.epochs, "above 0")
        require(self.global_batch >= 1, "global_batch", self.global_batch, "at least 1")
        require(0 <= self.warmup <= 1, "warmup", self.warmup, "in [0, 1]")
        require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        require(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16 (resolve auto first)")
        require(self.validate_times >= 1, "validate_times", self.validate_times, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftInputs:
    dataset: Path
    base: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SftOutputs:
    checkpoint: Path = field(metadata={"kind": "checkpoint"})


SFT = Stage(
    name="sft",
    version=1,
    function="tunesmith.train.recipes.sft:sft",
    spec=SftSpec,
    inputs=SftInputs,
    outputs=SftOutputs,
)
