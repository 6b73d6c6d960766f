"""What a killed training needs to go on as if nothing had happened.

Two kinds of file in work.state: `best-<step>.safetensors`, the weights of the best validation, and
`training.safetensors`, everything else, which names the best. Each is written beside its place, synced
and renamed, the best first: whenever the process dies, the previous state or the new one is whole.
The order of rows and the learning rate are functions of the step, so they need no memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.canonical import sync_folder
from tunesmith.core.errors import StorageError
from tunesmith.train.optimizers.catalog import AnyOptimizer, memory, restore

FILE = "training.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where training stands. Everything but `seconds` is the same in a resumed run."""

    spec_id: str  # content id of the spec, so that state never goes on under other values
    step: int = 0  # optimizer steps done
    tokens: int = 0  # real tokens trained on
    best_step: int = 0  # 0: no validation yet
    best: float | None = None  # the metric's value then
    best_loss: float | None = None  # validation loss then
    waited: int = 0  # validations since the best
    seconds: float = 0.0  # spent in training steps, over all executions

    def after(self, loss: float, metric: float | None, higher_is_better: bool) -> Position:
        """With a validation's outcome: better by the metric, ties by the loss; by the loss where there is no metric."""
        if self.best_step == 0 or self.best_loss is None:
            gained = True
        elif metric is None or self.best is None or metric == self.best:
            gained = loss < self.best_loss
        else:
            gained = (metric > self.best) == higher_is_better
        if gained:
            return replace(self, best_step=self.step, best=metric, best_loss=loss, waited=0)
        return replace(self, waited=self.waited + 1)


def save(
    folder: Path,
    position: Position,
    parameters: Mapping[str, nn.Parameter],
    optimizer: AnyOptimizer,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """`more`: further tensors of the recipe by name, which `resume_more` gives back."""
    tensors = {f"weight.{n}": p.detach() for n, p in parameters.items()}
    remembered, values = memory(optimizer, parameters)
    tensors |= {f"memory.{n}": t for n, t in remembered.items()}
    tensors |= {f"more.{n}": t for n, t in (more or {}).items()}
    tensors["rng"] = torch.get_rng_state()
    _write(folder / FILE, tensors, {"position": json.dumps(asdict(position)), "memory": values})
    for old in folder.glob("best-*.safetensors"):
        if old.name != f"best-{position.best_step}.safetensors":
            old.unlink()


def save_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Call before the `save` whose position names it."""
    _write(folder / f"best-{step}.safetensors", {n: p.detach() for n, p in parameters.items()}, {})


def load_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put the best weights back."""
    _fill(parameters, _read(folder / f"best-{step}.safetensors"), prefix="")


def resume(
    folder: Path,
    spec_id: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: AnyOptimizer,
) -> Position:
    """Weights, the optimizer's memory and random state as saved, or the start. Raises StorageError for state
    that is damaged or of another spec."""
    for torn in folder.glob("*.tmp"):
        torn.unlink()
    path = folder / FILE
    if not path.exists():
        return Position(spec_id=spec_id)
    saved = _read(path)
    with safe_open(path, "pt") as f:
        facts = f.metadata()
    position = msgspec.json.decode(facts["position"], type=Position)
    if position.spec_id != spec_id or any(f"weight.{n}" not in saved for n in parameters):
        raise StorageError("is of another training", where=str(path), fix=f"remove {folder} to start anew")
    _fill(parameters, saved, prefix="weight.")
    restore(optimizer, parameters, _under(saved, "memory."), facts["memory"])
    torch.set_rng_state(saved["rng"])
    return position


def resume_more(folder: Path) -> dict[str, Tensor]:
    """The `more` of the last `save`; empty on a fresh run."""
    return _under(_read(folder / FILE), "more.") if (folder / FILE).exists() else {}


def _under(saved: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}


def _fill(parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor], *, prefix: str) -> None:
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(saved[prefix + name])


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise StorageError(f"cannot be read: {e}", where=str(path), fix=f"remove {path.parent} to start anew") from e


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as e:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"could not save the training state: {e}", where=str(path), fix="free space, then run the command again"
        ) from e
