"""What an optimizer is called, and what it asks of a training. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["adamw", "adafactor", "lion", "schedule_free", "muon", "adamw_8bit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One line of the catalogue. `bytes_each` is what it remembers of a trained weight, for the planner."""

    summary: str
    bytes_each: float  # of a matrix; adafactor keeps a row and a column only
    lr_factor: float  # usual rate as a multiple of AdamW's
    passing: int = (
        0  # bytes of a number of the largest weight while it is stepped: benchmarks/memory.py --only stepping
    )


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(summary="Adam with decoupled decay, fused; the usual choice", bytes_each=8, lr_factor=1.0),
    "adafactor": Kind(summary="second moments as one row and one column", bytes_each=0.1, lr_factor=1.0, passing=8),
    "lion": Kind(summary="the sign of a moving average; one moment", bytes_each=4, lr_factor=0.1, passing=4),
    "schedule_free": Kind(
        summary="AdamW that averages instead of decaying its rate", bytes_each=12, lr_factor=1.0, passing=8
    ),
    "muon": Kind(summary="orthogonal steps for hidden matrices, AdamW for the rest", bytes_each=4, lr_factor=1.0),
    "adamw_8bit": Kind(summary="AdamW, moments in 8 bits by blocks", bytes_each=2.03, lr_factor=1.0, passing=20),
}
