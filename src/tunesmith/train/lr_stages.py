"""What the learning-rate range finder takes and gives. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.core.errors import require
from tunesmith.core.stage import Stage
from tunesmith.train.stages import SftInputs, SftSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LrRangeSpec:
    """The training whose rate is sought, and the rates tried."""

    training: SftSpec  # its lr, schedule, epochs and validation are not read
    low: float  # the first rate
    high: float  # the last
    steps: int  # optimizer steps from low to high, evenly on a log scale

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "low", self.low, f"above 0 and below high ({self.high})")
        require(8 <= self.steps <= 1000, "steps", self.steps, "in 8 to 1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class LrRangeOutputs:
    curve: Path = field(metadata={"kind": "lr_curve"})  # a folder with curve.json


LR_RANGE = Stage(
    name="lr_range",
    version=1,
    function="tunesmith.train.recipes.lr_range:lr_range",
    spec=LrRangeSpec,
    inputs=SftInputs,
    outputs=LrRangeOutputs,
)
