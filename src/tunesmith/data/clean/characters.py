"""Steps on single characters: wrong decoding, invisible characters, normal form, entities, quotes."""

from __future__ import annotations

import html as entities
import re
import unicodedata
from collections.abc import Iterable

from tunesmith.core.extras import need

# what no reader sees and no script needs
_BIDI = "\u061c\u200e\u200f"  # marks: kept in text that has letters of a right-to-left script
_JOINERS = "\u200c\u200d"
_BREAKS = "\x0b\x0c\x1c\x1d\x1e\x85"  # each ends a line, or a page
_GONE = [
    *(c for c in (*range(0x00, 0x20), *range(0x7F, 0xA0)) if chr(c) not in "\t\n\r" + _BREAKS),
    0x00AD,  # soft hyphen
    0x200B,  # zero-width space; see _SPACELESS
    *range(0x202A, 0x202F),  # bidi embeddings and overrides
    *range(0x2060, 0x2070),  # word joiner, invisible operators, bidi isolates, deprecated format characters
    0xFEFF,  # byte-order mark
    *range(0xFFF9, 0xFFFC),  # interlinear annotation
    0xE0001,
    *range(0xE0020, 0xE0080),  # tags: invisible ASCII; see _FLAG
]
_TABLE: dict[int, str | None] = dict.fromkeys(_GONE) | dict.fromkeys(map(ord, _BREAKS), "\n")


def _of(points: Iterable[int]) -> str:
    return "[" + "".join(f"\\u{p:04x}" for p in points) + "]"


_ASCII_FOUND = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FOUND = re.compile(_of(c for c in [*_TABLE, *map(ord, _BIDI + _JOINERS)] if c < 0x10000))  # a bit map, so fast
_TAGS = re.compile("[\U000e0000-\U000e007f]")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]")
_MARKS = re.compile(f"[{_BIDI}]")
# letters whose scripts write with joiners: Arabic, Syriac, Mandaic, N'Ko, the Indic family, Sinhala, Tibetan,
# Myanmar, Khmer, Mongolian, Balinese to Javanese, Tai Tham, Meetei Mayek
_JOINING = re.compile(
    "[\u0600-\u07ff\u0840-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1cff\ua840-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00011000-\U00011fff\U0001e900-\U0001e95f]"
)
_RUN = re.compile(f"[{_JOINERS}]+")
# scripts without spaces between words, where U+200B says where a word may end
_SPACELESS = re.compile(
    "(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b(?=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])"
)
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f")  # the flag of England and its like


def encoding(texts: list[str]) -> list[str]:
    """Mojibake repaired by ftfy's fix_encoding, which goes on until it finds nothing. Quotes stay as they are."""
    ftfy = need("ftfy", extra="audit", why="the cleaning step 'encoding'")
    is_bad = ftfy.badness.is_bad  # ftfy's own first question, asked before its plans are made
    return [text if text.isascii() or not is_bad(text) else ftfy.fix_encoding(text) for text in texts]


def control(texts: list[str]) -> list[str]:
    return [text if text.replace("\n", "").isprintable() else _visible(text) for text in texts]


def _visible(text: str) -> str:
    """Without what no reader sees. Joiners last: whether one is needed depends on what stands beside it."""
    if text.isascii():
        return text.translate(_TABLE) if _ASCII_FOUND.search(text) else text
    if not (_FOUND.search(text) or _TAGS.search(text)):
        return text
    spared = sorted([m.span() for m in _SPACELESS.finditer(text)] + [m.span() for m in _FLAG.finditer(text)])
    if spared:
        out, at = [], 0
        for start, end in spared:
            out += [text[at:start].translate(_TABLE), text[start:end]]
            at = end
        text = "".join([*out, text[at:].translate(_TABLE)])
    else:
        text = text.translate(_TABLE)
    if _MARKS.search(text) and not _RTL.search(text):
        text = _MARKS.sub("", text)
    return _RUN.sub(_needed_joiner, text) if _RUN.search(text) else text


def _needed_joiner(run: re.Match[str]) -> str:
    """The first joiner of a run, if the characters around the run are of a script or an emoji that uses it."""
    text, joiner = run.string, run[0][0]
    before = text[run.start() - 1] if run.start() else ""
    after = text[run.end()] if run.end() < len(text) else ""
    if before and _JOINING.match(before):
        return joiner
    if joiner == "\u200d" and before and after and _is_emoji(before) and _is_emoji(after):
        return joiner
    return ""


def _is_emoji(c: str) -> bool:
    return c == "\ufe0f" or (ord(c) > 0x2000 and unicodedata.category(c) in ("So", "Sk", "Sm"))


def unicode(texts: list[str]) -> list[str]:
    """Normal form C: canonically equal texts become equal; letters, ligatures and widths stay as written."""
    return [
        text if text.isascii() or unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
        for text in texts
    ]


def unescape(texts: list[str]) -> list[str]:
    """One level of entities. Not idempotent by nature: what was escaped twice is escaped once afterwards."""
    return [entities.unescape(text) if "&" in text else text for text in texts]


_STRAIGHT = str.maketrans(dict.fromkeys("\u2018\u2019\u201a\u201b\u2039\u203a\u02bc", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'))  # fmt: skip

_CURLY = re.compile(_of(_STRAIGHT))


def quotes(texts: list[str]) -> list[str]:
    return [text if text.isascii() or not _CURLY.search(text) else text.translate(_STRAIGHT) for text in texts]
