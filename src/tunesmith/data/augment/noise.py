"""Slips of the pen, of the shift key and of the layout, as people make them.

Each function takes a text, the share of words (or places) to touch and a random source, and gives the text
back. Words with digits, addresses and `kept` words are never touched: an answer must still be in its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from random import Random

from tunesmith.data.augment.nearness import WORDS
from tunesmith.data.validate import normalised

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
WORD = re.compile(r"\S+")  # with what clings to it: an address or a number is guarded whole
LETTERS = re.compile(r"[^\W\d_]+")
SHORTEST = 4  # letters of a word that gets a typo
PLACE = re.compile(r"(?<=[,;:.!?]) (?=\S)|\n+|(?<=\S) (?=\S)|[.!?](?=\s*\Z)|[“”‘’]|(?<=\w)-(?=\w)")


def _neighbours() -> dict[str, str]:
    """Letters whose keys touch on a QWERTY keyboard, each row half a key further right than the one above."""
    near: dict[str, set[str]] = {c: set() for row in ROWS for c in row}
    for r, row in enumerate(ROWS):
        for i, c in enumerate(row):
            touching = [(r, i - 1), (r, i + 1), (r - 1, i), (r - 1, i + 1), (r + 1, i - 1), (r + 1, i)]
            near[c] |= {ROWS[a][b] for a, b in touching if 0 <= a < len(ROWS) and 0 <= b < len(ROWS[a])}
    return {c: "".join(sorted(found)) for c, found in near.items()}


NEIGHBOURS = _neighbours()


def typos(text: str, rate: float, random: Random, kept: Collection[str] = ()) -> str:
    """One slip in each touched word: a neighbouring key, two letters swapped, one missing or one doubled.

    Only in words of four letters or more of a script with upper and lower case; there a slip leaves the word
    readable. The first letter stays.
    """

    def slip(word: str) -> str:
        i = random.randrange(1, len(word))
        kind = random.choice(("neighbour", "swap", "drop", "double"))
        if kind == "neighbour" and word[i].lower() in NEIGHBOURS:
            hit = random.choice(NEIGHBOURS[word[i].lower()])
            return word[:i] + (hit.upper() if word[i].isupper() else hit) + word[i + 1 :]
        if kind == "swap" and i + 1 < len(word) and word[i] != word[i + 1]:
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if kind == "double":
            return word[: i + 1] + word[i:]
        return word[:i] + word[i + 1 :]

    def fits(word: str) -> bool:
        return len(word) >= SHORTEST and word.lower() != word.upper()

    return _some(LETTERS, text, rate, random, fits, slip, kept)


def case(text: str, rate: float, random: Random, kept: Collection[str] = ()) -> str:
    """Touched words all in lower case, all in capitals, or all with a capital: one of the three for the whole text."""
    change: Callable[[str], str] = random.choice((str.lower, str.lower, str.upper, str.capitalize))
    return _some(LETTERS, text, rate, random, lambda word: change(word) != word, change, kept)


def layout(text: str, rate: float, random: Random, kept: Collection[str] = ()) -> str:
    """Spaces doubled, lost after a comma or turned into line breaks, line breaks into spaces, a last full stop
    lost, quotes straight, hyphens as spaces. Words stay as they are."""

    def change(found: str) -> str:
        if found == " ":
            return random.choice(("  ", "\n", " \t"))
        if found.startswith("\n"):
            return random.choice((" ", "\n\n", "\r\n"))
        return {"“": '"', "”": '"', "‘": "'", "’": "'", "-": " "}.get(found, "")

    return _some(PLACE, text, rate, random, lambda found: True, change, kept)


NOISES: dict[str, Callable[..., str]] = {"typos": typos, "case": case, "format": layout}


def _some(
    pattern: re.Pattern[str],
    text: str,
    rate: float,
    random: Random,
    fits: Callable[[str], bool],
    change: Callable[[str], str],
    kept: Collection[str],
) -> str:
    """Changes `rate` of the fitting places, at least one where there is any; never inside a guarded word."""
    guarded = [m.span() for m in WORD.finditer(text) if _is_guarded(m[0], kept)]
    places = [m.span() for m in pattern.finditer(text) if fits(m[0]) and not _inside(m.span(), guarded)]
    if not places:
        return text
    touched = sorted(random.sample(places, max(1, round(rate * len(places)))))
    parts, end = [], 0
    for a, b in touched:
        parts += [text[end:a], change(text[a:b])]
        end = b
    return "".join([*parts, text[end:]])


def _is_guarded(word: str, kept: Collection[str]) -> bool:
    if any(c.isdigit() for c in word) or "@" in word or "/" in word:
        return True
    return bool(kept) and any(part in kept for part in WORDS.findall(normalised(word)))


def _inside(span: tuple[int, int], guarded: list[tuple[int, int]]) -> bool:
    return any(a <= span[0] and span[1] <= b and span[1] > span[0] for a, b in guarded)
