"""The user's own patterns, with two guards: one that hangs and one that never settles are errors, not results.

The engine is `regex`, which reads Python's syntax, finishes most patterns that would hang Python's own `re`, and
stops a match that takes too long (`re` cannot be stopped from outside the main thread, not even by a signal).
"""

from __future__ import annotations

import regex  # type: ignore[import-untyped]

from tunesmith.core.errors import Problem
from tunesmith.data.clean.stages import Replace

TIMEOUT_S = 5.0  # for one text; an honest pattern needs microseconds
MOST_ROUNDS = 8  # a replacement that still finds something new after so many rounds feeds on itself


class Hopeless(Exception):
    """A text that the pattern does not get done with; never leaves this package."""

    def __init__(self, index: int, what: str, fix: str) -> None:
        super().__init__(what)
        self.index, self.what, self.fix = index, what, fix


def problem_with(step: Replace, where: str) -> Problem | None:
    """Why the pattern cannot be used, without reading data."""
    try:
        pattern = regex.compile(step.pattern)
    except regex.error as e:
        return Problem(where=where, what=f"the pattern {step.pattern!r} cannot be read: {e}")
    if pattern.match(""):
        return Problem(
            where=where,
            what=f"the pattern {step.pattern!r} matches the empty text, so it would insert {step.by!r} everywhere",
            fix="use + instead of *, or say what must be there",
        )
    try:
        regex.sub(f"(?:{step.pattern})|", step.by, "")  # the replacement is only read once something matches
    except (regex.error, IndexError) as e:
        return Problem(where=where, what=f"the replacement {step.by!r} cannot be read: {e}")
    return None


class Replacement:
    """The step of one pattern: replaced until a further round would change nothing, so that it is idempotent."""

    def __init__(self, step: Replace, timeout_s: float = TIMEOUT_S) -> None:
        self.step, self.timeout_s = step, timeout_s
        self._pattern = regex.compile(step.pattern)

    def __call__(self, texts: list[str]) -> list[str]:
        """Raises Hopeless."""
        return [self._settled(text, i) for i, text in enumerate(texts)]

    def _settled(self, text: str, index: int) -> str:
        try:
            for _ in range(MOST_ROUNDS):
                after = self._pattern.sub(self.step.by, text, timeout=self.timeout_s)
                if after == text:
                    return text
                text = after
        except TimeoutError as e:
            raise Hopeless(
                index,
                f"the pattern {self.step.pattern!r} takes more than {self.timeout_s:g} s on this text of "
                f"{len(text):,} characters",
                "avoid a repeat inside a repeat, and bound what it may match: [^ ]{1,80} instead of .*",
            ) from e
        raise Hopeless(
            index,
            f"replacing {self.step.pattern!r} by {self.step.by!r} still finds something new after {MOST_ROUNDS} rounds",
            "say what may not follow: cat(?!alog) instead of cat, where cat becomes catalog",
        )
