"""Which words of an answer stand in the passage it was made from."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
# words too common to support anything; other languages' are longer lists of the same effect and are not guessed
COMMON = frozenset(
    [
        "a",
        "about",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "may",
        "more",
        "most",
        "no",
        "not",
        "of",
        "on",
        "or",
        "other",
        "our",
        "out",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


def words(text: str) -> list[tuple[int, int, str]]:
    """(start, end, folded) of each word."""
    return [(m.start(), m.end(), m.group().casefold()) for m in _WORD.finditer(text)]


def parts(text: str, other: str) -> list[tuple[str, bool]]:
    """`text` in pieces; True: the words of this piece also stand in `other`. Joined, they are `text`.

    Common words count only between two shared words, so that a shared phrase is one piece.
    """
    there = {w for _, _, w in words(other)}
    spans: list[list[int]] = []
    bridge = False  # only common words that `other` also has since the last shared one
    for start, end, word in words(text):
        if word not in there:
            bridge = False
        elif word not in COMMON:
            if bridge and spans:
                spans[-1][1] = end
            else:
                spans.append([start, end])
            bridge = True
    pieces, at = [], 0
    for start, end in spans:
        pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    pieces.append((text[at:], False))
    return [p for p in pieces if p[0]]
