"""One pass through the steps: what a step is, and what is known so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.nouns import Run
from tunesmith.core.stage import Stage
from tunesmith.flows.context import Context
from tunesmith.model.catalog import LocalModel, find


@dataclass(kw_only=True)
class Journey:
    """One pass through the steps: what is known so far."""

    context: Context
    source: str  # artifact id of the user's files
    runs: dict[str, Run] = field(default_factory=dict)  # by step name

    @cached_property
    def base(self) -> LocalModel:
        """The base model, recorded by hash. Found when a step needs it: reading and cleaning need none."""
        base = find(self.context.settings.model, progress=self.context.progress)
        self.context.ledger.add_external(base.artifact, base.folder)
        return base

    def made(self, step: str, output: str) -> str:
        return self.runs[step].outputs[output]

    def folder(self, step: str, output: str) -> Path:
        return self.context.ledger.path(self.made(step, output))

    def latest(self, output: str) -> str:
        """The newest artifact of this output: each step between check and prepare makes the examples anew."""
        return next(r.outputs[output] for r in reversed(self.runs.values()) if output in r.outputs)

    @property
    def dataset_id(self) -> str:
        return self.made("augment" if "augment" in self.runs else "prepare", "dataset")

    @property
    def dataset(self) -> dict[str, Any]:
        return read_json(self.context.ledger.path(self.dataset_id) / "dataset.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str
    stage: Stage
    needs: tuple[str, ...]  # steps whose outputs it takes
    build: Callable[[Journey], tuple[Any, dict[str, Any]]]  # -> spec, inputs
