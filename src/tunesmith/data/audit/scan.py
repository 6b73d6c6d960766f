"""One text to its personal data and secrets: every asked detector, behind a scan cheap enough for every row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tunesmith.data.audit import secrets
from tunesmith.data.audit.catalogue import PII_KINDS
from tunesmith.data.audit.pii import addresses, births, cards, emails, ibans, national_ids, network, phones
from tunesmith.data.audit.pii.digits import digit_runs
from tunesmith.data.audit.spans import Span

RANK = {kind: i for i, kind in enumerate(PII_KINDS)}  # the order in which they win: the surer evidence first
_MAC_OR_IP = re.compile(r"[:.\-][0-9A-Fa-f]{1,4}[:.\-]")
_DIGIT = re.compile(r"\d")
_SIX = re.compile(r"\d(?:[^\w\n]{0,3}\d){5}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d")


@dataclass(frozen=True, slots=True)
class Scanner:
    """`scanner.find(text)`: spans in order, apart from each other. Pure, so that any number of workers agree."""

    kinds: frozenset[str]  # of catalogue.PII_KINDS
    regions: tuple[str, ...]  # of phone numbers written without a country code
    names: Callable[[str], Iterable[Span]] | None = None  # presidio.finder(), where names are asked for
    min_score: float = 0.5

    def find(self, text: str) -> list[Span]:
        """Every span of the asked kinds with at least `min_score`; they may overlap."""
        return [s for s in self._candidates(text) if s.score >= self.min_score and s.kind in self.kinds]

    def _candidates(self, text: str) -> Iterator[Span]:
        kinds = self.kinds
        lower = text.lower()
        if "secret" in kinds:
            yield from secrets.find(text, lower)
        if "email" in kinds and "@" in text:
            yield from emails.find(text)
        if self.names is not None and "name" in kinds:
            yield from self.names(text)
        digit = _DIGIT.search(text)
        if digit is None:
            if "ip" in kinds and "::" in text:
                yield from network.find_ip(text)
            return
        if "address" in kinds:
            yield from addresses.find(text)
        if "birth_date" in kinds:
            yield from births.find(text, lower)
        yield from self._numbers(text, digit.start())

    def _numbers(self, text: str, first: int) -> Iterator[Span]:
        kinds = self.kinds
        if "iban" in kinds and _IBAN.search(text) is not None:
            yield from ibans.find(text)
        if _MAC_OR_IP.search(text) is not None:
            if "ip" in kinds:
                yield from network.find_ip(text)
            if "mac" in kinds:
                yield from network.find_mac(text)
        runs = digit_runs(text) if _SIX.search(text, first) is not None else []
        if runs and "credit_card" in kinds:
            yield from cards.find(text, runs)
        if "national_id" in kinds:
            yield from national_ids.find(text, runs)
        if runs and "phone" in kinds:
            yield from phones.find(text, runs, self.regions)


def surest(span: Span) -> tuple[float, ...]:
    """The order in which overlapping spans win where no policy says otherwise."""
    return (RANK.get(span.kind, len(RANK)), -span.score)
