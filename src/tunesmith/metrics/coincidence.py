"""What the measures of agreement are made of: ratings counted by item and value, weighted, and resampled.

Shapes: N items, K distinct values, R resamples. A measure is a function from weights of the items to its values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from tunesmith.core.errors import require
from tunesmith.core.nouns import Interval
from tunesmith.metrics.sums import Array

Scale = Literal["nominal", "ordinal", "interval", "ratio"]
BLOCK = 8_000_000  # numbers held at a time: 64 MB


def alpha_of(w: Array, counts: Array, numbers: Array, scale: Scale) -> Array:
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
    return 1 - (n - 1) * ratio(observed, expected)


def _distance(numbers: Array, scale: Scale) -> Array:
    """(K, K) squared differences: nominal and ratio."""
    if scale == "nominal":
        return 1 - np.eye(len(numbers))
    total = numbers[:, None] + numbers[None, :]
    return np.divide(numbers[:, None] - numbers[None, :], total, out=np.zeros_like(total), where=total > 0) ** 2


def pairable(counts: Array) -> Array:
    """The items with at least two ratings: no other says anything about agreement."""
    return counts[counts.sum(axis=1) >= 2]


def with_imagined(counts: Array, scale: Scale) -> tuple[Array, Array]:
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


def mean_share(w: Array, share: Array) -> Array:
    return (w @ share) / w.sum(axis=1)


def ratio(observed: Array, expected: Array) -> Array:
    """0 where nothing is expected: one value is all there is."""
    return np.divide(observed, expected, out=np.zeros_like(observed), where=expected > 0)


Measure = Callable[[Array], Array]  # weights (R, N) -> (R,); the imagined item's column is the last


def interval_of(
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
