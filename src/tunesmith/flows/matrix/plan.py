"""What a matrix consists of, and what it will take: cells, what is in the ledger already, seconds.

The speed of a method is what it last reached with this base, else a share of what LoRA reaches: rough figures, from
one-round measurements of full and QLoRA and by estimate for the others. Finished cells correct what is said of the rest.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunesmith.core import matrix_cells
from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Run
from tunesmith.core.settings import Settings, TrainSettings
from tunesmith.core.words import duration
from tunesmith.data.stages import SubsetSpec
from tunesmith.flows import auto
from tunesmith.flows.context import Context
from tunesmith.flows.data_steps import is_domain
from tunesmith.flows.journey import Journey
from tunesmith.flows.matrix.cell import cell_steps, known, prepared, with_rows
from tunesmith.flows.plan import answer_tokens, validated_tokens
from tunesmith.flows.steps import exec_for, method_spec, metrics
from tunesmith.model.methods.spec import METHODS
from tunesmith.train.stages import SftSpec

On = Literal["subset", "all"]
START_S = 12.0  # of a process: its imports, twice the model, the probe of the path
# tokens a second against LoRA's on the flat path
SHARES = {"lora": 1.0, "full": 0.4, "qlora": 0.45, "bottleneck": 0.2, "ia3": 0.2, "prompt": 0.15, "p_tuning": 0.15,
          "prefix": 0.2}  # fmt: skip
PLAIN_LORA = 0.2  # with dropout or noise: off the flat path
BESIDE = 0.5  # answers of a model that is not merged, against one that is
EXTRA_MODULES = {"quant": "bitsandbytes"}


@dataclass(kw_only=True)
class Cell:
    """One training that is compared, and what is known of it."""

    name: str
    on: On
    journey: Journey
    subset: SubsetSpec | None
    spec: SftSpec
    train: Run | None = None
    answer: Run | None = None
    failure: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)  # to train, to answer: a forecast

    @property
    def title(self) -> str:
        return f"{self.name}, all rows" if self.on == "all" else self.name

    @property
    def is_done(self) -> bool:
        return self.answer is not None

    @property
    def rows(self) -> int:
        return int(self.journey.dataset["counts"]["train"])


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPlan:
    """What `tunesmith matrix --plan` says."""

    cells: tuple[dict[str, Any], ...]  # name, on, rows, steps, cached, seconds
    rows: dict[str, int]  # of the whole: train, validation, test
    metric: str
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(c["seconds"] for c in self.cells)

    def __str__(self) -> str:
        width = max(len(c["name"]) for c in self.cells)
        lines = [f"{'cell':<{width}}  {'rows':>7}  {'minutes':>8}  what"]
        for c in self.cells:
            time = "cached" if c["cached"] else f"{c['seconds'] / 60:.1f}"
            lines.append(f"{c['name']:<{width}}  {c['rows']:>7,}  {time:>8}  {c['method']}, lr {c['lr']:g}")
        left = sum(not c["cached"] for c in self.cells)
        lines += [
            "",
            f"{len(self.cells)} cells, {left} of them to do: about {duration(self.seconds)}; "
            f"compared by {self.metric} on {self.rows['validation']:,} validation rows",
            *self.notes,
        ]
        return "\n".join(lines)


def cells_with(context: Context) -> tuple[list[Cell], list[str]]:
    """Every cell, in the order in which they are done, and notes. Everything that can be refused before time is
    spent is refused here: raises InputError with all problems."""
    if is_domain(context):
        what = "the matrix compares trainings on examples, and a domain task has texts"
        raise InputError(what, where="task.kind", fix="set train.method yourself")
    chosen, notes = usable(context.settings)
    refuse_unsound(chosen)
    whole = prepared(context)
    train_rows = whole.dataset["counts"]["train"]
    said = context.settings.matrix
    subset: SubsetSpec | None = SubsetSpec(rows=said.subset, seed=said.seed)
    if said.subset >= train_rows:
        subset = None
        notes.append(f"there are {train_rows:,} training rows, so the subset of {said.subset:,} is all of them")
    few = with_rows(whole, subset)
    full = [name for name in matrix_cells.full_of(context.settings) if name in chosen]
    wanted: list[tuple[str, On]] = [(name, "subset") for name in chosen]
    wanted += [(name, "all") for name in full]
    found, problems = [], []
    for name, on in wanted:
        own = replace(context, settings=context.settings.model_copy(update={"train": chosen[name]}))
        rows = few if on == "subset" else whole
        journey = Journey(context=own, source=whole.source, runs=dict(rows.runs))
        try:
            spec, _ = cell_steps(own)[0].build(journey)
        except InputError as e:
            problems += [replace(p, where=f"matrix.cells.{name}: {p.where}") for p in e.problems]
            continue
        cell = Cell(name=name, on=on, journey=journey, subset=subset if on == "subset" else None, spec=spec)
        cell.train, cell.answer = known(journey)
        found.append(cell)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return found, notes


def usable(settings: Settings) -> tuple[dict[str, TrainSettings], list[str]]:
    """The cells, and for those that nobody named one by one a note where a library is missing."""
    cells = matrix_cells.cells_of(settings)
    if settings.matrix.cells:
        return cells, []
    notes = []
    for name in list(cells):
        extra = METHODS[cells[name].method.kind].extra
        module = EXTRA_MODULES.get(extra)
        if module and importlib.util.find_spec(module) is None:
            del cells[name]
            notes.append(f'{name} is left out: it needs pip install "tunesmith[{extra}]"')
    return cells, notes


def refuse_unsound(cells: dict[str, TrainSettings]) -> None:
    """Values that a method does not read or cannot take, and cells that are the same training with this `train`."""
    problems = [
        Problem(where=f"matrix.cells.{name}", what=f"is the same training as {twin}", fix="remove one, or change it")
        for name, twin in matrix_cells.twins(cells).items()
    ]
    for name, train in cells.items():
        try:
            method_spec(train.method)
        except InputError as e:
            problems += [replace(p, where=f"matrix.cells.{name}: {p.where}") for p in e.problems]
    if problems:
        raise InputError(problems)


def resolve(cells: list[Cell]) -> None:
    """`auto` values of the cells that are to do, measured here so that a cell's own process holds nothing else,
    and their forecasts."""
    todo = [c for c in cells if not c.is_done]
    for cell in todo:
        exec_for(cell.journey, cell_steps(cell.journey.context)[0])
    if todo:
        forecast(cells, training_speed_of_lora(todo[0].journey))


def training_speed_of_lora(journey: Journey) -> float:
    precision = auto.precision(journey.context, journey.base, journey.dataset)
    for run in journey.context.ledger.runs(stage="sft", limit=200):
        if is_like(run, journey, precision) and str(run.metrics.get("path", "")).startswith("flat"):
            return float(run.metrics["tokens_per_s"])
    plain_lora = TrainSettings(precision=precision, max_tokens=journey.context.settings.train.max_tokens)
    settings = journey.context.settings.model_copy(update={"train": plain_lora})
    probe = Journey(context=replace(journey.context, settings=settings), source=journey.source, runs=dict(journey.runs))

    def measured() -> float:
        from tunesmith.train.precision import tokens_per_second

        journey.context.progress(0, 1, "timing a training step")
        spec, _ = cell_steps(probe.context)[0].build(probe)
        return tokens_per_second(journey.base.folder, auto.typical_tokens(journey.dataset), spec)

    question = {"base": journey.base.artifact.id, "precision": precision, "method": "lora"}
    return float(auto.remembered(journey.context, "tokens_per_second", question, measured))


def is_like(run: Run, journey: Journey, precision: str) -> bool:
    same = run.inputs.get("base") == journey.base.artifact.id and run.spec.get("precision") == precision
    return same and run.status == "finished" and bool(run.metrics.get("tokens_per_s"))


def forecast(cells: list[Cell], lora_speed: float) -> None:
    """Sets `seconds` of each cell; (0, 0) where nothing is to do."""
    for cell in cells:
        if cell.is_done:
            continue
        journey, train = cell.journey, cell.journey.context.settings.train
        tokens = journey.dataset["tokens"]
        each = tokens["prompt"]["mean"] + tokens["answer"]["mean"]
        speed = last_speed(cell) or lora_speed * share(cell.spec)
        rows = journey.dataset["counts"]["validation"]
        tried = min(train.validation_rows, rows) * train.validate_times
        training = START_S + cell.rows * cell.spec.epochs * each / speed + tried * validated_tokens(journey) / speed
        beside = 1.0 if METHODS[cell.spec.method.kind].mergeable else BESIDE
        answering = rows * answer_tokens(journey, "tuned") / (lora_speed * beside)
        cell.seconds = (0.0 if cell.train else training, answering)


def share(spec: SftSpec) -> float:
    method = spec.method
    if method.kind == "lora" and (method.dropout or spec.neftune_alpha):
        return PLAIN_LORA
    return SHARES.get(method.kind, PLAIN_LORA)


def last_speed(cell: Cell) -> float | None:
    """Tokens a second that this very method last reached with this base."""
    method = plain(cell.spec.method)
    for run in cell.journey.context.ledger.runs(stage="sft", limit=200):
        if is_like(run, cell.journey, cell.spec.precision) and run.spec.get("method") == method:
            return float(run.metrics["tokens_per_s"])
    return None


def plan_matrix(context: Context) -> MatrixPlan:
    """Check, split and choose the subset (seconds, and kept), then say what the rest will take."""
    cells, notes = cells_with(context)
    resolve(cells)
    return MatrixPlan(
        cells=tuple(
            {
                "name": c.title,
                "on": c.on,
                "rows": c.rows,
                "method": method_words(c.spec),
                "lr": c.spec.lr,
                "cached": c.is_done,
                "seconds": round(sum(c.seconds), 1),
            }
            for c in cells
        ),
        rows=cells[0].journey.dataset["counts"] | {"train": max(c.rows for c in cells)},
        metric=metric_of(context),
        notes=tuple(notes),
    )


def metric_of(context: Context) -> str:
    return context.settings.matrix.metric or metrics(context)[0]


def method_words(spec: SftSpec) -> str:
    """The method's kind and what is not usual about it."""
    method, found = spec.method, []
    values = METHODS[method.kind].values
    if "rank" in values and not (method.kind == "bottleneck" and method.reduction):
        found.append(f"r{method.rank}")
    found += [name for name in ("dora", "rslora") if getattr(method, name)]
    if method.init != "uniform":
        found.append(method.init)
    if method.b_lr_ratio != 1:
        found.append(f"B ×{method.b_lr_ratio:g}")
    if method.bits:
        found.append(f"{method.bits} bits")
    if "placement" in values:
        found.append(f"{method.placement} /{method.reduction:g}" if method.reduction else method.placement)
    if method.virtual_tokens:
        found.append(f"{method.virtual_tokens} tokens")
    if method.kind == "full" and method.train_layers != "all":
        found.append(str(method.train_layers))
    return " ".join([method.kind, *found])
