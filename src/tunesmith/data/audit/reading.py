"""A text as every detector reads it: once lower-cased and split, so that none does it again."""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = re.compile(r"\w+")


class Reading(NamedTuple):
    text: str
    lower: str
    words: list[str]  # of `lower`, in order
    vocabulary: frozenset[str]  # of `words`


def word_set(listed: str) -> frozenset[str]:
    """The words of a list written with spaces."""
    return frozenset(listed.split())


def read(text: str) -> Reading:
    lower = text.lower()
    words = _WORD.findall(lower)
    return Reading(text, lower, words, frozenset(words))
