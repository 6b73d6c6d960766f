"""One cell of a matrix: train with its settings, then answer the validation rows.

`measure` does it. As a program (`python -m tunesmith.flows.matrix.cell`) it does it for apart.py in a process of its own:
what to do comes as one JSON line on stdin, what happens goes out as JSON lines on stdout. When stdin ends, whoever
asked has stopped or died, and the work stops as soon as its state is saved.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.core.errors import Stopped, StorageError, TunesmithError
from tunesmith.core.goals import parse_goals
from tunesmith.core.nouns import Run
from tunesmith.core.project_file import arms_of, task_of
from tunesmith.core.settings import Settings
from tunesmith.data.stages import SUBSET, SubsetSpec
from tunesmith.flows.context import Context
from tunesmith.flows.data_steps import data_steps
from tunesmith.flows.journey import Journey, Step
from tunesmith.flows.run import take
from tunesmith.flows.steps import answer_step, begin, steps, steps_for
from tunesmith.ledger.execute import execute, key_of
from tunesmith.ledger.ledger import Ledger

STATE = ".tunesmith"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRuns:
    """What a cell came to."""

    train: Run
    answer: Run


def prepared(context: Context) -> Journey:
    """Everything that comes before training."""
    journey = begin(context)
    for step in steps_for(context, "train"):
        if step.name != "train":
            journey.runs[step.name] = take(journey, step)
    return journey


def with_rows(journey: Journey, subset: SubsetSpec | None) -> Journey:
    """The journey with fewer training rows; None: with all."""
    if subset is None:
        return journey
    context = journey.context
    inputs = {"dataset": journey.dataset_id}
    run = execute(context.ledger, SUBSET, subset, inputs, progress=context.progress, stop=context.stop)
    last = data_steps(context)[-1].name
    return Journey(context=context, source=journey.source, runs={**journey.runs, last: run})


def cell_steps(context: Context) -> tuple[Step, Step]:
    train = next(s for s in steps(context) if s.name == "train")
    return train, answer_step("tuned", after=data_steps(context)[-1].name, split="validation")


def measure(journey: Journey) -> CellRuns:
    """Both steps, each from the ledger if it is there."""
    train, answer = cell_steps(journey.context)
    journey.runs["train"] = take(journey, train)
    return CellRuns(train=journey.runs["train"], answer=take(journey, answer))


def known(journey: Journey) -> tuple[Run | None, Run | None]:
    """The two runs as far as the ledger has them."""
    found: list[Run | None] = [None, None]
    for i, step in enumerate(cell_steps(journey.context)):
        spec, inputs = step.build(journey)
        run = journey.context.ledger.finished(key_of(step.stage, spec, inputs))
        if run is None:
            break
        found[i] = journey.runs[step.name] = replace(run, reused=True)
    return found[0], found[1]


# -- as a program -------------------------------------------------------------------------------------------


def order_of(context: Context, subset: SubsetSpec | None) -> dict[str, Any]:
    """What `main` reads."""
    return {
        "root": str(context.root.resolve()),
        "settings": context.settings.model_dump(mode="json", exclude_unset=True),
        "subset": None if subset is None else plain(subset),
    }


def main() -> int:
    stop = threading.Event()
    say = _sayer(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group of a terminal: the parent decides
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, args=(stop,), daemon=True).start()
    try:
        context = _context(order, stop, say)
        subset = None if order["subset"] is None else SubsetSpec(**order["subset"])
        runs = measure(with_rows(prepared(context), subset))
        say({"done": {"train": runs.train.id, "answer": runs.answer.id}})
        return 0
    except Stopped:
        say({"stopped": True})
        return Stopped.exit_code
    except TunesmithError as e:
        say({"failed": [plain(p) for p in e.problems], "fatal": isinstance(e, StorageError)})
        return e.exit_code
    except Exception as e:  # our mistake, or a library's: it is this cell's end and not the others'
        traceback.print_exc()
        say({"failed": [{"where": "", "what": f"{type(e).__name__}: {e}"[:500], "fix": ""}], "fatal": False})
        return 70


def _sayer(stop: threading.Event) -> Callable[[dict[str, Any]], None]:
    """Lines to the stdout we were given; whatever a library prints goes to stderr from now on. Where nobody listens
    any more, `stop` is set."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        with lock:
            try:
                out.write(json.dumps(plain(message)) + "\n")
            except BrokenPipeError:
                stop.set()

    return say


def _watch(stop: threading.Event) -> None:
    while sys.stdin.readline():
        continue
    stop.set()


def _context(order: dict[str, Any], stop: threading.Event, say: Callable[[dict[str, Any]], None]) -> Context:
    settings = Settings.model_validate(order["settings"])
    task, root = task_of(settings), Path(order["root"])

    def progress(done: float, total: float, label: str, **facts: Any) -> None:
        if not stop.is_set():  # whoever listened may be gone
            shown = {k: v for k, v in facts.items() if isinstance(v, int | float | str)}
            say({"progress": [float(done), float(total or 0), label, shown]})

    return Context(
        root=root,
        settings=settings,
        task=task,
        goals=parse_goals(settings.goals, task, arms_of(settings)),
        ledger=Ledger.open(root / STATE),
        progress=progress,
        stop=stop,
    )


if __name__ == "__main__":
    raise SystemExit(main())
