"""What domain adaptation takes and gives. No torch here: planning and `--help` import this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.errors import InputError, require
from tunesmith.core.stage import Stage
from tunesmith.model.methods.spec import MethodSpec, new_token_problems
from tunesmith.train.optimizers.names import OPTIMIZERS, Name
from tunesmith.train.stages import is_pattern, weight_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSpec:
    """Everything that changes the weights, or which of them are kept."""

    method: MethodSpec
    base: str  # as the user named it; written into checkpoint.json
    lr: float  # the peak, after warm-up
    epochs: float  # 0.5: the first half of the first epoch's order, by tokens
    global_batch: int  # an optimizer step takes texts of up to global_batch * max_tokens tokens
    max_tokens: int  # of a window: longer texts are divided, none is cut
    schedule: Literal["cosine", "linear", "constant", "wsd"]
    warmup: float  # share of all steps in which the rate rises from 0
    decay: float  # share of all steps in which wsd falls to 0; other schedules do not read it
    optimizer: Name
    lr_ratios: tuple[tuple[str, float], ...]  # (pattern of weight names, multiple of the rate); the first match counts
    weight_decay: float
    max_grad_norm: float
    precision: Literal["fp32", "bf16"]
    weights: Literal["fp32", "bf16"]  # of full fine-tuning; adapters are fp32
    master: Literal["fp32", "stochastic"]  # of bf16 weights: fp32 copies, or steps rounded by chance
    metric: Literal["bits_per_byte", "perplexity"]  # by which the best weights are chosen
    validate_times: int
    validation_rows: int  # texts, at most so many of the domain, and of each file of general data
    patience: int | None  # validations without gain before stopping
    mixture: tuple[tuple[str, float], ...]  # (file, pattern of files, or "general"; share of the tokens)
    max_loss_rise: float | None  # of general data, relative; None: no budget
    past_budget: Literal["stop", "replay"]
    replay_share: float  # of a step's tokens, once the budget was exceeded and past_budget is replay
    refusals: str  # a pattern: general questions whose answer matches it must be refused; "": none are counted
    new_tokens: tuple[str, ...]  # one token each beside the base's own, whose rows are trained: text/growth.py
    keep: int  # validated checkpoints, the best so many, the best itself among them
    keep_last: int  # and the newest so many
    seed: int

    def __post_init__(self) -> None:
        require(self.lr > 0, "train.lr", self.lr, "above 0")
        require(self.epochs > 0, "train.epochs", self.epochs, "above 0")
        require(self.global_batch >= 1, "train.global_batch", self.global_batch, "at least 1")
        require(self.max_tokens >= 2, "train.max_tokens", self.max_tokens, "at least 2")
        require(0 <= self.warmup <= 1, "train.warmup", self.warmup, "in [0, 1]")
        require(0 < self.decay <= 1, "train.decay", self.decay, "in (0, 1]")
        known = ", ".join(OPTIMIZERS)
        require(self.optimizer in OPTIMIZERS, "train.optimizer", self.optimizer, f"an optimizer: {known}")
        if self.optimizer == "schedule_free":
            fit = "constant with schedule_free, which averages in place of a falling rate"
            require(self.schedule == "constant", "train.schedule", self.schedule, fit)
        if self.optimizer == "muon":
            fit = "full with muon, which turns whole weight matrices"
            require(self.method.kind == "full", "train.method.kind", self.method.kind, fit)
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or above")
        require(self.max_grad_norm > 0, "train.max_grad_norm", self.max_grad_norm, "above 0")
        require(self.precision in ("fp32", "bf16"), "train.precision", self.precision, "fp32 or bf16 (resolve auto)")
        if problems := weight_problems(self.weights, self.master, self.method.kind, self.precision):
            raise InputError(problems)
        if problems := new_token_problems(self.new_tokens, self.method):
            raise InputError(problems)
        require(self.validate_times >= 1, "train.validate_times", self.validate_times, "at least 1")
        require(0 < self.replay_share < 1, "train.replay_share", self.replay_share, "between 0 and 1")
        require(is_pattern(self.refusals), "train.refusals", self.refusals, "a regular expression")
        require(self.keep >= 1, "train.keep", self.keep, "at least 1: the best")
        require(self.keep_last >= 0, "train.keep_last", self.keep_last, "0 or above")
        names = [name for name, _ in self.mixture]
        require(len(set(names)) == len(names), "train.mixture", names, "each source once")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainInputs:
    dataset: Path  # texts of the domain
    base: Path
    general: Path | None  # a prepared data set of any kind: its training rows are replayed, its validation rows scored


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainOutputs:
    checkpoint: Path = field(metadata={"kind": "checkpoint"})
    kept: dict[str, Path] = field(default_factory=dict, metadata={"kind": "checkpoint"})  # those beside it, by step


DOMAIN = Stage(
    name="domain",
    version=2,
    function="tunesmith.train.recipes.domain:domain",
    spec=DomainSpec,
    inputs=DomainInputs,
    outputs=DomainOutputs,
)
