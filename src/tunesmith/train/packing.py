"""Which windows each optimizer step takes: packed by tokens, so that every step but an epoch's last is about as large.

A step's batch is a function of the step alone: resuming needs no position but that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tunesmith.core.errors import InputError, Problem


class TokenSchedule:
    """Steps of at most `budget` tokens (or of one window that is longer), filled in each epoch's order.

    `order(epoch)` gives the windows of an epoch, `sizes` their tokens. A part of an epoch takes the windows of its
    order until that part of its tokens is reached.
    """

    def __init__(self, order: Callable[[int], list[int]], sizes: Sequence[int], *, epochs: float, budget: int):
        self._order, self._held = order, (-1, [0])
        self._steps: list[tuple[int, int, int]] = []  # epoch, first, end
        self.tokens: list[int] = []  # of each step
        whole = int(epochs)
        for epoch in range(whole + (epochs > whole)):
            taken = np.array([sizes[i] for i in order(epoch)], dtype=np.int64)
            if epoch == whole:
                limit = (epochs - whole) * taken.sum()
                taken = taken[: max(1, int(np.searchsorted(np.cumsum(taken), limit, side="left")) + 1)]
            self._cut(epoch, taken, budget)
        if not self._steps:
            raise InputError(Problem(where="train", what="there is nothing to train on", fix="add texts"))

    @property
    def steps(self) -> int:
        return len(self._steps)

    def batch(self, step: int) -> list[int]:
        """Window indices of optimizer step `step`, 0-based."""
        epoch, first, end = self._steps[step]
        if self._held[0] != epoch:
            self._held = (epoch, self._order(epoch))
        return self._held[1][first:end]

    def epoch(self, step: int) -> int:
        """Which epoch optimizer step `step` is of, 0-based."""
        return self._steps[step][0]

    def _cut(self, epoch: int, sizes: np.ndarray, budget: int) -> None:
        first, tokens = 0, 0
        for i, size in enumerate(sizes):
            if i > first and tokens + size > budget:
                self._steps.append((epoch, first, i))
                self.tokens.append(int(tokens))
                first, tokens = i, 0
            tokens += int(size)
        if len(sizes):
            self._steps.append((epoch, first, len(sizes)))
            self.tokens.append(int(tokens))
