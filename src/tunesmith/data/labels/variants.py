"""Labels that are probably one class written in several ways. Suggestions with their evidence; nothing is merged here.

    case, spaces   "Sports", " sports", "sports-": the same but for case, white space and separators
    typo           "Sprots": one edit away from a label at least 20 times as common

A typo is suggested only where the evidence is strong, because real classes can have near names ("hyperthermia"
and "hypothermia"; "type 1" and "type 2"): the digits must be equal, the first letter too, the rarer label be
rare, and neither be declared by the user beside the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.validate import normalised

SHORTEST = 5  # letters; in a shorter word one edit makes another word
LONG = 14  # letters from which two edits are a typo too
# runs with a hyphen, an underscore or a full stop and no digit on either side; spaces but between two digits
SEPARATORS = re.compile(r"(?<![\d\s._,;:'\"-])[\s._,;:'\"-]++(?!\d)|^[\s._,;:'\"-]++(?!\d)")
SPACES = re.compile(r"(?<![\d\s])\s++|(?<!\s)\s++(?!\d)")
RATIO = 20  # the commoner label has at least so many times the rows
RAREST = 5  # rows of a label that may be a typo, or 1 % of the commoner's if that is more


def suggest_variants(rows: Mapping[str, int], declared: Sequence[str] = ()) -> list[dict[str, Any]]:
    """`rows`: how many rows each label has. One suggestion a label, each label suggested at most once, sorted.

    The label kept is the declared one, else the commonest, else the first in alphabetical order.
    """
    wanted = set(declared)
    order = sorted(rows, key=lambda label: (label not in wanted, -rows[label], label))
    found: list[dict[str, Any]] = []
    kept: dict[str, str] = {}  # without case and separators -> label
    for label in order:
        into = kept.setdefault(_letters(label), label)
        if into != label and label not in wanted:
            why = "case" if label.casefold() == into.casefold() else "spaces"
            found.append(_suggestion(label, into, why, rows))
    merged = {f["label"] for f in found}
    distinct = [label for label in order if label not in merged]
    for label in distinct:
        meant = None if label in wanted else _typo_of(label, distinct, rows)
        if meant is not None:
            found.append(_suggestion(label, meant, "typo", rows))
    return sorted(found, key=lambda f: f["label"])


def _suggestion(label: str, into: str, why: str, rows: Mapping[str, int]) -> dict[str, Any]:
    return {"label": label, "rows": rows[label], "suggested": into, "suggested_rows": rows[into], "why": why}


def _typo_of(label: str, others: Sequence[str], rows: Mapping[str, int]) -> str | None:
    """The commonest label that this one is probably a slip of the pen for."""
    here = normalised(label)
    for other in others:  # the commonest first
        if rows[other] < RATIO * rows[label] or rows[label] > max(RAREST, rows[other] // 100):
            continue
        there = normalised(other)
        shorter = min(len(here), len(there))
        if shorter < SHORTEST or here[0] != there[0] or _digits(here) != _digits(there):
            continue
        if edits(here, there, limit=2 if shorter >= LONG else 1) is not None:
            return other
    return None


def edits(a: str, b: str, *, limit: int) -> int | None:
    """Insertions, deletions, substitutions and swaps of neighbours from a to b; None above the limit.

    The restricted Damerau-Levenshtein distance: no letter is edited twice.
    """
    if abs(len(a) - len(b)) > limit:
        return None
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        now = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            now.append(cost)
        if min(now) > limit:
            return None
        before, last = last, now
    return last[-1] if last[-1] <= limit else None


def _letters(label: str) -> str:
    """The label without case, white space and separators; "1-2" is not "12", "-1" not "1", "c++" not "c"."""
    plain = SPACES.sub("", SEPARATORS.sub(" ", normalised(label)))
    return plain or label


def _digits(text: str) -> list[str]:
    """Numbers in order; "1 1" are two."""
    return re.findall(r"\d+", text)
