"""`tunesmith matrix`: every way to train on a subset, some on all rows, one chosen, and that one looked at on test.

Each cell is an ordinary training and an ordinary answering of the validation rows, in the ledger and by content:
running again does what is missing. A cell that fails is recorded with its reason, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core import matrix_cells
from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError
from tunesmith.core.goals import did_you_mean
from tunesmith.core.project_file import FILE_NAME, ProjectFile
from tunesmith.core.stage import Clock
from tunesmith.data.stages import SubsetSpec
from tunesmith.evaluate.stages import CELLS, CellsSpec
from tunesmith.flows.context import Context
from tunesmith.flows.matrix.apart import CellFailed, measured_apart
from tunesmith.flows.matrix.cell import CellRuns
from tunesmith.flows.matrix.facts import cell_facts, look_facts, page_facts, tuned_looks
from tunesmith.flows.matrix.plan import Cell, cells_with, metric_of, resolve
from tunesmith.flows.matrix.words import CHEAPEST, go_on_words, matrix_words, set_words
from tunesmith.flows.run import walk
from tunesmith.ledger.execute import Inputs, execute

Measure = Callable[[Context, SubsetSpec | None, Callable[..., None]], CellRuns]
FAILED = 4  # the exit code where a cell failed


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixResult:
    """What `tunesmith matrix` has to say."""

    facts: dict[str, Any]  # as web/matrix.py draws them
    page: str = ""  # path, once it is written

    @property
    def exit_code(self) -> int:
        if any(c["failure"] for c in self.facts["cells"]):
            return FAILED
        look = self.facts["look"]
        return {"pass": 0, "fail": 1, "unproven": 3}[look["status"]] if look else 0

    def __str__(self) -> str:
        return matrix_words(self.facts) + (f"\npage   {self.page}" if self.page else "")


def matrix(
    context: Context,
    *,
    choose: str | None = None,
    look: bool = True,
    so_far: bool = False,
    measure: Measure = measured_apart,
    file: ProjectFile | None = None,
) -> MatrixResult:
    """`choose`: a cell in place of the rule. `look`: go on to the test set with the chosen one. `so_far`: compare what
    is done, train nothing and choose nothing. `file`: the project file as it stands, against which the chosen settings
    are said as --set words; without it, the context's own settings."""
    clock = Clock()
    if so_far and choose is not None:
        raise InputError(
            "nothing is chosen while cells are missing", where="--choose", fix="leave out --so-far, or --choose"
        )
    choose = choose or context.settings.matrix.choose
    names = list(matrix_cells.cells_of(context.settings))
    if choose is not None and choose not in names:
        raise InputError(f"{choose} is not a cell", where="--choose", fix=did_you_mean(choose, names))
    cells, notes = cells_with(context)
    resolve(cells)
    if so_far:
        cells, missing = done_of(cells)
        notes = [*notes, missing]
    else:
        walk_cells(context, cells, measure)
    comparisons = {on: compared(context, [c for c in cells if c.on == on and c.is_done]) for on in ("subset", "all")}
    chosen, rule = (None, "so far only") if so_far else chosen_of(context, cells, comparisons, choose)
    shown = [cell_facts(context.ledger, c, comparisons[c.on]) for c in cells]
    seen = None
    if chosen is not None and look:
        seen = looked_at(context, chosen)
    facts = page_facts(context, cells, shown, comparisons)
    return MatrixResult(
        facts={
            **facts,
            "chosen": going_on(context, chosen, rule, file) if chosen else None,
            "why_none": "" if chosen else rule,
            "look": seen,
            "notes": notes,
            "seconds": round(clock.seconds, 1),
        }
    )


def going_on(context: Context, chosen: Cell, rule: str, file: ProjectFile | None) -> dict[str, Any]:
    """What was chosen, and the command that goes on with it."""
    said = file.settings if file else context.settings
    words = set_words(said, context.settings, chosen.journey.context.settings.train)
    command = go_on_words(file.path.name if file else FILE_NAME, words)
    return {"name": chosen.name, "on": chosen.on, "rule": rule, "set": words, "go_on": command}


def done_of(cells: Sequence[Cell]) -> tuple[list[Cell], str]:
    """The finished cells, and in words which are missing. Raises InputError where there is none."""
    done, missing = [c for c in cells if c.is_done], [c.title for c in cells if not c.is_done]
    if not done:
        raise InputError("no cell is done yet", where="matrix", fix="tunesmith matrix")
    words = (
        f"{len(missing)} of {len(cells)} cells are not done: {', '.join(missing)}" if missing else "every cell is done"
    )
    return done, f"{words}; tunesmith matrix goes on"


def walk_cells(context: Context, cells: Sequence[Cell], measure: Measure) -> None:
    """Do what is not done. Raises Stopped and StorageError; any other end of a cell is its own."""
    total = sum(sum(c.seconds) for c in cells)
    done = 0.0
    for i, cell in enumerate(cells, start=1):
        if cell.is_done:
            continue
        say = _progress(context, cell, f"{cell.title} ({i} of {len(cells)})", done, total)
        say(0, 1, "start", loss=None, rate=None, best=None, arm=None)  # nothing of the cell before
        try:
            runs = measure(cell.journey.context, cell.subset, say)
            cell.train, cell.answer = runs.train, runs.answer
        except CellFailed as e:
            cell.failure = str(e)
        done += sum(cell.seconds)
    if total:
        context.progress(total, total, "matrix")


def _progress(context: Context, cell: Cell, title: str, before: float, total: float) -> Callable[..., None]:
    """A cell's own progress as a place in the whole, in forecast seconds: so the time left is that of the matrix."""
    training, answering = cell.seconds
    reached = 0.0

    def say(done: float, of: float, label: str, **facts: Any) -> None:
        nonlocal reached
        part = min(1.0, done / of) if of > 1 else 0.0
        here = training + answering * part if "answer" in label else training * part
        reached = max(reached, here)  # the steps before the training have shares of their own
        context.progress(before + reached, total, "matrix", cell=title, doing=label, **facts)

    return say


def compared(context: Context, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """The finished cells of one set of rows, by the stage that compares them; None without any."""
    if not cells:
        return None
    said = context.settings.matrix
    spec = CellsSpec(
        metric=metric_of(context),
        confidence=said.confidence,
        resamples=context.settings.evaluate.resamples,
        seed=context.settings.evaluate.seed,
    )
    answers = {c.name: c.answer.outputs["answers"] for c in cells if c.answer}
    inputs: Inputs = {"dataset": cells[0].journey.dataset_id, "answers": answers}
    run = execute(context.ledger, CELLS, spec, inputs, progress=context.progress, stop=context.stop)
    found: dict[str, Any] = read_json(context.ledger.path(run.outputs["comparison"]) / "comparison.json")
    return found


def chosen_of(
    context: Context, cells: Sequence[Cell], comparisons: dict[str, dict[str, Any] | None], choose: str | None
) -> tuple[Cell | None, str]:
    """The cell that is looked at on test, and the rule in words; (None, why) where there is none to choose."""
    on = "all" if any(c.on == "all" for c in cells) else "subset"
    where = "all rows" if on == "all" else "the subset"
    if choose is not None:
        named = [c for c in cells if c.name == choose]
        cell = max(named, key=lambda c: c.on == "all", default=None)  # on all rows where it has been tried there
        if cell is None or not cell.is_done:
            return None, f"{choose} was to be chosen, and it did not finish"
        return cell, "it was asked for by name"
    found = comparisons[on]
    if found is None:
        return None, f"no cell on {where} finished"
    by = context.settings.matrix.cheapest
    level = [c for c in cells if c.on == on and c.is_done and found["cells"][c.name]["is_noise"]]
    facts = {c.name: cell_facts(context.ledger, c, found) for c in level}
    cheapest = min(level, key=lambda c: (facts[c.name][by], c.name != found["best"]))
    best = found["best"]
    if len(level) == 1:
        return cheapest, f"best {found['metric']} on {where}, and every other differs by more than noise"
    same = "the best itself" if cheapest.name == best else f"not distinguishable from the best, {best}"
    return cheapest, f"{CHEAPEST[by]} of the {len(level)} on {where} within noise of the best; {same}"


def looked_at(context: Context, chosen: Cell) -> dict[str, Any]:
    """Take the chosen settings as the project's `train` through evaluate and gate: one look at the test set."""
    own = chosen.journey.context
    seal = chosen.journey.dataset["seal"]
    before = tuned_looks(context.ledger, seal)
    journey = walk(replace(own, stop=context.stop, progress=context.progress), "gate")
    return look_facts(context.ledger, journey, metric_of(context), before, tuned_looks(context.ledger, seal))
