"""What happens at a validation of a training: the task and the general data are scored, and the best weights held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from tunesmith.core.stage import Workspace
from tunesmith.model.flat_layout import Document
from tunesmith.train import state
from tunesmith.train.averages import Average
from tunesmith.train.forgetting import Forgetting
from tunesmith.train.forward import Forward
from tunesmith.train.keeper import Keeper
from tunesmith.train.learner import Learner


class Validates(Protocol):
    """The rows that every validation of a training scores: validate.py's and domain.py's `Validation`."""

    documents: Sequence[Document]
    metric: str  # that chooses the best; empty: the loss does
    higher_is_better: bool

    def run(self, model: Any, forward: Forward, max_tokens: int) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    work: Workspace
    learner: Learner
    keeper: Keeper
    validation: Validates
    forgetting: Forgetting | None
    steps: int  # of the whole training
    average: Average | None = None  # whose weights are judged in place of the trained ones

    def __call__(self, at: state.Position) -> state.Position:
        """Validate the weights as they are to be kept, log it, and hold them if they are the best within the budget
        for forgetting. Step 0 is a candidate too, where it is judged."""
        learner, validation = self.learner, self.validation
        model, forward = learner.model, learner.forward
        self.work.progress(at.step, self.steps, "validate", best=at.best)
        with self._weights(at):
            run = partial(validation.run, model, forward)
            outcome, at = learner.fitted(self.work, at, validation.documents, run)
            if self.forgetting is not None:
                tokens = at.micro_batch_tokens or self.work.exec.micro_batch_tokens
                outcome |= self.forgetting.read(at.step, model, forward, max_tokens=tokens)
            outcome = learner.world.same(outcome)
            allowed = self.forgetting is None or self.forgetting.within(at.step)
            value = outcome[validation.metric] if validation.metric else None
            better = validation.higher_is_better
            at = at.after(outcome["validation_loss"], value, better, allowed=allowed)
            self.keeper.hold(at)
        self.work.log(step=at.step, **outcome)
        return at

    def _weights(self, at: state.Position) -> AbstractContextManager[None]:
        if self.average is None or not at.step:
            return nullcontext()
        return self.average.judged((*(j.step for j in at.judgments if j.step), at.step))
