"""What a recipe keeps of its training: the state to go on from, the weights that were judged, checkpoints in the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id
from tunesmith.core.stage import Workspace
from tunesmith.model.flat_layout import Document
from tunesmith.train import state
from tunesmith.train.averages import Average
from tunesmith.train.checkpoint import folders, kept_facts, write_held
from tunesmith.train.learner import Learner, model_at_start
from tunesmith.train.retention import Retention


class Keeper:
    """`average`: the mean that is judged in place of the trained weights, where the recipe has one."""

    def __init__(self, work: Workspace, learner: Learner, retention: Retention, average: Average | None = None):
        self._work, self._learner, self._retention, self._average = work, learner, retention, average
        self._saved_at = time.monotonic()

    def resume(self) -> state.Position:
        """Where the last execution left off, weights and memory put back; or the start."""
        learner = self._learner
        spec_id = content_id(learner.spec)
        at = state.resume(self._work.state, spec_id, learner.parameters, learner.optimizer, learner.world)
        if self._average is not None:
            self._average.restore(state.resume_more(self._work.state))
        self._saved_at = time.monotonic()
        return at

    def hold(self, at: state.Position) -> None:
        """The weights that the validation at `at` judged, if they are to stay. Call before `save`."""
        if at.step in self._retention.steps(at):
            state.hold(self._work.state, at.step, self._learner.parameters, self._learner.world)

    def save(self, at: state.Position) -> None:
        learner, average = self._learner, self._average
        state.save(
            self._work.state,
            at,
            learner.parameters,
            learner.optimizer,
            more=average.tensors() if average is not None else None,
            kept=average.last if average is not None else 0,
            world=learner.world,
            held=self._retention.steps(at),
        )
        self._saved_at = time.monotonic()

    def save_when_due(self, at: state.Position, *, validated: bool) -> None:
        """After a validation, every exec.save_every_s, and before a stop that was asked for: raises Stopped then."""
        late = time.monotonic() - self._saved_at >= self._work.exec.save_every_s
        if self._learner.world.due(self._work.stop, validated or late):
            self.save(at)
            self._work.stop_if_asked()

    def facts(self, at: state.Position) -> dict[str, Any]:
        """For the run's record."""
        return {**self._learner.world.facts(), **kept_facts(self._retention, at)}

    def checkpoints(
        self,
        at: state.Position,
        base: Path,
        documents: Sequence[Document],
        start: Path | None = None,
        **facts: Any,
    ) -> tuple[Path, dict[str, Path]]:
        """Write the best checkpoint and those beside it: the outputs `checkpoint` and `kept`. `facts` are what
        `write_checkpoint` takes beside."""
        learner, scratch = self._learner, self._work.scratch
        if learner.world.writes:
            model, parameters = learner.model, learner.parameters
            if learner.world.splits:  # what was split is put together again: the same model anew, with the best weights
                model, parameters = model_at_start(learner.spec, base, documents, start)
            facts |= {"spec": learner.spec, "base": base, "model": model}
            write_held(scratch, self._work.state, self._retention, parameters, at, start, **facts)
        return folders(scratch, self._retention, at)
