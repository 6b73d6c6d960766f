"""National identity, social-security and tax numbers, by their checksums (python-stdnum) and their context.

A checksum alone lets one number in ten through, so a bare run of digits counts only beside a word that names
it; a number whose written form is its own (SSN with its dashes, codice fiscale) counts without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from tunesmith.core.extras import need
from tunesmith.data.audit.pii.digits import Run, before
from tunesmith.data.audit.spans import Span


class IdNumber(NamedTuple):
    what: str
    module: str  # of python-stdnum
    digits: tuple[int, ...]
    context: str  # pattern of words that name it, searched in the 48 lower-case characters before
    form: str = ""  # a written form that counts without context


NUMBERS = (
    IdNumber("us_ssn", "stdnum.us.ssn", (9,), r"\bssns?\b|social.?security", r"\d{3}-\d{2}-\d{4}"),
    IdNumber("us_itin", "stdnum.us.itin", (9,), r"\bitin\b|taxpayer"),
    IdNumber("uk_nhs", "stdnum.gb.nhs", (10,), r"\bnhs\b"),
    IdNumber("de_steuer_id", "stdnum.de.idnr", (11,), r"steuer|\bidnr\b|tax.?(?:id|number)|\btin\b"),
    IdNumber("fr_nir", "stdnum.fr.nir", (15,), r"s[ée]curit[ée] sociale|\bnir\b|\bins[ée]e\b|social.?security",
             r"[12] \d{2} \d{2} \d{2} \d{3} \d{3}(?: \d{2})?"),
    IdNumber("nl_bsn", "stdnum.nl.bsn", (9,), r"\bbsn\b|burgerservice|sofi"),
    IdNumber("be_nn", "stdnum.be.nn", (11,), r"rijksregister|registre national|national.?(?:id|number)|\bniss\b",
             r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"),
    IdNumber("pl_pesel", "stdnum.pl.pesel", (11,), r"\bpesel\b"),
    IdNumber("se_personnummer", "stdnum.se.personnummer", (10, 12), r"personn(?:umme)?r|personal.?(?:id|number)"),
    IdNumber("dk_cpr", "stdnum.dk.cpr", (10,), r"\bcpr\b|personnummer"),
    IdNumber("no_fodselsnummer", "stdnum.no.fodselsnummer", (11,), r"f[øo]dselsn"),
    IdNumber("br_cpf", "stdnum.br.cpf", (11,), r"\bcpf\b", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    IdNumber("ca_sin", "stdnum.ca.sin", (9,), r"\bsin\b|social.?insurance"),
    IdNumber("ch_ahv", "stdnum.ch.ssn", (13,), r"\bahv\b|\bavs\b", r"756\.\d{4}\.\d{4}\.\d{2}"),
    IdNumber("in_aadhaar", "stdnum.in_.aadhaar", (12,), r"aadh?aar|\buidai\b"),
    IdNumber("pt_nif", "stdnum.pt.nif", (9,), r"\bnif\b|contribuinte"),
    IdNumber("at_svnr", "stdnum.at.vnr", (10,), r"sozialvers|\bsvnr\b"),
    IdNumber("au_tfn", "stdnum.au.tfn", (9,), r"\btfn\b|tax.?file"),
    IdNumber("za_id", "stdnum.za.idnr", (13,), r"\brsa id\b|\bsa id\b|identity number"),
    IdNumber("cn_ric", "stdnum.cn.ric", (18,), r"身份证|\bid\b|identity"),
)  # fmt: skip
_BY_DIGITS: dict[int, list[IdNumber]] = {}
for _number in NUMBERS:
    for _n in _number.digits:
        _BY_DIGITS.setdefault(_n, []).append(_number)

# forms with letters; the group's name says which
_LETTERED = re.compile(
    r"(?:"
    r"(?P<uk_nino>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])"
    r"|(?P<es_dni>\d{8}[- ]?[A-HJ-NP-TV-Z])"
    r"|(?P<es_nie>[XYZ][- ]?\d{7}[- ]?[A-HJ-NP-TV-Z])"
    r"|(?P<it_codice_fiscale>[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])"
    r"|(?P<fi_hetu>\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y])"
    r"|(?P<in_pan>[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z])"
    r")(?![\w-])",
    re.IGNORECASE,
)
_LETTERED_DIGITS = re.compile(r"[0-9]{2,8}")
_LEADS = (0, 1, 2, 3, 5, 6)  # characters of a form before its first digit: DNI, NIE, NIE or NINO, NINO, PAN, CF
_LETTERED_MODULE = {
    "es_dni": "stdnum.es.dni",
    "es_nie": "stdnum.es.nie",
    "it_codice_fiscale": "stdnum.it.codicefiscale",
    "fi_hetu": "stdnum.fi.hetu",
    "in_pan": "stdnum.in_.pan",
}
_LETTERED_CONTEXT = {
    "uk_nino": r"\bnino?\b|national.?insurance|\bni n",
    "es_dni": r"\bdni\b|\bnif\b|identidad",
    "in_pan": r"\bpan\b|permanent account",
}
_NEEDS_CONTEXT = frozenset({"in_pan"})  # no checksum
_NO_NINO = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})  # prefixes never given out


def find(text: str, runs: Iterable[Run]) -> Iterator[Span]:
    """Needs the audit extra."""
    for run in runs:
        for number in _BY_DIGITS.get(len(run.digits), ()):
            ahead = before(text, run.start, 48)
            context = re.search(number.context, ahead) is not None
            formed = bool(number.form) and re.fullmatch(number.form, run.text) is not None
            if (context or formed) and _is_valid(number.module, run.digits):
                yield Span(run.start, run.end, "national_id", number.what, 0.95 if context else 0.7)
                break
    for m in _lettered(text):
        score = _lettered_score(text, m)
        if score:
            yield Span(m.start(), m.end(), "national_id", m.lastgroup or "", score)


def _lettered(text: str) -> Iterator[re.Match[str]]:
    """Looks from each group of digits backwards: far fewer places than every letter."""
    at = 0
    for digits in _LETTERED_DIGITS.finditer(text):
        first = digits.start()
        if first < at or (digits.end() - first < 6 and not text[max(first - 2, 0) : first].rstrip(" -").isalpha()):
            continue
        for lead in _LEADS:
            start = first - lead
            if start < 0 or (start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_-")):
                continue
            m = _LETTERED.match(text, start)
            if m:
                at = m.end()
                yield m
                break


def _lettered_score(text: str, m: re.Match[str]) -> float:
    what, written = m.lastgroup or "", m.group()
    pattern = _LETTERED_CONTEXT.get(what)
    context = pattern is not None and re.search(pattern, before(text, m.start(), 48)) is not None
    if not context and (written != written.upper() or what in _NEEDS_CONTEXT):
        return 0.0
    if what == "uk_nino":
        return 0.0 if written[:2].upper() in _NO_NINO else 0.95 if context else 0.7
    return (0.95 if context else 0.75) if _is_valid(_LETTERED_MODULE[what], written.upper()) else 0.0


@lru_cache(maxsize=64)
def _module(name: str) -> Any:
    return need(name, extra="audit", why="finding national identity numbers")


def _is_valid(module: str, number: str) -> bool:
    return bool(_module(module).is_valid(number))
