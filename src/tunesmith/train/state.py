"""What a killed training needs to go on as if nothing had happened.

Files in work.state: `best-<step>.safetensors`, the weights of each validation that is held (retention.py: the best, and
more where they are asked for), `kept-<step>.safetensors`, those of the last few where a mean of them is wanted, and
`training.safetensors`, everything else, which names the others. Each is written beside its place, synced and renamed,
weights first, and what is no longer held goes last: whenever the process dies, the previous state or the new one is
whole.
Where weights are split among ranks, each writes its own into the folder `parts-<step>-<n>` (parallel/parts.py), and
`training.safetensors`, written last, names it: any number of ranks goes on from there.
The order of rows and the learning rate are functions of the step, so they need no memory.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.canonical import sync_folder
from tunesmith.core.errors import StorageError
from tunesmith.train.optimizers.catalog import AnyOptimizer
from tunesmith.train.parallel.world import ALONE, World

FILE = "training.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutBatch:
    """A batch whose loss was so far off that it was not trained on."""

    step: int  # counted from 1
    loss: float | None  # None: not finite
    rows: tuple[int, ...]  # places in train.jsonl
    whole: bool = True  # False: only these rows of it were broken, and the others were trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """What a validation found, beside the training loss since the one before."""

    step: int
    training_loss: float | None  # mean over the steps; None if none was taken
    validation_loss: float
    metric: float | None = None  # the goal's own, where it is measured
    allowed: bool = True  # False: it forgot too much to be the best


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where training stands. Everything but `seconds` and `micro_batch_tokens` is the same in a resumed run."""

    spec_id: str  # content id of the spec, so that state never goes on under other values
    step: int = 0  # optimizer steps done
    tokens: int = 0  # real tokens trained on
    best_step: int = 0  # 0: no validation yet, or the untrained model
    best: float | None = None  # the metric's value then
    best_loss: float | None = None  # validation loss then
    waited: int = 0  # validations since the best
    seconds: float = 0.0  # spent in training steps, over all executions
    recent: tuple[float, ...] = ()  # the last steps' losses
    since: tuple[float, int] = (0.0, 0)  # sum and number of losses since the last validation
    left_out: tuple[LeftOutBatch, ...] = ()
    judgments: tuple[Judgment, ...] = ()  # of all validations
    micro_batch_tokens: int = 0  # what memory was found to hold; 0: it never ran out

    def trained(self, loss: float, *, tokens: int, seconds: float, window: int) -> Position:
        """After a step; one on no row at all (tokens 0) has no loss."""
        at = replace(self, step=self.step + 1, tokens=self.tokens + tokens, seconds=self.seconds + seconds)
        if not tokens:
            return at
        total, n = self.since
        return replace(at, recent=(*self.recent, loss)[-window:], since=(total + loss, n + 1))

    def skipped(self, loss: float, rows: Sequence[int], *, seconds: float) -> Position:
        """After a batch that was left out."""
        batch = LeftOutBatch(step=self.step + 1, loss=loss if math.isfinite(loss) else None, rows=tuple(rows))
        left_out = (*self.left_out, batch)
        return replace(self, step=self.step + 1, seconds=self.seconds + seconds, left_out=left_out)

    def without(self, loss: float, rows: Sequence[int]) -> Position:
        """Before the same step again, without these rows of its batch."""
        known = loss if math.isfinite(loss) else None
        batch = LeftOutBatch(step=self.step + 1, loss=known, rows=tuple(rows), whole=False)
        return replace(self, left_out=(*self.left_out, batch))

    def remaining(self, rows: Sequence[int]) -> list[int]:
        """Those of `rows` that were not left out."""
        gone = {i for batch in self.left_out for i in batch.rows}
        return [i for i in rows if i not in gone]

    def after(self, loss: float, metric: float | None, higher_is_better: bool, *, allowed: bool = True) -> Position:
        """With a validation's outcome: better by the metric, ties by the loss; by the loss where there is no metric.
        Not `allowed`: it forgot too much to be kept, however good it is."""
        total, n = self.since
        judgment = Judgment(
            step=self.step,
            training_loss=total / n if n else None,
            validation_loss=loss,
            metric=metric,
            allowed=allowed,
        )
        self = replace(self, judgments=(*self.judgments, judgment), since=(0.0, 0))
        if self.best_loss is None:
            gained = True
        elif metric is None or self.best is None or metric == self.best:
            gained = loss < self.best_loss
        else:
            gained = (metric > self.best) == higher_is_better
        if gained and allowed:
            return replace(self, best_step=self.step, best=metric, best_loss=loss, waited=0)
        return replace(self, waited=self.waited + 1)


def save(
    folder: Path,
    position: Position,
    parameters: Mapping[str, nn.Parameter],
    optimizer: AnyOptimizer,
    more: Mapping[str, Tensor] | None = None,
    kept: int = 0,
    world: World = ALONE,
    held: Sequence[int] = (),
) -> None:
    """`more`: further tensors of the recipe by name, which `resume_more` gives back. `kept`: of how many last
    validations the weights stay on disk for a mean. `held`: steps whose judged weights stay beside the best."""
    tensors, values = world.remembered(optimizer, parameters)
    more = {f"more.{n}": t for n, t in world.whole(more or {}).items()}
    facts = {"position": json.dumps(asdict(position)), "memory": values}
    names = (folder / f"parts-{position.step}-{n}" for n in itertools.count())
    parts = next(p for p in names if not p.exists())  # one that a kill left behind is never written into
    world.wait()  # all have the same name for it before one makes it
    tensors = world.write_parts(parts, tensors)
    world.wait()
    if not world.writes:
        return
    if parts.exists():
        facts["parts"] = parts.name
        sync_folder(folder)
    tensors = {**tensors, **more, "rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    _write(folder / FILE, tensors, facts)
    for old in folder.glob("parts-*"):
        if old != parts:
            shutil.rmtree(old)
    wanted = {f"best-{step}.safetensors" for step in (position.best_step, *held)}
    wanted |= {f"kept-{j.step}.safetensors" for j in position.judgments[max(0, len(position.judgments) - kept) :]}
    for old in (*folder.glob("best-*.safetensors"), *folder.glob("kept-*.safetensors")):
        if old.name not in wanted:
            old.unlink()


def keep(folder: Path, step: int, parameters: Mapping[str, nn.Parameter], world: World = ALONE) -> None:
    """The weights of a validation, for `mean_of_kept`. Call before the `save` whose position judges it."""
    _write_weights(folder / f"kept-{step}.safetensors", parameters, world)


def mean_of_kept(folder: Path, steps: Sequence[int]) -> dict[str, Tensor]:
    """The mean of kept weights, summed in float64."""
    total: dict[str, Tensor] = {}
    for step in steps:
        for name, tensor in _read(folder / f"kept-{step}.safetensors").items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {n: (t / len(steps)).float() for n, t in total.items()}


def hold(folder: Path, step: int, parameters: Mapping[str, nn.Parameter], world: World = ALONE) -> None:
    """The weights that a validation judged. Call before the `save` that names its step."""
    _write_weights(folder / f"best-{step}.safetensors", parameters, world)


def load_held(folder: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put held weights back, into weights that are whole."""
    _fill(parameters, _read(folder / f"best-{step}.safetensors"), prefix="")


def resume(
    folder: Path,
    spec_id: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: AnyOptimizer,
    world: World = ALONE,
) -> Position:
    """Weights, the optimizer's memory and random state as saved, or the start. Raises StorageError for state
    that is damaged or of another spec."""
    for torn in folder.glob("*.tmp"):
        torn.unlink(missing_ok=True)
    world.share(folder)
    path = folder / FILE
    if not path.exists():
        return Position(spec_id=spec_id)
    saved = _read(path)
    with safe_open(path, "pt") as f:
        facts = f.metadata()
    if "parts" in facts:
        from tunesmith.train.parallel import parts  # late: one process that was always alone needs none of it

        saved |= parts.read(folder / facts["parts"], parameters)
    position = msgspec.json.decode(facts["position"], type=Position)
    if position.spec_id != spec_id or any(f"weight.{n}" not in saved for n in parameters):
        raise StorageError("is of another training", where=str(path), fix=f"remove {folder} to start anew")
    world.recall(optimizer, parameters, saved, facts["memory"])
    torch.set_rng_state(saved["rng"])
    if torch.cuda.is_available() and "rng_cuda" in saved:
        torch.cuda.set_rng_state(saved["rng_cuda"])
    return position


def resume_more(folder: Path) -> dict[str, Tensor]:
    """The `more` of the last `save`; empty on a fresh run."""
    return _under(_read(folder / FILE), "more.") if (folder / FILE).exists() else {}


def _write_weights(path: Path, parameters: Mapping[str, nn.Parameter], world: World) -> None:
    whole = world.whole({n: p.detach() for n, p in parameters.items()})
    if world.writes:
        _write(path, whole, {})


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
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as e:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"could not save the training state: {e}", where=str(path), fix="free space, then run the command again"
        ) from e
