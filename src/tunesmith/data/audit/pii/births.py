"""Dates of birth: a date beside a word that says so. A date alone is no personal datum."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.audit.reading import Reading, word_set
from tunesmith.data.audit.spans import Span

_WORDS = word_set(
    "birth birthday birthdate born dob bday day geboren geb geburtsdatum naissance né née nacimiento nacido nacida nato "
    "nata nascita geboortedatum"
)
_CONTEXT = re.compile(
    r"\b(?:date of birth|birth ?da(?:y|te)|b-?day|born(?: on)?|d\.?o\.?b\b\.?|geb(?:oren|urtsdatum|\.)(?: am)?|"
    r"(?:date de )?naissance|née? le|fecha de nacimiento|nacid[oa](?: el)?|nat[oa] il|data di nascita|geboortedatum)",
    re.IGNORECASE,
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|januar|februar|märz|mai|juni|juli|okt|dez)[a-zé]*\.?"
DATE = re.compile(
    r"(?<![\w/.-])(?:"
    r"\d{1,2}[/.\-]\d{1,2}[/.\-](?:19|20)\d{2}|\d{1,2}[/.\-]\d{1,2}[/.\-]\d{2}|(?:19|20)\d{2}[/.\-]\d{1,2}[/.\-]\d{1,2}"
    rf"|\d{{1,2}}(?:st|nd|rd|th|\.)? (?:of )?{_MONTH},? (?:19|20)\d{{2}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d{{2}}"
    r")(?![\w/-])",
    re.IGNORECASE,
)
REACH = 40  # characters from the word to the date


def find(reading: Reading) -> Iterator[Span]:
    text = reading.text
    if _WORDS.isdisjoint(reading.vocabulary) and "d.o.b" not in reading.lower:
        return
    for m in _CONTEXT.finditer(text):
        date = DATE.search(text, m.end(), m.end() + REACH + 20)
        if date and date.start() - m.end() <= REACH and "\n\n" not in text[m.end() : date.start()]:
            yield Span(date.start(), date.end(), "birth_date", "birth_date", 0.9)
