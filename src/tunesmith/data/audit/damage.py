"""Texts that are hardly texts: next to nothing in them, broken encodings, one thing over and over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tunesmith.data.audit.spans import Span

MIN_WORD_CHARACTERS = 3
REPEATED_WORDS = 50  # words from which a text can count as repeating itself
MAX_DISTINCT = 0.1  # share of distinct words below which it does
# UTF-8 read as Latin-1 or Windows-1252: a lead byte as a letter, then what a continuation byte becomes there
_MOJIBAKE = re.compile(
    r"[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œŸ]|â€[\u0080-\u009f™œ¦“”˜\u009d]|ï»¿|Ð[\u0080-\u00bf°-¿]Ñ"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\ufffd")


def find(text: str, words: Sequence[str], *, is_input: bool) -> Iterator[Span]:
    if is_input and sum(map(len, words[:MIN_WORD_CHARACTERS])) < MIN_WORD_CHARACTERS:
        yield Span(0, len(text), "near_empty", "near_empty", 1.0)
    if not text.isascii():
        for m in _MOJIBAKE.finditer(text):
            yield Span(m.start(), m.end(), "encoding_damage", "mojibake", 0.9)
    for m in _CONTROL.finditer(text):
        what = "replacement_character" if m.group() == "\ufffd" else "control_character"
        yield Span(m.start(), m.end(), "encoding_damage", what, 0.9)
    if len(words) >= REPEATED_WORDS:
        distinct = len(set(words))
        if distinct < MAX_DISTINCT * len(words):
            commonest = Counter(words).most_common(1)[0][0]
            yield Span(0, len(text), "repetition", commonest, 1 - distinct / len(words))
