"""What every metric is made of: numbers per item that add up, and the score of their totals.

Shapes: N items, K numbers an item, R resamples. The score of any weighted set of items is
`value(weights_N @ per_item_NK)`, so a bootstrap is one matrix product whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError, Problem

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Targets and answers side by side. `labels` are the declared classes, `judged` those averaged over."""

    targets: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()  # of each target as text, nats; only where the answers are scored texts
    tokens: tuple[int, ...] = ()  # that each log-probability is the sum of

    @classmethod
    def of(
        cls,
        targets: Sequence[str],
        answers: Sequence[Any],
        *,
        labels: Sequence[str] = (),
        judged: Sequence[str] = (),
    ) -> Items:
        """`answers` are texts or core Answers. Without `labels`: the classes among the targets; without
        `judged`: the labels with support among the targets. Raises DataError for no items or other lengths."""
        if len(targets) != len(answers):
            raise DataError(f"{len(targets)} targets and {len(answers)} answers cannot be compared")
        if not targets:
            raise DataError("there is nothing to score: no items")
        labels = tuple(labels) or tuple(sorted(set(targets)))
        support = set(targets)
        judged = tuple(judged) or tuple(label for label in labels if label in support)
        unknown = [Problem(where="judged", what=f"{j!r} is not among the labels") for j in judged if j not in labels]
        if unknown:
            raise DataError(unknown)
        texts = tuple(a if isinstance(a, str) else a.text for a in answers)
        scored = [a for a in answers if getattr(a, "logprob", None) is not None]
        whole = len(scored) == len(answers)
        return cls(
            targets=tuple(targets),
            answers=texts,
            labels=labels,
            judged=judged,
            logprobs=tuple(a.logprob for a in scored) if whole else (),
            tokens=tuple(a.answer_tokens for a in scored) if whole else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A metric on some items, ready to be resampled."""

    per_item: Array  # (N, K)
    value: Callable[[Array], Array]  # (..., K) totals -> (...) scores
    worst: Callable[[Array], Array]  # (K,) totals -> (K,) the one more item that would hurt the score most
    best: Callable[[Array], Array]  # (K,) totals -> (K,) the one more item that would help it most
    highest: float = 1.0  # largest possible score, inf where there is none; the smallest is 0

    # for a score without an upper limit, the one more item in a comparison of a and b: (N, K) of each ->
    # (K,) of a and of b that lower a − b most, then of a and of b that raise it most. None: worst and best, crossed
    pair: Callable[[Array, Array], tuple[Array, Array, Array, Array]] | None = None

    @property
    def score(self) -> float:
        return float(self.value(self.per_item.sum(axis=0)))


def divide(top: Array, bottom: Array) -> Array:
    """Elementwise, with 0 where the denominator is 0 (scikit-learn's zero_division=0)."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)


def mean_of(scores: Sequence[float] | Array, *, highest: float = 1.0) -> Sums:
    """The mean of per-item scores in [0, highest]."""
    column = np.asarray(scores, dtype=np.float64)
    return Sums(
        per_item=np.stack([column, np.ones_like(column)], axis=1),
        value=lambda totals: divide(totals[..., 0], totals[..., 1]),
        worst=lambda totals: np.array([0.0, 1.0]),
        best=lambda totals: np.array([highest, 1.0]),
        highest=highest,
    )
