"""What training takes and gives. No torch here: planning and `--help` import this module."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.errors import InputError, Problem, require
from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage
from tunesmith.model.methods.spec import MethodSpec, new_token_problems
from tunesmith.train.optimizers.names import OPTIMIZERS, Name

MANY_EPOCHS, SMALL_SET = 3, 5000  # beyond so many epochs over fewer rows there is a note


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
    schedule: Literal["cosine", "linear", "constant", "wsd"]
    warmup: float  # share of all steps in which the rate rises from 0
    decay: float  # share of all steps in which wsd falls to 0; other schedules do not read it
    optimizer: Name
    lr_ratios: tuple[tuple[str, float], ...]  # (pattern of weight names, multiple of the rate); the first match counts
    weight_decay: float
    max_grad_norm: float
    label_smoothing: float  # share of each target spread over the whole vocabulary
    neftune_alpha: float  # noise on the embeddings while training; 0: none
    on_spike: Literal["ignore", "stop", "skip"]  # what a batch's loss far above the recent ones does
    spike_z: float  # how many robust standard deviations are far
    averaging: Literal["none", "ema", "last"]  # which weights are validated and kept: the trained ones, or a mean
    ema_decay: float  # of the exponential mean
    average_last: int  # of how many last validations' weights the mean is made
    precision: Literal["fp32", "bf16"]  # of the forward pass
    weights: Literal["fp32", "bf16"]  # of full fine-tuning; adapters are fp32
    master: Literal["fp32", "stochastic"]  # of bf16 weights: fp32 copies, or steps rounded by chance
    metric: str  # the goal's own, from metrics/; "" where only the loss decides
    validate_times: int  # evenly over the run, where neither of the next two is given
    validate_every_steps: int | None
    validate_every_epochs: float | None
    validation_rows: int  # at most so many, a seeded choice
    patience: int | None  # validations without gain before stopping
    max_new_tokens: int  # when validation must generate answers
    template: str  # how users' turns are worded where the model serves, and in validation: core/wording.py
    templates: tuple[tuple[str, str], ...]  # (name, wording): further ones in training, drawn for each row and epoch
    systems: tuple[tuple[str, str], ...]  # (name, prompt): further system prompts in training, drawn likewise
    turns: Literal["all", "last"]  # of the assistant, in a conversation: which are trained
    mixture: tuple[tuple[str, float], ...]  # (file, pattern of files, or "general"; share of the examples)
    max_loss_rise: float | None  # of general data, relative; None: no budget for forgetting
    past_budget: Literal["stop", "replay"]
    replay_share: float  # of a step's examples, once the budget was exceeded and past_budget is replay
    refusals: str  # a pattern: general questions whose answer matches it must be refused; "": none are counted
    new_tokens: tuple[str, ...]  # one token each beside the base's own, whose rows are trained: text/growth.py
    keep: int  # validated checkpoints, the best so many, the best itself among them
    keep_last: int  # and the newest so many
    seed: int

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", self.lr, "above 0")
        require(self.epochs > 0, "epochs", self.epochs, "above 0")
        require(self.global_batch >= 1, "global_batch", self.global_batch, "at least 1")
        require(0 <= self.warmup <= 1, "warmup", self.warmup, "in [0, 1]")
        require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        require(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16 (resolve auto first)")
        require(self.validate_times >= 1, "validate_times", self.validate_times, "at least 1")
        require(0 < self.decay <= 1, "decay", self.decay, "in (0, 1]")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or above")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")
        require(self.neftune_alpha >= 0, "neftune_alpha", self.neftune_alpha, "0 or above")
        require(self.spike_z > 0, "spike_z", self.spike_z, "above 0")
        require(0 < self.ema_decay < 1, "ema_decay", self.ema_decay, "in (0, 1)")
        require(self.average_last >= 1, "average_last", self.average_last, "at least 1")
        require(self.turns in ("all", "last"), "train.turns", self.turns, "all or last")
        require(0 < self.replay_share < 1, "train.replay_share", self.replay_share, "between 0 and 1")
        require(is_pattern(self.refusals), "train.refusals", self.refusals, "a regular expression")
        require(self.keep >= 1, "train.keep", self.keep, "at least 1: the best")
        require(self.keep_last >= 0, "train.keep_last", self.keep_last, "0 or above")
        names = [name for name, _ in self.mixture]
        require(len(set(names)) == len(names), "train.mixture", names, "each source once")
        if problems := new_token_problems(self.new_tokens, self.method):
            raise InputError(problems)
        _check_optimizer(self)
        _check_validation(self)


def is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _check_optimizer(spec: SftSpec) -> None:
    """Refuse pairs that would train badly in silence."""
    known = ", ".join(OPTIMIZERS)
    require(spec.optimizer in OPTIMIZERS, "train.optimizer", spec.optimizer, f"an optimizer: {known}")
    for pattern, ratio in spec.lr_ratios:
        require(ratio > 0, f"train.lr_ratios: {pattern}", ratio, "above 0")
    problems = []
    if spec.optimizer == "schedule_free" and spec.schedule != "constant":
        what = f"schedule_free averages in place of a falling rate, and {spec.schedule} lets it fall too"
        problems.append(Problem(where="train.schedule", what=what, fix="--set train.schedule=constant"))
    if spec.optimizer == "schedule_free" and spec.averaging != "none":
        what = "schedule_free keeps a mean of the weights itself"
        problems.append(Problem(where="train.averaging", what=what, fix="--set train.averaging=none"))
    if spec.optimizer == "muon" and spec.method.kind != "full":
        what = f"muon turns whole weight matrices, and {spec.method.kind} trains none"
        problems.append(Problem(where="train.optimizer", what=what, fix="--set train.optimizer=adamw"))
    problems += weight_problems(spec.weights, spec.master, spec.method.kind, spec.precision)
    if spec.weights == "bf16" and spec.averaging != "none":
        what = "a mean of bf16 weights would be rounded at every step"
        problems.append(Problem(where="train.averaging", what=what, fix="--set train.averaging=none"))
    if problems:
        raise InputError(problems)


def weight_problems(weights: str, master: str, method: str, precision: str) -> list[Problem]:
    """Of bf16 weights where they cannot be."""
    problems = []
    if weights == "bf16" and method != "full":
        what = f"bf16 is for full fine-tuning, and the weights that {method} trains are few: they stay in fp32"
        problems.append(Problem(where="train.weights", what=what, fix="--set train.weights=fp32"))
    if weights == "bf16" and precision != "bf16":
        what = "bf16 weights cannot give fp32 products"
        problems.append(Problem(where="train.precision", what=what, fix="--set train.precision=bf16"))
    if weights == "fp32" and master != "fp32":
        what = "rounding by chance is for bf16 weights, and these are fp32"
        problems.append(Problem(where="train.master", what=what, fix="--set train.weights=bf16"))
    return problems


def _check_validation(spec: SftSpec) -> None:
    steps, epochs = spec.validate_every_steps, spec.validate_every_epochs
    require(steps is None or steps >= 1, "train.validate_every_steps", steps, "at least 1")
    require(epochs is None or epochs > 0, "train.validate_every_epochs", epochs, "above 0")
    if steps is not None and epochs is not None:
        what = "is given beside validate_every_steps, which says something else"
        raise InputError(Problem(where="train.validate_every_epochs", what=what, fix="give one of them"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SftInputs:
    dataset: Path
    base: Path
    general: Path | None = None  # a prepared data set of any kind: its training rows are replayed, its others scored
    start: Path | None = None  # a checkpoint that is merged into the base first, such as one of domain adaptation


@dataclass(frozen=True, slots=True, kw_only=True)
class SftOutputs:
    checkpoint: Path = field(metadata={"kind": "checkpoint"})
    kept: dict[str, Path] = field(default_factory=dict, metadata={"kind": "checkpoint"})  # those beside it, by step


def many_epochs(epochs: float, rows: int) -> str:
    """A note where a small set is read so often that the model will know it by heart; "" elsewhere."""
    if epochs <= MANY_EPOCHS or rows >= SMALL_SET:
        return ""
    return (
        f"{epochs:g} epochs over {rows} rows: after about {MANY_EPOCHS} a model mostly learns a small set by heart."
        " Watch the validation loss, or set train.patience."
    )


SFT = Stage(
    name="sft",
    version=2,
    function="tunesmith.train.recipes.sft:sft",
    spec=SftSpec,
    inputs=SftInputs,
    outputs=SftOutputs,
)
