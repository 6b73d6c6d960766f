"""Glossaries: the layouts, how they are told from prose, and what happens to references, dates and credits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.documents.making import Read, run_documents
from tunesmith.data.documents.glossary import looks_like_foldoc, looks_like_terms, read_foldoc

FOLDOC = """\
00-database-info
The original is elsewhere.

Abstract Syntax Notation 1
ASN.1

   <language, standard> (ASN.1) An {ISO} {standard} for {data
   (http://example.org/data)} on networks.

   {Home (http://example.org/)}.  See {the Help page (help.html)}.

   [{Jargon File}]

   (1998-03-03)

ISO

   {International Organization for Standardization}

loop

   1. <programming> What repeats.

   2. <networking> A circle, drawn:

     /--\\
     \\--/

   with {address
{(http://example.org/too/long/to/be/set/in)}

   (2001-01-01)

orphan
"""


@pytest.fixture
def foldoc(tmp_path: Path) -> Read:
    return run_documents(tmp_path, {"words.dict": FOLDOC})


def test_an_entry_is_a_passage_under_its_names(foldoc: Read) -> None:
    first = foldoc.passages[0]
    assert first.terms == ("Abstract Syntax Notation 1", "ASN.1")
    assert first.heading == ("Abstract Syntax Notation 1",)
    assert first.kind == "glossary"
    assert first.text == (
        "<language, standard> (ASN.1) An ISO standard for data (http://example.org/data) on networks.\n\n"
        "Home (http://example.org/). See the Help page."
    )


def test_an_entry_that_only_refers_says_to_what(foldoc: Read) -> None:
    assert [(p.terms[0], p.see) for p in foldoc.passages if p.see] == [
        ("ISO", ("International Organization for Standardization",))
    ]


def test_drawings_keep_their_lines_and_long_addresses_are_no_names(foldoc: Read) -> None:
    loop = foldoc.passages[-1]
    assert loop.terms == ("loop",)
    assert "/--\\\n\\--/" in loop.text
    assert "http://example.org/too/long/to/be/set/in" in loop.text


def test_what_is_taken_out_is_counted(foldoc: Read) -> None:
    assert foldoc.reasons() == {"credit": 1, "database_info": 1, "entry_date": 2, "no_definition": 1}
    dates = next(g for g in foldoc.left_out if g.reason == "entry_date")
    assert (dates.count, dates.characters, dates.text) == (2, 24, "(1998-03-03)")
    foldoc.account_for_every_character()


def test_the_layout_is_found_in_a_text_file_too(tmp_path: Path) -> None:
    text = FOLDOC.split("\n\n", 1)[1]
    assert looks_like_foldoc(text.splitlines())
    read = run_documents(tmp_path, {"words.txt": text})
    assert read.facts["documents"][0]["layout"] == "foldoc"
    assert len(read.passages) == 3


def test_lines_of_term_and_definition(tmp_path: Path) -> None:
    lines = [f"term {i}: the {i}th thing that is defined here" for i in range(6)]
    lines[2] += "\n  and goes on"
    lines.append("dash – defined with a dash, and some words")
    read = run_documents(tmp_path, {"terms.txt": "\n".join(lines)})
    assert read.facts["documents"][0]["layout"] == "terms"
    assert [p.terms[0] for p in read.passages] == [f"term {i}" for i in range(6)] + ["dash"]
    assert read.passages[2].text == "the 2th thing that is defined here and goes on"


@pytest.mark.parametrize(
    "lines",
    [
        ["Ann: hello there, how are you today?", "Bob: I am fine, and how are you?"] * 5,
        ["host: a", "port: 1", "user: x", "path: y", "mode: z", "name: q"],
        ["A text: with a colon in its first line, and more words."] + ["Prose goes on without any mark of a term."] * 9,
        [f"https://example.org/{i} is an address among other words" for i in range(9)],
    ],
)
def test_what_is_no_glossary(lines: list[str]) -> None:
    assert looks_like_terms(lines) == 0


def test_a_manual_with_indented_sections_is_no_glossary() -> None:
    text = "".join(f"{i}. Section\n\n    Text of section {i}, without a subject.\n\n" for i in range(9))
    assert looks_like_foldoc(text.splitlines()) == 0


def test_tables_of_two_columns(tmp_path: Path) -> None:
    table = "term\tdefinition\nRAM\tmemory that forgets\nROM\tmemory\tthat does not\n\nCPU\twhat computes\nGPU\t\n"
    read = run_documents(tmp_path, {"words.tsv": table})
    assert [(p.terms[0], p.text) for p in read.passages] == [("RAM", "memory that forgets"), ("CPU", "what computes")]
    assert [g.detail for g in read.left_out if g.reason == "columns"] == [
        "line 3 has 3 filled columns, not term and definition",
        "line 6 has 1 filled columns, not term and definition",
    ]


def test_a_named_layout_is_not_looked_for(tmp_path: Path) -> None:
    text = "Alpha\n\n   The first letter of all.\n\nBeta\n\n   The second letter.\n"
    assert run_documents(tmp_path / "a", {"x.txt": text}).facts["documents"][0]["layout"] == "prose"
    read = run_documents(tmp_path / "b", {"x.txt": text}, layouts=(("*.txt", "foldoc"),))
    assert [p.terms for p in read.passages] == [("Alpha",), ("Beta",)]


def test_literal_braces_stay() -> None:
    (block,) = read_foldoc("x\n\n   Using the { } convention of {shells}.\n", "foldoc", "").blocks
    assert block.text == "Using the { } convention of shells."
