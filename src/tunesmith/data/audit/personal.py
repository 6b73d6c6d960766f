"""What is done about personal data and secrets in a text: which spans count, and the text without them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.data.audit.pseudonyms import NOTHING, Pseudonyms
from tunesmith.data.audit.reading import Reading, read
from tunesmith.data.audit.scan import Scanner, surest
from tunesmith.data.audit.spans import Span, replace_spans, resolve
from tunesmith.data.audit.texts import inside_string

STRENGTH = {"drop": 0, "redact": 1, "pseudonym": 2, "flag": 3}
FILLER = "\ufffc"  # neither a letter nor a digit nor anything that people write between digits
ROUNDS = 8  # a replacement can bring a context word nearer to another number; two are the most that was seen


@dataclass(frozen=True, slots=True)
class Personal:
    """`find(read(text))`, then `without(text, "redact")`. Both pure."""

    scanner: Scanner
    policies: Mapping[str, str]  # by kind
    pseudonyms: Pseudonyms
    ours: re.Pattern[str]  # pseudonyms_of the kinds that get them

    def find(self, reading: Reading) -> list[Span]:
        """Spans that count, in order and apart. Where two overlap the stricter policy wins, then the surer kind."""
        if self.ours.pattern != NOTHING and self.ours.search(reading.text) is not None:
            # what stands beside a pseudonym is read as if it were not there: an address may begin in a number
            reading = read(self.ours.sub(lambda m: FILLER * len(m.group()), reading.text))
        candidates = self.scanner.find(reading)
        return resolve(candidates, self._rank)

    def without(self, text: str, policy: str, *, json: bool = False) -> str:
        """The text with every span of `policy` replaced, again and again until none is found: so that a second
        audit finds nothing that this one left. `json`: it must stay JSON, so a replaced number gets quotes."""
        for _ in range(ROUNDS):
            spans = [s for s in self.find(read(text)) if self.policies[s.kind] == policy]
            if not spans:
                break
            whole = text

            def instead(span: Span, whole: str = whole) -> str:
                new = span.tag if policy == "redact" else self.pseudonyms.of(span, whole)
                return new if not json or inside_string(whole, span.start) else f'"{new}"'

            text = replace_spans(text, spans, instead)
        return text

    def _rank(self, span: Span) -> tuple[float, ...]:
        return (STRENGTH[self.policies[span.kind]], *surest(span))
