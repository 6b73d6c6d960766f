"""Steps on characters and white space: what goes, what a script needs stays, and code keeps its look."""

from __future__ import annotations

import time

import pytest

from tunesmith.data.clean.characters import control, encoding, quotes, unescape, unicode
from tunesmith.data.clean.whitespace import whitespace

FAMILY = "👨\u200d👩\u200d👧"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"

CONTROL = [
    ("nothing to do", "a\tb\nc é 日本 😀", "a\tb\nc é 日本 😀"),
    ("carriage returns are white space's part", "a\r\nb", "a\r\nb"),
    ("C0, DEL, C1", "a\x00b\x07c\x1bd\x7fe\x9bf é", "abcdef é"),
    ("page and line breaks become lines", "a\x0cb\x0bc\x85d", "a\nb\nc\nd"),
    ("zero width, BOM, soft hyphen", "\ufeffa\u200bb\u2060c\u00add", "abcd"),
    ("bidi overrides and isolates", "access\u202e txt\u202c \u2066x\u2069", "access txt x"),
    ("bidi marks without right-to-left text", "a\u200eb\u200f", "ab"),
    ("bidi marks in Hebrew stay", "שלום\u200f!", "שלום\u200f!"),
    ("joiners between Latin letters", "auf\u200clage, a\u200db", "auflage, ab"),
    ("ZWNJ in Persian stays", "می\u200cخواهم", "می\u200cخواهم"),
    ("ZWJ in Sinhala, ZWNJ in Bengali stay", "ශ්\u200dරී, র\u200c্য", "ශ්\u200dරී, র\u200c্য"),
    ("of several joiners one stays", "می\u200c\u200c\u200dخ", "می\u200cخ"),
    ("ZWJ in emoji stays", FAMILY + "x", FAMILY + "x"),
    ("ZWJ after an emoji alone goes", "👨\u200d text", "👨 text"),
    ("a skin tone and a heart", "👩🏽\u200d❤️\u200d👨", "👩🏽\u200d❤️\u200d👨"),
    ("a flag made of tags stays", ENGLAND, ENGLAND),
    ("text hidden in tags goes", "hi\U000e0069\U000e0067\U000e006e", "hi"),
    ("word ends in Khmer and Thai stay", "ភាសា\u200bខ្មែរ ไทย\u200bคำ", "ភាសា\u200bខ្មែរ ไทย\u200bคำ"),
    ("variation selectors stay", "❤\ufe0f", "❤\ufe0f"),
]


@pytest.mark.parametrize("_name, text, wanted", CONTROL, ids=[c[0] for c in CONTROL])
def test_control(_name: str, text: str, wanted: str) -> None:
    assert control([text]) == [wanted]
    assert control([wanted]) == [wanted]


def test_a_text_with_nothing_to_do_is_the_same_object() -> None:
    text = "plain words\nin two lines"
    for step in (control, unicode, whitespace, unescape, quotes):
        assert step([text])[0] is text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("schÃ¶n", "schön"),
        ("â€œquotedâ€\x9d stays curly", "“quoted” stays curly"),
        ("Ã£Â\x81Â‚", "あ"),  # twice wrong
        ("façade, naïve, Ångström, São Paulo", "façade, naïve, Ångström, São Paulo"),
        ("AÃ", "AÃ"),  # might be meant
    ],
)
def test_encoding_repairs_mojibake_and_nothing_else(text: str, wanted: str) -> None:
    pytest.importorskip("ftfy", reason="the extra audit is not installed")
    assert encoding([text]) == [wanted]


def test_unicode_composes_and_keeps_what_is_written_otherwise() -> None:
    assert unicode(["e\u0301 ﬁ ｗ ² \u212b"]) == ["é ﬁ ｗ ² Å"]


def test_unescape_goes_one_level() -> None:
    assert unescape(["a &amp;lt; b &eacute; &#8364; AT&T"]) == ["a &lt; b é € AT&T"]


def test_quotes_become_straight() -> None:
    assert quotes(["“a” ‘b’ „c“ «d»"]) == ['"a" \'b\' "c" "d"']


WHITE = [
    ("a\r\nb\rc", "a\nb\nc"),
    ("a  \n\tb\t\n  c ", "a\n\tb\n  c"),
    ("\n \n  first line keeps its indent\n\n", "  first line keeps its indent"),
    ("a\u00a0b\u2003c\u3000d", "a b c d"),
    ("a\u2028b\u2029c", "a\nb\n\nc"),
    ("def f():\n    pass\n\n\ndef g():\n    pass", "def f():\n    pass\n\n\ndef g():\n    pass"),
    ("a\n\n\n\n\nb", "a\n\n\nb"),
    ("a \n \n \n \n \nb", "a\n\n\nb"),
    (" \n\t", ""),
    ("col1\tcol2  two blanks", "col1\tcol2  two blanks"),
]


@pytest.mark.parametrize(("text", "wanted"), WHITE)
def test_whitespace(text: str, wanted: str) -> None:
    assert whitespace([text]) == [wanted] == whitespace([wanted])


def test_lossless_steps_are_fast_on_long_and_hostile_texts() -> None:
    for text in ("\u200d" * 300_000, " \n" * 150_000, "\n" * 300_000 + "x", "e\u0301" * 150_000, "\u200b" * 300_000):
        start = time.process_time()
        for step in (control, unicode, whitespace):
            step([text])
        assert time.process_time() - start < 2.0
