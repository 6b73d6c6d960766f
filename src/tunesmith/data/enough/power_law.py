"""error(n) = c + a n^-b, fitted with its uncertainty; and when a forecast from it would be a guess.

Power laws describe how errors fall with the number of training rows in most tasks looked at (Hestness et al.
2017; Viering and Loog 2021, who also list the exceptions), once there are enough: the smallest sizes are left out
of the fit where the law does not hold for them. And it is tested before it is believed: it must fit the sizes
measured, and foretell the largest of them from the smaller ones, as well as their own noise lets one see.

Shapes: S sizes, D draws of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS = np.geomspace(0.02, 2.0, 400)  # b; 0.02 hardly falls, 2 falls faster than any seen in practice
FEWEST_SIZES = 5
MISFIT = 0.015  # root mean square distance from the law, in score, or half the sizes' standard error if that is more
MISSED = 0.03  # distance of the largest size from what the smaller ones foretell, or its standard error
WIDEST = 0.15  # a forecast whose interval is wider than this says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """D fitted laws, one a draw. errors(n) = floor + scale n^-exponent."""

    floor: Floats  # (D,)
    scale: Floats  # (D,)
    exponent: Floats  # (D,)

    def score(self, n: float) -> Floats:
        """(D,)"""
        return 1 - (self.floor + self.scale * float(n) ** -self.exponent)


def fit_laws(sizes: Floats, scores: Floats) -> Law:
    """Least squares for each of D curves (D, S), with floor and scale never negative.

    For a fixed exponent the two others are linear, so each is solved exactly on a grid of exponents.
    """
    errors = 1 - scores
    x_ES = sizes[None, :] ** -EXPONENTS[:, None]
    mean_x, mean_e = x_ES.mean(axis=1), errors.mean(axis=1)
    centred_x = x_ES - mean_x[:, None]
    power = (centred_x**2).sum(axis=1)
    slope = (errors - mean_e[:, None]) @ centred_x.T / power  # (D, E)
    floor = mean_e[:, None] - slope * mean_x
    # where the best line leaves the quadrant, the best point is on one of its two edges
    through_zero = (errors @ x_ES.T) / (x_ES**2).sum(axis=1)
    below, rising = floor < 0, slope < 0
    slope = np.where(rising, 0.0, np.where(below, through_zero, slope))
    floor = np.where(rising, mean_e[:, None], np.where(below, 0.0, floor))
    squares = np.stack(
        [
            ((errors[d][None, :] - floor[d][:, None] - slope[d][:, None] * x_ES) ** 2).sum(axis=1)
            for d in range(len(errors))
        ]
    )
    best = squares.argmin(axis=1)
    draws = np.arange(len(errors))
    return Law(floor=floor[draws, best], scale=slope[draws, best], exponent=EXPONENTS[best])


def forecast(sizes: Floats, scores: Floats, drawn: Floats, *, to: float, confidence: float) -> dict[str, Any]:
    """What `to` rows instead of the largest size would be worth. `scores` (S,), `drawn` (D, S) its bootstrap.

    JSON-ready: gain {value, low, high} in score, or refused: a sentence. The gain is between two points of the
    law, so that the luck of the largest size is not part of it: what doubling does on average. Its interval is the bootstrap's, widened on both
    sides by what the smaller sizes' law was wrong about the largest one.
    """
    found: dict[str, Any] = {"rows": float(sizes[-1]), "to": float(to), "gain": None, "refused": None}
    if len(sizes) < FEWEST_SIZES:
        return {**found, "refused": f"{len(sizes)} sizes are too few to fit a curve; {FEWEST_SIZES} are needed"}
    noise = drawn.std(axis=0)
    for start in range(len(sizes) - FEWEST_SIZES + 1):
        law = fit_laws(sizes[start:], scores[None, start:])
        fitted = np.array([float(law.score(n)[0]) for n in sizes[start:]])
        misfit = float(np.sqrt(((fitted - scores[start:]) ** 2).mean()))
        fits = misfit <= max(MISFIT, float(noise[start:].mean()) / 2)
        if fits:
            break
    sizes, scores, drawn = sizes[start:], scores[start:], drawn[:, start:]
    before = fit_laws(sizes[:-1], scores[None, :-1])
    missed = float(before.score(sizes[-1])[0] - scores[-1])
    laws = fit_laws(sizes, drawn)
    gains = laws.score(to) - laws.score(sizes[-1])
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(gains, q)) for q in (tail, 1 - tail))
    low, high = low - abs(missed), high + abs(missed)  # as wrong as the law was about the largest size
    gain = float(law.score(to)[0] - law.score(sizes[-1])[0])
    found |= {
        "sizes_left_out": start,
        "misfit": round(misfit, 6),
        "missed": round(missed, 6),
        "law": {
            "floor": round(float(law.floor[0]), 6),
            "scale": round(float(law.scale[0]), 6),
            "exponent": round(float(law.exponent[0]), 6),
        },
    }
    if not fits:
        refused = f"the scores lie {100 * misfit:.1f} points off any such curve"
    elif abs(missed) > max(MISSED, float(noise[-1])):
        refused = f"the smaller sizes foretell the largest wrongly, by {100 * missed:+.1f} points"
    elif high - low > WIDEST:
        refused = f"anything from {100 * low:+.0f} to {100 * high:+.0f} points is possible"
    else:
        found["gain"] = {
            k: round(v, 6) for k, v in (("value", gain), ("low", min(low, gain)), ("high", max(high, gain)))
        }
        return found
    return {**found, "refused": refused}
