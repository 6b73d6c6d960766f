"""Deterministic pairs: what a glossary defines, a FAQ asks, and a heading promises."""

from __future__ import annotations

import pytest

from tests.data.documents.making import HEADING_QUESTIONS, QUESTIONS
from tunesmith.data.documents.questions import (
    Draft,
    Section,
    faq_pair,
    glossary_pairs,
    heading_pair,
    pick,
    sections,
    shortened,
)
from tunesmith.data.documents.records import Passage, passage_id


def passage(
    text: str,
    *heading: str,
    kind: str = "prose",
    terms: tuple[str, ...] = (),
    see: tuple[str, ...] = (),
    start: int = 0,
) -> Passage:
    return Passage(
        id=passage_id("a.txt", heading, text, 0),
        file="a.txt",
        page=None,
        heading=heading,
        text=text,
        start=start,
        end=start + len(text),
        kind=kind,
        terms=terms,
        see=see,
    )


def entry(text: str, term: str, see: tuple[str, ...] = ()) -> list[Draft]:
    one = passage(text, term, kind="glossary", terms=(term,), see=see)
    return list(glossary_pairs(Section((one,), "Words"), QUESTIONS))


def said(drafts: list[Draft]) -> list[tuple[str, str]]:
    return [(d.prompt, d.completion) for d in drafts if not d.reason]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("<hardware> (RAM) Memory that forgets.", [("What is X?", "Memory that forgets.")]),
        ("/ram/ <hardware> Memory. See also ROM, core.", [("What is X?", "Memory.")]),
        ("A thing. Compare that: it differs.\n\nIt does more.", [("What is X?", "A thing. Compare that: it differs.\n\nIt does more.")]),
        ("A thing.\n\nCompare y, z.\n\n[Details?]", [("What is X?", "A thing.")]),
        ('A thing.\n\n["A Book", 1990].\n\nHome (http://x.org/).', [("What is X?", "A thing.")]),
        (
            "1. <programming> What repeats.\n\n2. <networking, cable> A circle.",
            [("What is X (programming)?", "What repeats."), ("What is X (networking and cable)?", "A circle.")],
        ),
        ("1. First.\n\n2. Second.", [("What is X?", "1. First.\n\n2. Second.")]),
        ("1. <a b> First.\n\n2. <a b> Second.", [("What is X?", "1. First.\n\n2. Second.")]),
        ("In 1. and 2. of the list.", [("What is X?", "In 1. and 2. of the list.")]),
        ("See also everything.", []),
        ("<hardware> (UX)", []),
        ('["A Book", J. Doe, 1990].', []),
        ('(Or "ex") A thing.', [("What is X?", "A thing.")]),
        ("(In short) a thing.", [("What is X?", "(In short) a thing.")]),
    ],
)  # fmt: skip
def test_what_an_entry_gives(text: str, pairs: list[tuple[str, str]]) -> None:
    assert said(entry(text, "X")) == pairs


def test_an_abbreviation_that_only_refers_says_what_it_stands_for() -> None:
    assert said(entry("International Standard Code", "ISC", ("International Standard Code",))) == [
        ("What does ISC stand for?", "ISC stands for International Standard Code.")
    ]
    two = entry(
        "1. <chemistry> Hard Fine Coal.\n\n2. Hybrid Fiber Coax.", "HFC", ("Hard Fine Coal", "Hybrid Fiber Coax")
    )
    assert said(two) == [
        ("What does HFC stand for?", "HFC can stand for Hard Fine Coal (chemistry) or Hybrid Fiber Coax.")
    ]


def test_what_only_leads_elsewhere_is_no_pair() -> None:
    (draft,) = entry("zombie process", "ghost", ("zombie process",))
    assert draft.reason == "cross_reference"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (("Book", "5.1 Uploading a package"), "What does Book say about Uploading a package?"),
        (("Book", "How to upload"), "How do you upload?"),
        (("Book", "2. When to ask."), "When should you ask?"),
        (("Book", "Uploads", "Introduction"), "What does Book say about Introduction (Uploads)?"),
        (("Book", "Uploads", "dput"), "What does Book say about dput (Uploads)?"),
        (("Book", "See also"), None),
        ((), None),
        (("***",), None),
    ],
)
def test_what_a_heading_asks(path: tuple[str, ...], asked: str | None) -> None:
    draft = heading_pair(Section((passage("Some text.", *path),), "Book"), HEADING_QUESTIONS)
    assert (draft.prompt if draft else None) == asked


def test_a_text_that_only_introduces_is_no_answer() -> None:
    draft = heading_pair(Section((passage("The parts are:", "Parts"),), "Book"), HEADING_QUESTIONS)
    assert draft is not None and draft.reason == "introduction"


def test_a_question_is_answered_by_its_whole_section() -> None:
    one, two = passage("First.", "1. Why?", kind="faq"), passage("Second.", "1. Why?", kind="faq", start=9)
    other = passage("Other.", "2. How?", kind="faq", start=30)
    found = [faq_pair(s) for s in sections([one, two, other], {})]
    assert [(d.prompt, d.completion, d.parts) for d in found] == [
        ("Why?", "First.\n\nSecond.", 2),
        ("How?", "Other.", 1),
    ]


def test_long_answers_are_left_out_or_end_with_a_paragraph() -> None:
    text = "one two three\n\nfour five:\n\nsix seven eight nine"
    (draft,) = entry(text, "X")
    assert shortened(draft, 20, "leave_out") is draft
    assert shortened(draft, 6, "leave_out").reason == "long_answer"
    short = shortened(draft, 6, "first_paragraphs")
    assert (short.completion, short.partial) == ("one two three", True)  # the second only introduces what is cut
    assert shortened(draft, 2, "first_paragraphs").reason == "long_answer"


def test_a_template_is_chosen_by_content_alone() -> None:
    templates = ("a {term}", "b {term}", "c {term}")
    chosen = [pick(templates, f"term {i}") for i in range(300)]
    assert chosen == [pick(templates, f"term {i}") for i in range(300)]
    assert all(chosen.count(t) > 60 for t in templates)
