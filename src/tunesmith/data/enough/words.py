"""The facts of this room as sentences, for the terminal and above a chart."""

from __future__ import annotations

from typing import Any

SHOWN = 6  # terms of each side


def curve_words(facts: dict[str, Any]) -> str:
    """What more rows would be worth, or why nobody can say."""
    points = facts["points"]
    last = points[-1]
    lines = [
        f"macro-F1 on validation with all {facts['train_rows']:,} training rows (cheap model): {last['score']:.3f} "
        f"({last['low']:.3f} to {last['high']:.3f})"
    ]
    lines += [f"  {p['rows']:>9,.0f} rows  {p['score']:.3f}" for p in points[:-1]]
    lines.append(_worth("doubling all rows", facts["forecast"]))
    lines += [
        "  " + _worth(f"doubling class {label!r}", found["forecast"]) for label, found in facts["classes"].items()
    ]
    few = facts["classes_without_curve"]["too_few_rows"]
    if few:
        lines.append(f"  too few rows to say anything about {len(few)} classes: {', '.join(few[:SHOWN])}")
    lines.append("the model itself may gain more or less: this is the cheap one's curve")
    return "\n".join(lines)


def _worth(what: str, forecast: dict[str, Any]) -> str:
    if forecast["gain"] is None:
        return f"{what}: no forecast, because {forecast['refused']}"
    low, high = 100 * forecast["gain"]["low"], 100 * forecast["gain"]["high"]
    n, to = forecast["rows"], forecast["to"]
    worth = f"{low:.1f} points" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f} points"
    said = f"{what} ({n:,.0f} to {to:,.0f}) is worth {worth} on average"
    luck = forecast.get("luck")
    return said if luck is None else f"{said}; the luck of which rows, up to {100 * luck:.0f} more or less"


def compare_words(facts: dict[str, Any]) -> str:
    """Can the rows be told from real inputs, and by what."""
    lines = []
    for split, name in (("train", "training"), ("test", "test")):
        found = facts["splits"][split]
        lines.append(f"{name} rows against {found['real']:,} real inputs: {_verdict(found)}")
        if found["p"] > ALPHA or found["auc"]["value"] < TOLD_APART:
            continue
        for side, whose in (("more_in_real", "real inputs"), ("more_in_data", f"{name} rows")):
            terms = found["terms"][side][:SHOWN]
            if terms:
                said = ", ".join(f"{t['term']!r} ({t['real']:.0%} against {t['data']:.0%})" for t in terms)
                lines.append(f"  more often in {whose} (real against data): {said}")
        words = found["words_in_a_text"]
        lines.append(f"  median length: {words['real']:g} words in real inputs, {words['data']:g} in the {name} rows")
    return "\n".join(lines)


ALPHA = 0.05
TOLD_APART = 0.6


def _verdict(found: dict[str, Any]) -> str:
    auc = found["auc"]
    said = f"AUC {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}), p {found['p']:.3f}"
    if found["p"] > ALPHA:
        return f"no difference found ({said})"
    if auc["value"] < TOLD_APART:
        return f"slightly different ({said})"
    if auc["value"] < 0.8:
        return f"clearly different ({said}); scores on these rows may not hold in use"
    return f"of another kind ({said}); do not expect these scores in use before such inputs are in the data"
