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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError, Problem, require
from tunesmith.core.nouns import Interval
from tunesmith.metrics.sums import Array

Scale = Literal["nominal", "ordinal", "interval", "ratio"]
Weights = Literal["none", "linear", "quadratic"]
Value = str | int | float
RESAMPLES = 2_000
CONFIDENCE = 0.95
SEED = 0
BLOCK = 8_000_000  # numbers held at a time: 64 MB


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
    counts = _pairable(ratings.counts())
    if not len(counts):
        return None
    m = counts.sum(axis=1)
    share = (counts * (counts - 1)).sum(axis=1) / (m * (m - 1))

    def value(w: Array, imagined: float | None) -> Array:
        return _mean(w, share if imagined is None else np.append(share, imagined))

    return _interval(
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
        return 1 - _ratio(observed, expected)

    low, high = np.vstack([both, worst]), np.vstack([both, [rarest, rarest]])
    return _interval(
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
        return 1 - _ratio(1 - _mean(w, share), 1 - by_chance)

    low, high = _with_imagined(counts, "nominal")
    return _interval(
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
    counts = _pairable(ratings.counts())
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    used = counts.sum(axis=0) > 0
    numbers = (
        ratings.numbers(scale)[used] if scale in ("interval", "ratio") else np.arange(int(used.sum()), dtype=float)
    )
    counts = counts[:, used]
    low, high = _with_imagined(counts, scale)
    return _interval(
        len(counts),
        lambda w: _alpha(w, counts, numbers, scale),
        lambda w: _alpha(w, low, numbers, scale),
        lambda w: _alpha(w, high, numbers, scale),
        limits=(-1.0, 1.0),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def _alpha(w: Array, counts: Array, numbers: Array, scale: Scale) -> Array:
    """(R,) from weights (R, N) and counts (N, K)."""
    m = counts.sum(axis=1)
    n_RK = w @ counts
    n = n_RK.sum(axis=1)
    if scale in ("interval", "ordinal"):
        x_RK = np.cumsum(n_RK, axis=1) - n_RK / 2 if scale == "ordinal" else np.broadcast_to(numbers, n_RK.shape)
        x_RK = x_RK - (n_RK * x_RK).sum(axis=1, keepdims=True) / n[:, None]  # centred: no cancellation of large sums
        if scale == "ordinal":
            x_RK = x_RK / n[:, None]  # alpha knows no unit; small numbers keep the squares exact
        squares, sums = (x_RK**2) @ counts.T, x_RK @ counts.T
        observed = (w * (2 * (m * squares - sums**2) / (m - 1))).sum(axis=1)
        expected = 2 * (n * (n_RK * x_RK**2).sum(axis=1) - (n_RK * x_RK).sum(axis=1) ** 2)
    else:
        distance = _distance(numbers, scale)
        per_item = ((counts @ distance) * counts).sum(axis=1) / (m - 1)
        observed = w @ per_item
        expected = ((n_RK @ distance) * n_RK).sum(axis=1)
    return 1 - (n - 1) * _ratio(observed, expected)


def _distance(numbers: Array, scale: Scale) -> Array:
    """(K, K) squared differences: nominal and ratio."""
    if scale == "nominal":
        return 1 - np.eye(len(numbers))
    total = numbers[:, None] + numbers[None, :]
    return np.divide(numbers[:, None] - numbers[None, :], total, out=np.zeros_like(total), where=total > 0) ** 2


def _pairable(counts: Array) -> Array:
    """The items with at least two ratings: no other says anything about agreement."""
    return counts[counts.sum(axis=1) >= 2]


def _with_imagined(counts: Array, scale: Scale) -> tuple[Array, Array]:
    """The items and one more: of complete disagreement, and of complete agreement on the rarest value.

    Disagreement is between the two commonest values, which chance forgives most, where values have no
    order, and between lowest and highest where they have one.
    """
    total = counts.sum(axis=0)
    ratings = max(2, round(float(np.median(counts.sum(axis=1)))))
    used = np.flatnonzero(total)
    ends = used[np.argsort(-total[used], kind="stable")[:2]] if scale == "nominal" else used[[0, -1]]
    worst, best = np.zeros(len(total)), np.zeros(len(total))
    worst[ends[0]], worst[ends[1]] = ratings // 2, ratings - ratings // 2
    best[used[total[used].argmin()]] = ratings
    return np.vstack([counts, worst]), np.vstack([counts, best])


def _mean(w: Array, share: Array) -> Array:
    return (w @ share) / w.sum(axis=1)


def _ratio(observed: Array, expected: Array) -> Array:
    """0 where nothing is expected: one value is all there is."""
    return np.divide(observed, expected, out=np.zeros_like(observed), where=expected > 0)


Measure = Callable[[Array], Array]  # weights (R, N) -> (R,); the imagined item's column is the last


def _interval(
    items: int,
    plain: Measure,
    low: Measure,
    high: Measure,
    *,
    limits: tuple[float, float],
    resamples: int,
    seed: int,
    confidence: float,
) -> Interval:
    require(resamples >= 100, "resamples", resamples, "at least 100")
    require(0.5 <= confidence < 1, "confidence", confidence, "in [0.5, 1)")
    value = float(plain(np.ones((1, items)))[0])
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // (items + 1))
    parts: list[list[Array]] = [[], [], []]
    for first in range(0, resamples, rows):
        w = generator.standard_exponential((min(rows, resamples - first), items + 1))
        only = w[:, :-1]
        parts[0].append(plain(only * (items / only.sum(axis=1, keepdims=True))))
        whole = w * ((items + 1) / w.sum(axis=1, keepdims=True))
        parts[1].append(low(whole))
        parts[2].append(high(whole))
    middle, below, above = (np.concatenate(p) for p in parts)
    twice_the_bias = 2 * (float(middle.mean()) - value)
    tail = (1 - confidence) / 2
    bottom = float(np.quantile(below - twice_the_bias, tail, method="lower"))
    top = float(np.quantile(above - twice_the_bias, 1 - tail, method="higher"))
    return Interval(value=value, low=max(limits[0], min(value, bottom)), high=min(limits[1], max(value, top)))


def agreement_facts(
    ratings: Ratings, *, scale: Scale, resamples: int = RESAMPLES, seed: int = SEED, confidence: float = CONFIDENCE
) -> dict[str, Any]:
    """Every measure that has a meaning for these ratings, as JSON-ready facts; the others are None with a reason."""
    usual: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    m = (ratings.codes >= 0).sum(axis=1)
    found: dict[str, Interval | None] = {
        "percent": percent_agreement(ratings, **usual),
        "krippendorff": krippendorff_alpha(ratings, scale=scale, **usual),
    }
    if ratings.codes.shape[1] == 2:
        found["cohen"] = cohen_kappa(ratings, weights="none" if scale == "nominal" else "quadratic", **usual)
    if len(m) and m[0] >= 2 and (m == m[0]).all():
        found["fleiss"] = fleiss_kappa(ratings, **usual)
    measures = {
        name: None if i is None else {"value": round(i.value, 6), "low": round(i.low, 6), "high": round(i.high, 6)}
        for name, i in found.items()
    }
    return {
        "items": len(m),
        "items_rated_twice": int((m >= 2).sum()),
        "annotators": ratings.codes.shape[1],
        "ratings": int(m.sum()),
        "values": [str(v) for v in ratings.values],
        "scale": scale,
        "confidence": confidence,
        "measures": measures,
    }


NAMES = {
    "percent": "percent agreement",
    "cohen": "Cohen's kappa",
    "fleiss": "Fleiss' kappa",
    "krippendorff": "Krippendorff's alpha",
}


def agreement_words(facts: dict[str, Any]) -> str:
    """For the terminal: one line a measure, and what the alpha means."""
    lines = [
        f"{facts['items_rated_twice']:,} of {facts['items']:,} items have two ratings or more, "
        f"{facts['annotators']} annotators ({facts['scale']} scale)"
    ]
    if not facts["items_rated_twice"]:
        return lines[0] + "\nnothing can be said about agreement: give some items to two annotators"
    sure = f"{facts['confidence']:.0%}"
    for name, found in facts["measures"].items():
        if found is None:
            lines.append(f"  {NAMES[name]:<21} no meaning: only one value was ever used")
        else:
            lines.append(
                f"  {NAMES[name]:<21} {found['value']:.3f}  ({sure}: {found['low']:.3f} to {found['high']:.3f})"
            )
    alpha = facts["measures"]["krippendorff"]
    if alpha is not None:
        lines.append(_meaning(alpha["low"], alpha["value"]))
    return "\n".join(lines)


def _meaning(low: float, value: float) -> str:
    """By Krippendorff's own bars, 0.800 and 0.667 (Content Analysis, 2004, p. 241), on the lower bound."""
    if low >= 0.8:
        return "reliable: even the lower bound of alpha is above 0.800"
    if low >= 0.667:
        return "good enough for tentative conclusions: the lower bound of alpha is above 0.667"
    if value >= 0.667:
        return "not proven: alpha is above 0.667, its lower bound is not; label more items twice"
    return "too low to build on: alpha is below 0.667; make the instructions clearer before labelling more"
