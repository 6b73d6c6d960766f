"""How far several annotators agree, and how sure one can be of it.

Shapes: N items, M annotators, K distinct values, R resamples. A missing rating is -1.

    ratings = Ratings.of([["a", "a", None], ["b", "a", "b"]])
    krippendorff_alpha(ratings, scale="nominal")  -> Interval, or None where it has no meaning

Every measure is a function of sums over items, so a resample is a weighting of the items and all of them
are evaluated at once. Intervals are the house's (statistics.py): independent standard exponential weights
(Rubin 1981), one imagined item of complete disagreement for the lower bound and of complete agreement for
the upper one, and the bias that resampling shows taken off twice. Without the imagined item, five items
that all agree would have the interval [1, 1].

Which one to read. Percent agreement does not know chance: two annotators who say "no" to everything agree
always. Cohen's kappa is for two annotators, Fleiss' for the same number of ratings on each item,
Krippendorff's alpha for any number, missing ratings and ordered or numeric values; 0 is chance, 1 is
perfect, and below 0.667 Krippendorff advises against drawing conclusions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Interval
from tunesmith.metrics.coincidence import Scale, alpha_of, interval_of, mean_share, pairable, ratio, with_imagined
from tunesmith.metrics.sums import Array

Weights = Literal["none", "linear", "quadratic"]
Value = str | int | float
RESAMPLES = 2_000
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """Who gave which value to which item. `values` are in their order, which ordinal measures read."""

    codes: NDArray[np.int64]  # (N, M), indices into `values`, -1 where there is no rating
    values: tuple[Value, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Value | None]], *, order: Sequence[Value] = ()) -> Ratings:
        """One row an item, one column an annotator, None where there is no rating.

        `order`: the values from lowest to highest; without it numbers are sorted as numbers and texts as
        texts. Raises DataError for no items, rows of unequal length and values outside `order`, all at once.
        """
        if not rows:
            raise DataError("there is nothing to compare: no items")
        width = len(rows[0])
        problems = [
            Problem(where=f"items[{i}]", what=f"{len(row)} columns, the first item has {width}")
            for i, row in enumerate(rows)
            if len(row) != width
        ]
        found = {v for row in rows for v in row if v is not None}
        values = tuple(order) or tuple(sorted(found, key=lambda v: (isinstance(v, str), v)))
        index = {v: k for k, v in enumerate(values)}
        unknown = sorted((v for v in found if v not in index), key=str)
        problems += [Problem(where="order", what=f"{v!r} is rated and not among the values") for v in unknown]
        if problems:
            raise DataError(problems)
        codes = np.array([[-1 if v is None else index[v] for v in row] for row in rows], dtype=np.int64)
        return cls(codes=codes.reshape(len(rows), width), values=values)

    @classmethod
    def of_votes(cls, votes: Iterable[tuple[str, str, Value]], *, order: Sequence[Value] = ()) -> Ratings:
        """From (item, annotator, value), in any order. Raises DataError where one annotator rates an item twice."""
        cells: dict[tuple[str, str], Value] = {}
        problems = []
        for item, annotator, value in votes:
            if (item, annotator) in cells:
                problems.append(Problem(where=item, what=f"{annotator!r} has two ratings", fix="keep the last one"))
            cells[item, annotator] = value
        if problems:
            raise DataError(problems)
        annotators = sorted({a for _, a in cells})
        rows = [[cells.get((item, a)) for a in annotators] for item in sorted({i for i, _ in cells})]
        return cls.of(rows, order=order)

    def counts(self) -> Array:
        """(N, K): how many annotators gave each value to each item."""
        n, k = len(self.codes), len(self.values)
        item, _ = np.nonzero(self.codes >= 0)
        flat = item * k + self.codes[self.codes >= 0]
        return np.bincount(flat, minlength=n * k).reshape(n, k).astype(np.float64)

    def numbers(self, scale: Scale) -> Array:
        """(K,) the values as numbers. Raises DataError for texts, and for negative ones on a ratio scale."""
        bad = [v for v in self.values if isinstance(v, str) or not np.isfinite(v) or (scale == "ratio" and v < 0)]
        if bad:
            wanted = "numbers from zero up" if scale == "ratio" else "numbers"
            raise DataError(
                f"{bad[0]!r} is rated, and the {scale} scale needs {wanted}", fix="use the nominal or the ordinal scale"
            )
        return np.array(self.values, dtype=np.float64)


def percent_agreement(
    ratings: Ratings, *, resamples: int = RESAMPLES, seed: int = SEED, confidence: float = CONFIDENCE
) -> Interval | None:
    """Mean over the items with two ratings or more of the share of pairs that agree. None without such items."""
    counts = pairable(ratings.counts())
    if not len(counts):
        return None
    m = counts.sum(axis=1)
    share = (counts * (counts - 1)).sum(axis=1) / (m * (m - 1))

    def value(w: Array, imagined: float | None) -> Array:
        return mean_share(w, share if imagined is None else np.append(share, imagined))

    return interval_of(
        len(share),
        lambda w: value(w, None),
        lambda w: value(w, 0.0),
        lambda w: value(w, 1.0),
        limits=(0.0, 1.0),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def cohen_kappa(
    ratings: Ratings,
    *,
    weights: Weights = "none",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Of two annotators, over the items that both rated; `weights` by the distance between the values' places.

    None where no item was rated twice or both always say the same one value. Raises DataError unless there
    are two annotators. Sources: Cohen 1960; Cohen 1968 (disagreement weights |i-j| and (i-j)^2).
    """
    if ratings.codes.shape[1] != 2:
        raise DataError(
            f"Cohen's kappa compares two annotators, and there are {ratings.codes.shape[1]}",
            fix="name two of them, or use Krippendorff's alpha",
        )
    both = ratings.codes[(ratings.codes >= 0).all(axis=1)]
    k = len(ratings.values)
    if not len(both) or len(np.unique(both)) < 2:
        return None
    place = np.arange(k, dtype=np.float64)
    gap = np.abs(place[:, None] - place[None, :])
    disagreement = {"none": (gap > 0).astype(np.float64), "linear": gap, "quadratic": gap**2}[weights]
    used = np.unique(both)
    inner = disagreement[np.ix_(used, used)]
    worst = used[list(np.unravel_index(int(inner.argmax()), inner.shape))]
    rarest = used[np.bincount(both.ravel(), minlength=k)[used].argmin()]

    def value(w: Array, pairs: NDArray[np.int64]) -> Array:
        observed = w @ disagreement[pairs[:, 0], pairs[:, 1]]
        first, second = (w @ np.eye(k)[pairs[:, side]] for side in (0, 1))
        expected = ((first @ disagreement) * second).sum(axis=1) / w.sum(axis=1)
        return 1 - ratio(observed, expected)

    low, high = np.vstack([both, worst]), np.vstack([both, [rarest, rarest]])
    return interval_of(
        len(both),
        lambda w: value(w, both),
        lambda w: value(w, low),
        lambda w: value(w, high),
        limits=(-1.0, 1.0),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def fleiss_kappa(
    ratings: Ratings, *, resamples: int = RESAMPLES, seed: int = SEED, confidence: float = CONFIDENCE
) -> Interval | None:
    """Of any annotators, where every item has the same number of ratings. None where one value is all there is.

    Raises DataError where the numbers of ratings differ. Source: Fleiss 1971.
    """
    counts = ratings.counts()
    m = counts.sum(axis=1)
    if (m != m[0]).any() or m[0] < 2:
        raise DataError(
            f"Fleiss' kappa needs the same number of ratings on each item, at least 2; here {m.min():g} to {m.max():g}",
            fix="use Krippendorff's alpha, which takes any number",
        )
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None

    def value(w: Array, counts: Array) -> Array:
        share = (counts * (counts - 1)).sum(axis=1) / (m[0] * (m[0] - 1))
        p = (w @ counts) / (w.sum(axis=1, keepdims=True) * m[0])
        by_chance = (p**2).sum(axis=1)
        return 1 - ratio(1 - mean_share(w, share), 1 - by_chance)

    low, high = with_imagined(counts, "nominal")
    return interval_of(
        len(counts),
        lambda w: value(w, counts),
        lambda w: value(w, low),
        lambda w: value(w, high),
        limits=(-1.0, 1.0),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def krippendorff_alpha(
    ratings: Ratings,
    *,
    scale: Scale,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Of any annotators with any ratings missing. None where no item has two ratings or only one value is used.

    Raises DataError for texts on an interval or ratio scale. Source: Krippendorff, Computing Krippendorff's
    Alpha-Reliability (2011), section E. On the ordinal scale his squared rank differences are those of the
    values' mid-ranks, so that scale is the interval one on mid-ranks; they are taken anew in each resample.
    """
    counts = pairable(ratings.counts())
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    used = counts.sum(axis=0) > 0
    numbers = (
        ratings.numbers(scale)[used] if scale in ("interval", "ratio") else np.arange(int(used.sum()), dtype=float)
    )
    counts = counts[:, used]
    low, high = with_imagined(counts, scale)
    return interval_of(
        len(counts),
        lambda w: alpha_of(w, counts, numbers, scale),
        lambda w: alpha_of(w, low, numbers, scale),
        lambda w: alpha_of(w, high, numbers, scale),
        limits=(-1.0, 1.0),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )
