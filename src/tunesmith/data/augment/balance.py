"""How much more the rows of rare classes count: as weights, or by repeating rows.

Both bring every class towards the commonest one, by at most `most`: a class with three rows repeated a
thousand times teaches the three rows, not the class.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.core.errors import require


def factors(rows: Mapping[str, int], *, most: float) -> dict[str, float]:
    """How many times a row of each class should count: commonest / own, at most `most`, at least 1."""
    require(most >= 1, "data.augment.balance_most", most, "at least 1")
    commonest = max(rows.values(), default=0)
    return {label: min(most, commonest / n) for label, n in sorted(rows.items()) if n}


def class_weights(rows: Mapping[str, int], *, most: float) -> dict[str, float]:
    """Weights in that proportion whose mean over the rows is 1, so that the size of the loss stays."""
    found = factors(rows, most=most)
    mean = sum(found[label] * n for label, n in rows.items() if n) / max(sum(rows.values()), 1)
    return {label: round(f / mean, 9) for label, f in found.items()}


def repeats(rows: Mapping[str, int], *, most: float) -> dict[str, int]:
    """How many rows of each class to add."""
    return {label: round(f * rows[label]) - rows[label] for label, f in factors(rows, most=most).items()}


def times(place: int, rows: int, added: int) -> int:
    """How many copies the row at this place of a random order of its class gets: the first ones get one more."""
    return added // rows + (place < added % rows)
