"""One text to its personal data and secrets: every asked detector, behind a scan cheap enough for every row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tunesmith.data.audit import secrets
from tunesmith.data.audit.catalogue import PII_KINDS
from tunesmith.data.audit.pii import addresses, births, cards, emails, ibans, national_ids, network, phones
from tunesmith.data.audit.pii.digits import digit_runs
from tunesmith.data.audit.reading import Reading
from tunesmith.data.audit.spans import Span

RANK = {kind: i for i, kind in enumerate(PII_KINDS)}  # the order in which they win: the surer evidence first
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Scanner:
    """`scanner.find(read(text))`: spans, as they come. Pure, so that any number of workers agree."""

    kinds: frozenset[str]  # of catalogue.PII_KINDS
    regions: tuple[str, ...]  # of phone numbers written without a country code
    names: Callable[[str], Iterable[Span]] | None = None  # presidio.finder(), where names are asked for
    min_score: float = 0.5

    def find(self, reading: Reading) -> list[Span]:
        """Every span of the asked kinds with at least `min_score`; they may overlap."""
        return [s for s in self._candidates(reading) if s.score >= self.min_score]

    def _candidates(self, reading: Reading) -> Iterator[Span]:
        kinds, text = self.kinds, reading.text
        if "secret" in kinds:
            yield from secrets.find(reading)
        if "email" in kinds and "@" in text:
            yield from emails.find(text)
        if self.names is not None and "name" in kinds:
            yield from self.names(text)
        if _DIGIT.search(text) is None:
            if "ip" in kinds and "::" in text:
                yield from network.find_ip(text)
            return
        if "address" in kinds:
            yield from addresses.find(reading)
        if "birth_date" in kinds:
            yield from births.find(reading)
        yield from self._numbers(text)

    def _numbers(self, text: str) -> Iterator[Span]:
        kinds = self.kinds
        if "iban" in kinds:
            yield from ibans.find(text)
        if "ip" in kinds:
            yield from network.find_ip(text)
        if "mac" in kinds:
            yield from network.find_mac(text)
        runs = digit_runs(text)
        if runs and "credit_card" in kinds:
            yield from cards.find(text, runs)
        if "national_id" in kinds:
            yield from national_ids.find(text, runs)
        if runs and "phone" in kinds:
            yield from phones.find(text, runs, self.regions)


def surest(span: Span) -> tuple[float, ...]:
    """The order in which overlapping spans win where no policy says otherwise."""
    return (RANK.get(span.kind, len(RANK)), -span.score)
