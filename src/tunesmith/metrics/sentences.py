"""Where sentences end, for rougeLsum and the lead baseline: one stated rule instead of a downloaded model."""

from __future__ import annotations

import re

# After a line break; after . ! ? … with closing quotes or brackets, where white space follows; after the
# full-width 。！？ always. Abbreviations ("Dr. Smith") do split: the rule is stated, not clever.
_END = re.compile(r"\n+|(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])")


def split_sentences(text: str) -> list[str]:
    """Sentences without surrounding white space, none empty. Closing quotes stay with their sentence."""
    sentences, start = [], 0
    for end in _END.finditer(text):
        closing = len(end.group().rstrip())
        sentences.append(text[start : end.start() + closing].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [s for s in sentences if s]
