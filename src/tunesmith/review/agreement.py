"""Agreement that is up to date after every judgment, from counts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

CLEAR = 10  # items that several people judged, before a number is shown


class LiveAgreement:
    """Percent agreement and Krippendorff's nominal alpha, kept as sums so that one more verdict costs nothing.

    Equal to metrics/agreement.py's values on the same ratings; intervals are its business.
    """

    def __init__(self) -> None:
        self.items = 0  # with two verdicts or more
        self._by_size: Counter[int] = Counter()  # ratings m of an item -> how many such items
        self._agreeing: Counter[int] = Counter()  # m -> sum of n_c (n_c - 1) over those items
        self._totals: Counter[str] = Counter()  # value -> how often, over those items

    def replace(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """An item's counts of each value changed."""
        self._add(before, -1)
        self._add(after, +1)

    def _add(self, counts: Mapping[str, int], sign: int) -> None:
        m = sum(counts.values())
        if m < 2:
            return
        self.items += sign
        self._by_size[m] += sign
        self._agreeing[m] += sign * sum(n * (n - 1) for n in counts.values())
        for value, n in counts.items():
            self._totals[value] += sign * n

    @property
    def percent(self) -> float | None:
        """Mean over items of the share of pairs that agree, 0 to 1; None without items."""
        if not self.items:
            return None
        return sum(agreeing / (m * (m - 1)) for m, agreeing in self._agreeing.items()) / self.items

    @property
    def alpha(self) -> float | None:
        """None where chance has no meaning: no items, or one value is all there is.

        Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C.
        """
        n = sum(self._totals.values())
        expected = n * n - sum(c * c for c in self._totals.values())
        if not expected:
            return None
        observed = sum((items * m * (m - 1) - self._agreeing[m]) / (m - 1) for m, items in self._by_size.items())
        return 1 - (n - 1) * observed / expected
