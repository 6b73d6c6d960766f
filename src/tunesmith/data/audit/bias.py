"""Which groups of people the texts mention, which labels go with them, and the same rows with the group exchanged.

Label rates carry Wilson intervals; association is tested by Fisher's exact test, two-sided, on the table of
group mentioned or not by label or not, corrected over all tests by Benjamini and Hochberg (1995). An association
is a fact about the data, not yet an injustice: "she" goes with maternity.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from tunesmith.core.canonical import content_id
from tunesmith.core.nouns import Row
from tunesmith.data.audit.group_terms import GROUP_OF, OBJECT_HER, POSSESSIVE_HER, SWAPS, TERMS
from tunesmith.data.audit.reading import word_set, words_of
from tunesmith.data.audit.spans import Span

Group = tuple[str, str]  # dimension, group
MIN_MENTIONS = 5  # rows; fewer say nothing either way
MAX_LABELS = 200  # more are answers, not classes
Z_95 = 1.959963984540054
_TERM = re.compile(
    rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, GROUP_OF), key=lambda t: (-len(t), t)))})(?![\w-])", re.I
)
_WORD = re.compile(r"\w+")
SWAPPABLE = frozenset(SWAPS) | {"her", "his"}
_NOT_POSSESSED = word_set(
    "a an the and or but to in on at for with of from by as is was were are be has had have that this it he she they who "
    "when while if so because after before about again all alone also there here up down out off over not"
)


def groups_in(words: Iterable[str]) -> frozenset[Group]:
    """Groups that the words of a text (lower case) name."""
    return frozenset(group for word in GROUP_OF.keys() & set(words) for group in GROUP_OF[word])


def terms_in(text: str, group: Group) -> Iterator[Span]:
    """Where a text names a group."""
    for m in _TERM.finditer(text):
        if group in GROUP_OF[m.group().lower()]:
            yield Span(m.start(), m.end(), "bias", f"{group[0]}:{group[1]}", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """How often a label goes with a group, against the rows that do not name the group."""

    dimension: str
    group: str
    label: str
    with_group: int  # rows that name the group
    rate: float  # of the label among them
    low: float  # Wilson, 95 %
    high: float
    base_rate: float  # of the label among the other rows
    p: float  # Fisher's exact test, two-sided
    q: float  # after Benjamini and Hochberg


@dataclass(slots=True)
class Mentions:
    """Counts of rows by group and label. `note` each row, then ask `associations`."""

    rows: int = 0
    groups: Counter[Group] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    both: Counter[tuple[Group, str]] = field(default_factory=Counter)

    def note(self, found: Iterable[Group], label: str | None) -> None:
        self.rows += 1
        if label is not None:
            self.labels[label] += 1
        for group in found:
            self.groups[group] += 1
            if label is not None:
                self.both[group, label] += 1

    def representation(self) -> dict[str, dict[str, int]]:
        return {
            dimension: {group: self.groups[dimension, group] for group in groups} for dimension, groups in TERMS.items()
        }

    def associations(self) -> list[Association]:
        """Every group and label that could be told apart, by dimension, group and label."""
        if not 2 <= len(self.labels) <= MAX_LABELS:
            return []
        found = []
        for group in sorted(g for g, n in self.groups.items() if MIN_MENTIONS <= n < self.rows):
            n = self.groups[group]
            for label in sorted(self.labels):
                k, others = self.both[group, label], self.labels[label] - self.both[group, label]
                p = fisher(k, n - k, others, self.rows - n - others)
                low, high = wilson(k, n)
                found.append((group, label, n, k / n, low, high, others / (self.rows - n), p))
        corrected = benjamini_hochberg([f[-1] for f in found])
        return [
            Association(dimension=g[0], group=g[1], label=label, with_group=n, rate=rate, low=low, high=high,
                        base_rate=base, p=p, q=q)
            for (g, label, n, rate, low, high, base, p), q in zip(found, corrected, strict=True)
        ]  # fmt: skip


def wilson(k: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of k in n (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = k / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Two-sided p of the table [[a, b], [c, d]]: the tables no likelier than it, margins kept.

    A table expected above 2,000 in every cell is tested by chi-square with Yates's correction: equal there to
    three digits and constant in time."""
    n = a + b + c + d
    row, column = a + b, a + c
    if n == 0 or min(row, n - row, column, n - column) == 0:
        return 1.0
    expected = [x * y / n for x in (row, n - row) for y in (column, n - column)]
    if min(expected) > 2_000:
        chi2 = n * max(0.0, abs(a * d - b * c) - n / 2) ** 2 / (row * (n - row) * column * (n - column))
        return math.erfc(math.sqrt(chi2 / 2))
    low, high = max(0, row + column - n), min(row, column)
    whole = _log_choose(n, column)
    at = _log_table(a, row, column, n) - whole
    # nothing beyond 40 standard deviations adds to a sum of doubles
    sd = math.sqrt(row * (n - row) * column * (n - column) / (n * n * max(n - 1, 1)))
    mean = row * column / n
    width = max(40 * sd, abs(a - mean)) + 1
    total = 0.0
    for x in range(max(low, math.floor(mean - width)), min(high, math.ceil(mean + width)) + 1):
        log_p = _log_table(x, row, column, n) - whole
        if log_p <= at + 1e-7:
            total += math.exp(log_p)
    return min(1.0, total)


def _log_table(x: int, row: int, column: int, n: int) -> float:
    return _log_choose(row, x) + _log_choose(n - row, column - x)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def benjamini_hochberg(p: list[float]) -> list[float]:
    """Adjusted p-values: significant at alpha where at most alpha."""
    order = sorted(range(len(p)), key=lambda i: -p[i])
    adjusted = [0.0] * len(p)
    least = 1.0
    for place, i in enumerate(order):
        least = min(least, p[i] * len(p) / (len(p) - place))
        adjusted[i] = least
    return adjusted


def counterfactuals(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Rows that name a group, each with the one in which every swappable word is exchanged; both with a pair id.

    {pair, dimensions, swaps: [[from, to], ...], original: Row, swapped: Row}. Only user turns are changed: the answer
    should stay. A row in which a swap would change nothing, or that mixes both sides of a pair, gives none.
    """
    for row in rows:
        if not any(not SWAPPABLE.isdisjoint(words_of(m.content.lower())) for m in row.messages if m.role == "user"):
            continue  # cheaper than the search for every term
        messages, swaps = [], []
        for message in row.messages:
            content, made = swap(message.content) if message.role == "user" else (message.content, [])
            messages.append(msgspec.structs.replace(message, content=content))
            swaps += made
        if not swaps or {one for one, _ in swaps} & {other for _, other in swaps}:
            continue
        changed = msgspec.structs.replace(row, messages=tuple(messages))
        swapped = msgspec.structs.replace(changed, id=changed.example.id, origin="audit.counterfactual")
        names = sorted({dimension for one, _ in swaps for dimension, _ in GROUP_OF.get(one, ())})
        pair = content_id([row.id, swapped.id])[:16]
        yield {
            "pair": pair,
            "dimensions": names,
            "swaps": sorted({tuple(s) for s in swaps}),
            "original": row,
            "swapped": swapped,
        }


def swap(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text with every swappable group word exchanged, its case kept, and the exchanges made (lower case)."""
    made: list[tuple[str, str]] = []

    def exchange(m: re.Match[str]) -> str:
        word = m.group()
        other = _counterpart(word.lower(), text[m.end() : m.end() + 24])
        if other is None:
            return word
        made.append((word.lower(), other))
        return _cased(word, other)

    return _TERM.sub(exchange, text), made


def _counterpart(word: str, rest: str) -> str | None:
    if word not in ("her", "his"):
        return SWAPS.get(word)
    following = re.match(r" ([a-z][a-z'-]*)", rest, re.I)
    possessive = following is not None and following.group(1).lower() not in _NOT_POSSESSED
    if word == "her":
        return POSSESSIVE_HER if possessive else OBJECT_HER
    return "her" if possessive else "hers"


@lru_cache(maxsize=4096)
def _cased(like: str, word: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word.capitalize() if like[0].isupper() else word
