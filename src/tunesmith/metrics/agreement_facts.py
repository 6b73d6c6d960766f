"""Every measure of agreement that has a meaning for some ratings, as facts and as sentences."""

from __future__ import annotations

from typing import Any

from tunesmith.core.nouns import Interval
from tunesmith.metrics.agreement import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Ratings,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from tunesmith.metrics.coincidence import Scale


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
