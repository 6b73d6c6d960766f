"""Plain text: headings, wrapped lines, lists, listings, contents, and files of questions and answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.documents.making import run_documents
from tunesmith.data.documents.blocks import join_lines, vocabulary
from tunesmith.data.documents.faq import is_question, unnumbered
from tunesmith.data.documents.plain_text import read_text

MANUAL = """\
The Manual

Table of Contents

1. Getting started
    1.1. What is it?
    1.2. Installing

---------------------------

1. Getting started

    The first steps, which are
    wrapped over two lines.

1.1. What is it?

    A tool. It has two parts:

      * the engine, which
        runs
      * the page

      $ tool --run
      ok

1.2. A heading that is
wrapped

    More prose at https://example.org/a/
    path/x and more.
"""


def test_a_manual_becomes_headings_paragraphs_items_and_listings() -> None:
    found = read_text(MANUAL, "prose", "")
    assert [(b.kind, b.text) for b in found.blocks] == [
        ("prose", "The Manual"),
        ("heading", "1. Getting started"),
        ("prose", "The first steps, which are wrapped over two lines."),
        ("heading", "1.1. What is it?"),
        ("prose", "A tool. It has two parts:"),
        ("list", "* the engine, which runs"),
        ("list", "* the page"),
        ("code", "$ tool --run\nok"),
        ("heading", "1.2. A heading that is wrapped"),
        ("prose", "More prose at https://example.org/a/path/x and more."),
    ]
    assert [b.level for b in found.blocks if b.kind == "heading"] == [1, 2, 2]
    assert [(r.reason, r.detail) for r in found.removed] == [("contents", "4 lines"), ("rule", "")]


def test_underlined_and_capital_headings() -> None:
    text = "Title\n=====\n\nText here.\n\nPart\n----\n\nMore.\n\nNOTES\n\nEnd.\n"
    assert [(b.text, b.level) for b in read_text(text, "prose", "").blocks if b.kind == "heading"] == [
        ("Title", 1),
        ("Part", 2),
        ("NOTES", 1),
    ]


@pytest.mark.parametrize(
    ("lines", "whole"),
    [
        (["the adminis-", "trator"], "the administrator"),
        (["a work-", "needing package"], "a work-needing package"),
        (["see https://example.", "org/x now"], "see https://example.org/x now"),
        (["see https:", "//example.org"], "see https://example.org"),
        (["in /usr/", "share/doc"], "in /usr/share/doc"),
        (["either and/", "or both"], "either and/or both"),
        (["in debian/", "changelog"], "in debian/changelog"),
        (["see https://example.org/", "for more"], "see https://example.org/ for more"),
        (["at https://", "example.org"], "at https://example.org"),
        (["pages 3-", "4"], "pages 3- 4"),
        (["It ends.", "https://example.org/ is next"], "It ends. https://example.org/ is next"),
        (["see https://example.org.", "Then go"], "see https://example.org. Then go"),
    ],
)
def test_how_lines_are_joined(lines: list[str], whole: str) -> None:
    known = vocabulary("the administrator of work-needing packages")
    assert join_lines(lines, known) == whole


@pytest.mark.parametrize(
    ("heading", "bare", "asks"),
    [
        ("1.2. What is it?", "What is it?", True),
        ("5.10.2 Guidelines", "Guidelines", False),
        ("Chapter 3. Choosing", "Choosing", False),
        ("Q3: Why not?", "Why not?", True),
        ("A package that works", "A package that works", False),
        ("2 ways to win", "2 ways to win", False),
        ("7 Beyond Packaging", "Beyond Packaging", False),
        ("Appendix A. Notes", "Notes", False),
        ("何ですか？", "何ですか？", True),
        ("OK, what is Linux?!", "OK, what is Linux?!", True),
    ],
)
def test_numbers_and_questions_of_headings(heading: str, bare: str, asks: bool) -> None:
    assert unnumbered(heading) == bare
    assert is_question(heading) is asks


def test_marked_questions_are_found_and_answered(tmp_path: Path) -> None:
    text = "About us.\n\n" + "".join(
        f"Q: Question {i},\nand more?\nA: Answer {i}\ngoes on.\n\nSecond paragraph {i}.\n\n" for i in range(3)
    )
    read = run_documents(tmp_path, {"help.txt": text}, min_words=1)
    assert read.facts["documents"][0]["layout"] == "faq"
    assert [(p.kind, p.heading, p.text) for p in read.passages[1:]] == [
        ("faq", (f"Question {i}, and more?",), f"Answer {i} goes on.\n\nSecond paragraph {i}.") for i in range(3)
    ]
    assert read.passages[0].text == "About us."
