"""The cells of a matrix: each is the project's `train` with what the cell says in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tunesmith.core.settings import MethodSettings, Settings, TrainSettings

FIVE = ("lora", "full", "qlora", "bottleneck", "prefix")  # on all rows, where nothing else is said


def kinds() -> tuple[str, ...]:
    """Every method of the catalogue, as train.method.kind may name it."""
    return get_args(MethodSettings.model_fields["kind"].annotation)


def cells_of(settings: Settings) -> dict[str, TrainSettings]:
    """Name → the whole settings it trains with; without cells of its own, every method at its own rate.

    A cell that names a method takes all of it, and that method's own rate unless it gives one: a rate that suits
    LoRA would ruin full fine-tuning. Everything else is as `train` says.
    """
    said = settings.matrix.cells or {kind: TrainSettings(method=_only(kind)) for kind in kinds()}
    return {name: _over(settings.train, cell) for name, cell in said.items()}


def full_of(settings: Settings) -> tuple[str, ...]:
    """The cells that are tried on all rows too."""
    if settings.matrix.full is not None:
        return tuple(settings.matrix.full)
    cells = cells_of(settings)
    return tuple(name for name in FIVE if name in cells)


def twins(cells: Mapping[str, Any]) -> dict[str, str]:
    """Cells that say what an earlier one says, and that one."""
    names = list(cells)
    first = {name: next(n for n in names if cells[n] == cells[name]) for name in names}
    return {name: twin for name, twin in first.items() if twin != name}


def _only(kind: str) -> MethodSettings:
    return MethodSettings.model_validate({"kind": kind})


def _over(train: TrainSettings, cell: TrainSettings) -> TrainSettings:
    said: dict[str, Any] = {name: getattr(cell, name) for name in sorted(cell.model_fields_set)}
    own_rate = {"lr": None} if "method" in said else {}
    return train.model_copy(update=own_rate | said)
