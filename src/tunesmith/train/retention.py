"""Which validated weights stay: the best, and as many more as were asked for. The others are deleted on the way.

On disk there are at most `keep` + `last` of them, and one more between a validation and the state that follows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tunesmith.train.state import Judgment, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The best `keep` validations and the newest `last`."""

    keep: int
    last: int
    higher_is_better: bool  # of the metric; of losses, lower is better

    def of(self, at: Position) -> tuple[Judgment, ...]:
        """The validations whose weights stay: by rank, the best first, and then the newest that are not among them.

        The rank is what the best is chosen by: the metric, ties by the loss, then the earlier. What forgot too much
        has none, but may be among the newest. The untrained model stays only where it is the best.
        """
        judged = [j for j in at.judgments if j.step or not at.best_step]
        ranked = sorted((j for j in judged if j.allowed), key=lambda j: (j.step != at.best_step, *self._rank(j)))
        ranked = ranked[: self.keep]
        newest = judged[max(0, len(judged) - self.last) :]
        return (*ranked, *(j for j in newest if j not in ranked))

    def steps(self, at: Position) -> tuple[int, ...]:
        return tuple(j.step for j in self.of(at))

    def _rank(self, judgment: Judgment) -> tuple[float, float, int]:
        metric = 0.0 if judgment.metric is None else judgment.metric
        return (
            _last_if_nan(-metric if self.higher_is_better else metric),
            _last_if_nan(judgment.validation_loss),
            judgment.step,
        )


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def as_best(at: Position, judgment: Judgment) -> Position:
    """The position as if this validation had been the best: what its checkpoint says of itself."""
    return replace(at, best_step=judgment.step, best=judgment.metric, best_loss=judgment.validation_loss)
