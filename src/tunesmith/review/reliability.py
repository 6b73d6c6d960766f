"""How far each annotator can be relied on: against what the others say, never against a consensus they helped make.

Somebody's accuracy against a consensus that includes their own vote is flattered, most so where few vote.
Each annotator is therefore compared with the consensus of the others (leave one out), over the items where
the others agree on one label; ties of the others and items that nobody else saw are counted, not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.metrics.consensus import Method, Vote, Votes, estimated, majority
from tunesmith.metrics.statistics import Resampler, spread
from tunesmith.metrics.sums import mean_of

RESAMPLES = 2_000
CONFIDENCE = 0.95
SEED = 0
TIE = 1e-9
SHOWN = 3  # commonest confusions of an annotator


def reliability(
    votes: Iterable[Vote],
    *,
    method: Method,
    labels: Sequence[str] = (),
    adjudicated: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """JSON-ready facts for each annotator: accuracy with its interval (None where nothing could be compared)
    and the confusion, {what the others say: {what this one says: items}}.

    `adjudicated` (item -> label) is the truth where it is known, whatever the others say. Raises DataError
    as Votes.of does.
    """
    table = Votes.of(votes, labels=labels)
    place = {label: k for k, label in enumerate(table.labels)}
    settled = {
        i: place[adjudicated[x]] for i, x in enumerate(table.items) if adjudicated and adjudicated.get(x) in place
    }
    found = {}
    for a, name in enumerate(table.annotators):
        mine = table.annotator == a
        item, said = table.item[mine], table.label[mine]
        truth = _truth_of_others(table, a, method, settled)[item]
        judged = truth >= 0
        confusion: dict[str, dict[str, int]] = {}
        for t, s in sorted(zip(truth[judged].tolist(), said[judged].tolist(), strict=True)):
            row = confusion.setdefault(table.labels[t], {})
            row[table.labels[s]] = row.get(table.labels[s], 0) + 1
        accuracy = None
        if judged.any():
            hits = (truth[judged] == said[judged]).astype(np.float64)
            sampled = Resampler.of([str(i) for i in item[judged]], resamples=resamples, seed=seed)
            interval = spread(mean_of(hits), sampled).interval(confidence)
            accuracy = {k: round(float(getattr(interval, k)), 6) for k in ("value", "low", "high")}
        found[name] = {
            "votes": int(mine.sum()),
            "compared": int(judged.sum()),
            "not_compared": int((~judged).sum()),
            "accuracy": accuracy,
            "confusion": confusion,
        }
    return {"method": method, "confidence": confidence, "items": len(table.items), "annotators": found}


def _truth_of_others(table: Votes, annotator: int, method: Method, settled: dict[int, int]) -> np.ndarray:
    """(N,) label indices, -1 where the others say nothing or tie."""
    truth = np.full(len(table.items), -1, dtype=np.int64)
    others = table.without(annotator)
    if others is not None:
        known = {table.items[i]: table.labels[k] for i, k in settled.items()}
        shares = majority(others) if method == "majority" else estimated(others, known)
        best = shares.max(axis=1, keepdims=True)
        clear = ((shares >= best - TIE).sum(axis=1) == 1) & (others.counts().sum(axis=1) > 0)
        truth[clear] = shares.argmax(axis=1)[clear]
    for i, k in settled.items():
        truth[i] = k
    return truth


def reliability_words(facts: dict[str, Any]) -> str:
    """For the terminal: the least reliable first, with what each confuses most."""
    known = [(f["accuracy"]["value"], name, f) for name, f in facts["annotators"].items() if f["accuracy"]]
    lines = [f"agreement of each annotator with the others ({facts['confidence']:.0%} interval)"]
    for value, name, f in sorted(known, key=lambda k: (k[0], k[1])):
        low, high = f["accuracy"]["low"], f["accuracy"]["high"]
        line = f"  {name}: {value:.2f} ({low:.2f} to {high:.2f}) on {f['compared']:,} items"
        wrong = sorted(
            ((n, t, s) for t, row in f["confusion"].items() for s, n in row.items() if s != t),
            key=lambda w: (-w[0], w[1], w[2]),
        )
        if wrong:
            line += "; says " + ", ".join(f"{s!r} for {t!r} {n}×" for n, t, s in wrong[:SHOWN])
        lines.append(line)
    alone = sorted(name for name, f in facts["annotators"].items() if not f["accuracy"])
    if alone:
        lines.append(f"  nothing to compare with: {', '.join(alone)}; give the same items to somebody else too")
    return "\n".join(lines)
