"""The two stages of this room, without their code: what they take, what they give, what decides the result.

curve    dataset -> curve.json: the score on validation against the number of training rows, and a forecast
compare  dataset, a sample of real inputs -> compare.json: can a classifier tell them apart, and by which terms
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSpec:
    """How the learning curve is drawn (classify tasks)."""

    points: int  # sizes, each √2 times the one before; the largest is all training rows
    repeats: int  # random orders of the groups; in each, a size holds the smaller ones
    classes: int  # classes with a curve of their own: the worst ones, as far as they can be judged
    most_rows: int  # training rows used at most, drawn by group
    confidence: float  # of the intervals, two-sided
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveInputs:
    dataset: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveOutputs:
    curve: Path = field(metadata={"kind": "curve"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSpec:
    """How a data set is compared with real inputs."""

    text: str | None  # column with the input in a CSV or JSON-lines sample; None: "text", or each line of a .txt file
    most_rows: int  # of each side at most, drawn by hash
    permutations: int  # of which side is which, for the p value
    terms: int  # listed at most, of each side
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareInputs:
    dataset: Path
    sample: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOutputs:
    comparison: Path = field(metadata={"kind": "comparison"})


CURVE = Stage(
    name="curve",
    version=1,
    function="tunesmith.data.enough.curve:curve",
    spec=CurveSpec,
    inputs=CurveInputs,
    outputs=CurveOutputs,
)
COMPARE = Stage(
    name="compare",
    version=1,
    function="tunesmith.data.enough.compare:compare",
    spec=CompareSpec,
    inputs=CompareInputs,
    outputs=CompareOutputs,
)
