"""How the rows are spread: over the classes, and over lengths."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_ROWS = 20  # fewer lengths have no spread worth the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Median and median absolute deviation of log(1 + characters)."""

    median: float
    mad: float

    def z(self, characters: int) -> float:
        """The robust z of a length (Iglewicz and Hoaglin 1993): 0.6745 (x - median) / MAD; 0 if there is no spread."""
        return 0.6745 * (float(np.log1p(characters)) - self.median) / self.mad if self.mad > 0 else 0.0


def lengths_of(characters: array[int]) -> Lengths | None:
    if len(characters) < MIN_ROWS:
        return None
    logs = np.log1p(np.frombuffer(characters, dtype=np.uint32).astype(np.float64))
    median = float(np.median(logs))
    return Lengths(median=median, mad=float(np.median(np.abs(logs - median))))


def small_classes(counts: Counter[str], max_imbalance: float) -> frozenset[str]:
    """Classes so much smaller than the largest that the ratio is above the limit."""
    largest = max(counts.values(), default=0)
    return frozenset(label for label, n in counts.items() if n * max_imbalance < largest)


def class_facts(counts: Counter[str]) -> dict[str, Any]:
    total, k = counts.total(), len(counts)
    shares = np.array(list(counts.values()), dtype=np.float64) / max(total, 1)
    spread = float(-(shares * np.log(shares)).sum() / np.log(k)) if k > 1 else 1.0
    ordered = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    return {
        "classes": k,
        "largest": list(ordered[0]) if ordered else [],
        "smallest": list(ordered[-1]) if ordered else [],
        "imbalance": round(ordered[0][1] / ordered[-1][1], 4) if ordered else 1.0,
        "evenness": round(spread, 6),  # entropy over its maximum: 1 where all classes are equal
    }
