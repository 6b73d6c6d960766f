"""The three stages of evaluation: `answer` (one arm on one split), `evaluate` (all arms), `gate` (goals)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Goal, Kind, SplitName
from tunesmith.core.stage import Stage

Arm = Literal["majority", "lead", "tfidf", "zero_shot", "few_shot", "tuned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """One way to answer, on one split. Labels come from the data set, never from here."""

    arm: Arm
    kind: Kind
    split: SplitName
    system: str  # system prompt of the language-model arms, whole; "" for the others
    few_shot_counts: tuple[int, ...]  # numbers of examples tried; used by few_shot only
    few_shot_draws: int  # seeded draws tried for each count
    few_shot_rows: int  # validation rows on which the choice is made
    precision: Literal["fp32", "bf16"]
    max_new_tokens: int  # of a generated answer; classify chooses among labels instead
    max_tokens: int  # of a domain text that are read at once; a longer one is read in windows. 0 for other kinds
    probabilities: bool  # of every label. Without: the same answers sooner, and nothing to calibrate by
    metric: str  # by which validation chooses: few-shot examples
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInputs:
    dataset: Path
    base: Path | None  # a model folder; None for majority, lead and tfidf
    checkpoint: Path | None  # for tuned only


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOutputs:
    answers: Path = field(metadata={"kind": "answers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSpec:
    """What the report measures. Arms are its inputs; the first metric is the one it leads with."""

    metrics: tuple[str, ...]
    confidence: float  # of the two-sided intervals shown
    resamples: int
    mistakes: int  # how many mistakes of the tuned arm are listed
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateInputs:
    dataset: Path
    answers: dict[str, Path]  # arm -> its answers on the test split


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOutputs:
    report: Path = field(metadata={"kind": "report"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    goals: tuple[Goal, ...]
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInputs:
    report: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutputs:
    verdict: Path = field(metadata={"kind": "verdict"})


ANSWER = Stage(
    name="answer",
    version=1,
    function="tunesmith.evaluate.arms:answer",
    spec=ArmSpec,
    inputs=AnswerInputs,
    outputs=AnswerOutputs,
)
EVALUATE = Stage(
    name="evaluate",
    version=1,
    function="tunesmith.evaluate.report:evaluate",
    spec=EvaluateSpec,
    inputs=EvaluateInputs,
    outputs=EvaluateOutputs,
)
GATE = Stage(
    name="gate",
    version=1,
    function="tunesmith.evaluate.gate:gate",
    spec=GateSpec,
    inputs=GateInputs,
    outputs=GateOutputs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsSpec:
    """Several trained models on the validation rows."""

    metric: str  # by which the best is found
    confidence: float  # of the intervals, and of calling a difference more than noise
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsInputs:
    dataset: Path
    answers: dict[str, Path]  # cell -> its answers on the validation split


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsOutputs:
    comparison: Path = field(metadata={"kind": "comparison"})


CELLS = Stage(
    name="compare_cells",
    version=1,
    function="tunesmith.evaluate.cells:compare_cells",
    spec=CellsSpec,
    inputs=CellsInputs,
    outputs=CellsOutputs,
)
