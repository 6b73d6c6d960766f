"""Where something was found in a text, and what a text looks like with it hidden."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

AROUND = 24  # characters of context on each side of a finding's excerpt


class Span(NamedTuple):
    """`text[start:end]` is of this kind. Positions count characters of the field as the audit read it."""

    start: int
    end: int
    kind: str  # "email", "credit_card", ...: a name in catalogue.PII, or of another check
    what: str  # closer: "us_ssn", "aws_access_key"
    score: float  # 0 to 1: how sure, by pattern, checksum and context
    core: tuple[int, int] | None = None  # of a span that grew over others: where its own value stands

    @property
    def tag(self) -> str:
        return f"[{self.kind.upper()}]"

    def value(self, text: str) -> str:
        start, end = self.core or (self.start, self.end)
        return text[start:end]


def resolve(spans: Iterable[Span], rank: Callable[[Span], tuple[float, ...]]) -> list[Span]:
    """Overlapping spans become one: the best by `rank` (smallest first) gives the kind, all of them the extent,
    so that hiding it leaves no half of another. Ties go to the longer, then to the earlier name: the result does
    not depend on the order in which the detectors ran."""
    ordered = sorted(set(spans), key=lambda s: s[:5])
    merged: list[Span] = []
    group: list[Span] = []
    reach = -1
    for span in ordered:
        if group and span.start >= reach:
            merged.append(_merge(group, rank))
            group = []
        reach = max(reach, span.end) if group else span.end
        group.append(span)
    if group:
        merged.append(_merge(group, rank))
    return merged


def _merge(group: Sequence[Span], rank: Callable[[Span], tuple[float, ...]]) -> Span:
    if len(group) == 1:
        return group[0]
    best = min(group, key=lambda s: (*rank(s), s.start - s.end, s.start, s.kind, s.what, -s.score))
    start, end = min(s.start for s in group), max(s.end for s in group)
    grew = (start, end) != (best.start, best.end)
    return best._replace(start=start, end=end, core=(best.start, best.end) if grew else None)


def replace_spans(text: str, spans: Sequence[Span], by: Callable[[Span], str]) -> str:
    """`spans` in order and apart, as `resolve` gives them."""
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += (text[at : span.start], by(span))
        at = span.end
    parts.append(text[at:])
    return "".join(parts)


def masked(text: str, spans: Sequence[Span]) -> str:
    """The text with every span as its tag: what a report or a log may show."""
    return replace_spans(text, spans, lambda s: s.tag)


def masked_excerpt(text: str, start: int, end: int, hidden: Sequence[Span]) -> str:
    """`text[start:end]` with some context on one line, everything in `hidden` (in order and apart) as its tag."""
    low, high = max(0, start - AROUND), min(len(text), end + AROUND)
    first = bisect_right(hidden, low, key=lambda s: s.end)
    last = bisect_left(hidden, high, key=lambda s: s.start)
    inside = hidden[first:last]
    if inside:  # a half of a value would show
        low, high = min(low, inside[0].start), max(high, inside[-1].end)
    shifted = [s._replace(start=max(s.start, low) - low, end=min(s.end, high) - low) for s in inside]
    flat = " ".join(masked(text[low:high], shifted).split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)
    return ("…" if low else "") + shown + ("…" if high < len(text) else "")
