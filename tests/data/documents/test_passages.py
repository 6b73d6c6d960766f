"""Passages respect headings, paragraphs and sentences, and hold every character once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.documents.blocks import Block, count_words, lay_out
from tunesmith.data.documents.passages import Cut, cut
from tunesmith.data.documents.sentences import sentence_ends


def cut_blocks(blocks: list[Block], *, max_words: int = 20, min_words: int = 3) -> tuple[str, Cut]:
    text, spans = lay_out(blocks)
    return text, cut("a.txt", text, spans, max_words=max_words, min_words=min_words)


def prose(text: str) -> Block:
    return Block(kind="prose", text=text)


def heading(text: str, level: int) -> Block:
    return Block(kind="heading", text=text, level=level)


words = st.lists(st.sampled_from(["alpha", "beta.", "gamma?", "delta", "Epsilon", "ζ", "漢字", "e.g."]), min_size=1)
texts = words.map(" ".join)
block = st.one_of(
    texts.map(prose),
    st.builds(heading, texts, st.integers(1, 4)),
    texts.map(lambda t: Block(kind="list", text=f"- {t}", joins=True)),
    st.lists(texts, min_size=1, max_size=3).map(lambda ls: Block(kind="code", text="\n".join(ls))),
    st.lists(texts, min_size=1, max_size=3).map(
        lambda ps: Block(kind="glossary", text="\n\n".join(ps), terms=(ps[0][:5],))
    ),
)


@settings(max_examples=150, deadline=None)
@given(blocks=st.lists(block, max_size=12), max_words=st.integers(1, 12), min_words=st.integers(0, 5))
def test_every_character_is_in_one_passage_one_heading_or_left_out(
    blocks: list[Block], max_words: int, min_words: int
) -> None:
    text, pieces = cut_blocks(blocks, max_words=max_words, min_words=min_words)
    owners = [0] * len(text)
    for piece in (*pieces.passages, *pieces.short, *pieces.outline):
        for i in range(piece.start, piece.end):
            owners[i] += 1
    assert all(n == 1 or (c.isspace() and n <= 1) for c, n in zip(text, owners, strict=True))
    for passage in (*pieces.passages, *pieces.short):
        assert passage.text == text[passage.start : passage.end]
        assert 1 <= count_words(passage.text) <= max_words
    assert len({p.id for p in pieces.passages}) == len(pieces.passages)


@settings(max_examples=60, deadline=None)
@given(blocks=st.lists(texts.map(prose), min_size=1, max_size=8), max_words=st.integers(4, 12))
def test_a_passage_cut_again_is_itself(blocks: list[Block], max_words: int) -> None:
    _, first = cut_blocks(blocks, max_words=max_words, min_words=0)
    for passage in first.passages:
        again = cut_blocks([prose(t) for t in passage.text.split("\n\n")], max_words=max_words, min_words=0)[1]
        assert [p.text for p in again.passages] == [passage.text]


def test_headings_nest_and_a_section_ends_at_the_next() -> None:
    _, pieces = cut_blocks(
        [
            heading("Top", 1),
            prose("one two three"),
            heading("Inner", 3),
            prose("four five six"),
            heading("Beside", 2),
            prose("seven eight nine"),
            heading("Next", 1),
            prose("ten eleven twelve"),
        ]
    )
    assert [(p.heading, p.text) for p in pieces.passages] == [
        (("Top",), "one two three"),
        (("Top", "Inner"), "four five six"),
        (("Top", "Beside"), "seven eight nine"),
        (("Next",), "ten eleven twelve"),
    ]


def test_paragraphs_stay_whole_while_they_fit() -> None:
    paragraphs = [prose(f"Paragraph {i} has exactly seven words here.") for i in range(6)]
    _, pieces = cut_blocks(paragraphs, max_words=16)
    assert [p.text.count("\n\n") + 1 for p in pieces.passages] == [2, 2, 2]


def test_a_long_paragraph_is_cut_between_sentences_and_a_long_sentence_says_so() -> None:
    sentences = "One two three four five. Six seven eight nine ten. " * 3
    _, pieces = cut_blocks([prose(sentences.strip())], max_words=12)
    assert [p.text for p in pieces.passages] == ["One two three four five. Six seven eight nine ten."] * 3
    assert not any(p.cut for p in pieces.passages)
    _, pieces = cut_blocks([prose(" ".join(f"w{i}" for i in range(25)))], max_words=10)
    assert [count_words(p.text) for p in pieces.passages] == [10, 10, 5]
    assert all(p.cut for p in pieces.passages)


def test_the_last_passage_is_no_stump() -> None:
    _, pieces = cut_blocks([prose("a b c d."), prose("e f g h."), prose("i j.")], max_words=8, min_words=4)
    assert [p.text for p in pieces.passages] == ["a b c d.", "e f g h.\n\ni j."]


def test_an_introduction_goes_with_its_list() -> None:
    blocks = [prose("a b c d e."), prose("The parts are:"), Block(kind="list", text="- f g h i")]
    _, pieces = cut_blocks(blocks, max_words=9)
    assert [p.text for p in pieces.passages] == ["a b c d e.", "The parts are:\n\n- f g h i"]


def test_a_short_section_is_left_out_and_a_short_answer_is_not() -> None:
    blocks = [heading("Empty talk", 1), prose("See below"), heading("Is it free?", 1), prose("Yes.")]
    _, pieces = cut_blocks(blocks)
    assert [p.text for p in pieces.short] == ["See below"]
    assert [(p.kind, p.text) for p in pieces.passages] == [("faq", "Yes.")]


def test_equal_passages_have_ids_of_their_own_and_an_edit_elsewhere_changes_none() -> None:
    same = [heading("A", 1), prose("one two three"), heading("A", 1), prose("one two three")]
    _, pieces = cut_blocks(same)
    assert len({p.id for p in pieces.passages}) == 2
    _, edited = cut_blocks([heading("New", 1), prose("quite another text"), *same])
    assert [p.id for p in edited.passages[1:]] == [p.id for p in pieces.passages]


def test_where_sentences_end() -> None:
    text = 'He said e.g. this. "Is it?" Yes! See Fig. 3 for Dr. Smith. Version 1.2 is out… New.'
    ends = [0, *sentence_ends(text)]
    assert [text[a:b].strip() for a, b in pairwise(ends)] == [
        "He said e.g. this.",
        '"Is it?"',
        "Yes!",
        "See Fig. 3 for Dr. Smith.",
        "Version 1.2 is out…",
        "New.",
    ]
    assert sentence_ends("これは文です。次の文です。") == [7, 13]
    assert sentence_ends("") == []
