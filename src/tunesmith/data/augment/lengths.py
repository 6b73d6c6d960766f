"""Tokens of rows as the model will see them, counted with its own tokenizer and template."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import Any

from tunesmith.core.nouns import Row
from tunesmith.text.render import Rendered, Renderer

BATCH = 256  # rows tokenized together


class Lengths:
    """Counts rows as they join a data set; two numbers of each are held."""

    def __init__(self, renderer: Renderer, *, limit: int) -> None:
        self.limit = limit
        self._renderer = renderer
        self._prompt, self._answer = array("q"), array("q")
        self._last: tuple[str, int, int] | None = None  # of `too_long`, so that `count` does not render anew

    def too_long(self, row: Row) -> int:
        """How many tokens, if that is more than allowed; else 0."""
        prompt, answer = _split(self._renderer.render(row.messages, row.target, row.tools))
        self._last = (row.id, prompt, answer)
        return prompt + answer if prompt + answer > self.limit else 0

    def count(self, row: Row) -> None:
        if self._last is None or self._last[0] != row.id:
            self.too_long(row)
        assert self._last is not None
        self._prompt.append(self._last[1])
        self._answer.append(self._last[2])

    def count_all(self, rows: Iterable[Row]) -> None:
        rows = iter(rows)
        while batch := list(islice(rows, BATCH)):
            for rendered in self._renderer.render_rows(batch):
                prompt, answer = _split(rendered)
                self._prompt.append(prompt)
                self._answer.append(answer)

    def facts(self) -> dict[str, Any]:
        """The part of dataset.json's `tokens` that counts rows."""
        both = [p + a for p, a in zip(self._prompt, self._answer, strict=True)]
        spread = {"prompt": _spread(self._prompt), "answer": _spread(self._answer)}
        return {**spread, "total": sum(both), "longest": max(both)}


def _split(rendered: Rendered) -> tuple[int, int]:
    """Prompt and answer; the answer is the last run of trained tokens."""
    answer = 0
    for trained in reversed(rendered.trained):
        if not trained:
            break
        answer += 1
    return len(rendered.ids) - answer, answer


def _spread(tokens: array[int]) -> dict[str, float]:
    """Mean and nearest-rank quantiles."""
    ordered, n = sorted(tokens), len(tokens)
    p95 = ordered[math.ceil(0.95 * n) - 1]
    return {"mean": round(sum(ordered) / n, 3), "p50": ordered[(n - 1) // 2], "p95": p95, "max": ordered[-1]}
