"""Postal addresses of the United States, the United Kingdom and Germany, by their patterns.

A house number with a street word, and what follows it: flat, town, state or country, post code. A street without
a number, or a town alone, is no address here. Other countries' addresses are found where they are written alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.audit.pii.digits import before
from tunesmith.data.audit.reading import Reading, word_set
from tunesmith.data.audit.spans import Span

_CAP = r"[A-ZÀ-ÞĀ-Ž][\w'’.\-]{0,24}"
_NTH = r"\d{1,3}(?:st|nd|rd|th)"
_SURE = word_set(
    "Street St Avenue Ave Av Road Rd Lane Ln Drive Dr Boulevard Blvd Ct Place Pl Square Sq Way Terrace Ter Parkway "
    "Pkwy Highway Hwy Circle Cir Crescent Close Grove Gardens Mews Trail Trl Plaza Alley Skyway Freeway Expressway "
    "Turnpike Quay Wharf Causeway Bypass Throughway Stravenue Overpass Underpass Viaduct Roads Drives Streets Squares "
    "Straße Strasse"
)
# street words of the United States' postal service that are names and things too: only with more of an address
_UNSURE = word_set(
    "Court Loop Crossing Crossroad Ridge Row Hill Walk View Park Green Motorway Station Summit Glen Glens Mount Mountain "
    "Mountains Hills Harbor Harbors Haven Springs Spring Shore Shores Meadow Meadows Manor Manors Mall Village Villages "
    "Valley Valleys Union Unions Tunnel Track Stream Route Rest Rapid Rapids Ranch Radial Prairie Port Ports Points Point "
    "Plains Plain Pines Pine Pike Path Passage Parks Oval Orchard Neck Mission Mills Mill Locks Lock Light Lights Land "
    "Landing Lakes Lake Knolls Knoll Keys Key Junction Junctions Islands Island Isle Inlet Hollow Heights Gateway Garden "
    "Gate Forks Fork Forge Forges Forest Fords Ford Flats Flat Fields Field Ferry Falls Extension Extensions Estate "
    "Estates Divide Dam Dale Curve Creek Crest Cove Coves Course Corner Corners Common Club Cliff Cliffs Centers Center "
    "Cape Canyon Camp Burgs Burg Brooks Brook Bridge Branch Bottom Bluffs Bluff Beach Bayou Arcade Annex Vista Ville Well "
    "Wells Via Rue Run Circles Lodge"
)
_STREETS = sorted(_SURE | _UNSURE, key=lambda w: (-len(w), w))
_PLAIN = ("street", "st", "avenue", "ave", "road", "rd", "lane", "drive", "dr", "boulevard", "blvd", "square",
          "terrace", "parkway", "highway", "crescent", "close", "gardens", "mews")  # fmt: skip
_STREET = "|".join(_STREETS)
_JOIN = r"(?:,? ?\n? ?|\n ?, ?)"
_UNIT = (
    rf"(?:{_JOIN}(?:[Aa]pt|[Aa]partment|[Ss]uite|[Ss]te|[Uu]nit|[Ff]lat|[Ff]loor|[Rr]oom|[Bb]ox)\.? ?[\w-]{{1,6}}\b)"
)
_UK_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2}"
_CODE = rf"(?:{_UK_POSTCODE}|[A-Z]{{2}},? \d{{5}}(?:-\d{{4}})?|\d{{5}}(?:-\d{{4}})?)"
_TOWN = r"[A-ZÀ-ÞĀ-Ž][^\W\d_]*(?:['’.\-][^\W\d_]+)*\.?(?!\w)"  # no digits: the post code is not the town
_TOWNS = rf"(?:(?:, ?\n? ?|\n ?(?:, ?)?){_TOWN}(?: (?:of |de |am |on |upon )?{_TOWN}){{0,3}}){{0,3}}"
_TAIL = rf"{_UNIT}{{0,2}}{_TOWNS}(?:{_JOIN}{_CODE}\b)?"
_NUMBERED = re.compile(
    rf"(?<![\w.,/-])\d{{1,6}}[A-Za-z]?(?:[-/]\d{{1,4}})? (?:(?:{_CAP}|{_NTH}) ){{1,4}}?(?P<street>{_STREET})\b\.?(?P<tail>{_TAIL})"
)
_LOWER = re.compile(
    rf"(?<![\w.,/-])\d{{1,6}}[a-z]? (?:[\w'’.]{{2,20}} ){{1,3}}?(?:{'|'.join(_PLAIN)})\b"
    r"(?:,? ?\n? ?(?:apt|suite|unit|flat)\.? ?\w{1,6})?",
    re.IGNORECASE,
)
_HOUSED = re.compile(rf"(?<![\w.,/-])\d{{1,6}} (?:{_CAP} ){{1,4}}\d{{1,4}}[a-z]?\b(?:{_UNIT}|(?={_JOIN}{_CAP})){_TAIL}")
_CONTEXT_WORDS = word_set(
    "address addresses live lives lived living located ship shipped shipping deliver delivered delivery resides residence "
    "resident moved office offices home mail send sent visit taxi return meet arrived"
)
_PLAIN_WORDS = frozenset(_PLAIN)
_BOX_WORDS = frozenset(("box", "postfach", "usns", "usnv", "usnumber", "pobox"))
_COURT_REPORT = re.compile(r"\d{1,4} (?:S|L|F|N|P)\. ?\w{0,3}\.? ?(?:Ct|Ed|Supp)")  # "131 S. Ct. 856"
_AFTER_STREET = re.compile(r" [0-9]{1,4}(?![\w.,]*\d)")
_START = re.compile(r"\d[A-Za-z]? [A-ZÀ-ÞĀ-Ž\d]|/\d{1,4} [A-ZÀ-Þ]")  # a house number and a name
_GERMAN_WORDS = ("straße", "strasse", "str.", "weg ", "platz ", "allee ", "gasse ", "ufer ", "damm ", "steig ")
_GERMAN = re.compile(
    r"(?<!\w)(?:[A-ZÄÖÜ][\wäöüß.\-]{1,30}(?:straße|strasse|str\.|weg|platz|allee|gasse|ufer|damm|steig)"
    r"|(?:[A-ZÄÖÜ][\wäöüß\-]{1,30}[ -]){1,2}(?:Straße|Strasse|Str\.|Weg|Platz|Allee)) \d{1,4} ?[a-z]?\b"
    r"(?:,? ?\n? ?(?:D-)?\d{5} [A-ZÄÖÜ][\wäöüß.\-]{1,30}(?: [A-ZÄÖÜ][\wäöüß.\-]{1,30})?)?"
)
_BOXES = re.compile(
    r"(?<!\w)(?:P\.? ?O\.? ?Box|Postfach) \d{1,6}\b(?:,? ?\n? ?[A-Z][\w .]{1,30},? [A-Z]{2} \d{5}(?:-\d{4})?)?"
    rf"|(?<!\w)(?:PSC \d{{1,5}}, Box \d{{1,5}}|Unit \d{{1,5}} Box \d{{1,5}}|USN[SV] {_CAP})\n?,? ?(?:APO|FPO|DPO) A[AEP] \d{{5}}"
)
_CONTEXT = ("address", "live", "located", "ship", "deliver", "resid", "moved", "office", "home", "mail", "send", "visit", "taxi to",
            "return to", "meet you at", "arrived at")  # fmt: skip


def find(reading: Reading) -> Iterator[Span]:
    """Cheap questions first: most texts have no address."""
    text, lower, vocabulary = reading.text, reading.lower, reading.vocabulary
    context = not _CONTEXT_WORDS.isdisjoint(vocabulary)
    if _START.search(text) is not None:
        for m in _NUMBERED.finditer(text):
            sure = m["street"] in _SURE or len(m["tail"]) > 2 or _has_context(text, m.start())
            if sure and not _COURT_REPORT.match(text, m.start()):
                yield _span(m, "street", 0.8)
        for m in _HOUSED.finditer(text) if context else ():
            if _has_context(text, m.start()):
                yield _span(m, "street", 0.6)
    if _AFTER_STREET.search(text) is not None and any(word in lower for word in _GERMAN_WORDS):
        for m in _GERMAN.finditer(text):
            yield _span(m, "german", 0.8)
    if not _BOX_WORDS.isdisjoint(vocabulary):
        for m in _BOXES.finditer(text):
            yield _span(m, "box", 0.8)
    for m in _LOWER.finditer(text) if context and not _PLAIN_WORDS.isdisjoint(vocabulary) else ():
        if _has_context(text, m.start()):
            yield _span(m, "street", 0.6)


def _has_context(text: str, start: int) -> bool:
    ahead = before(text, start, 48)
    return any(word in ahead for word in _CONTEXT)


def _span(m: re.Match[str], what: str, score: float) -> Span:
    end = m.start() + len(m.group().rstrip(" ,\n"))
    return Span(m.start(), end, "address", what, score)
