"""Items from rows, doubts and pairs; and which words of an answer its passage supports."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.canonical import write_lines
from tunesmith.core.nouns import Message, Row
from tunesmith.review.items import doubted_items, label_items, least_confidence, pair_items
from tunesmith.review.support import parts


def row(n: int, *turns: str) -> Row:
    messages = tuple(Message(role="user" if i % 2 == 0 else "assistant", content=t) for i, t in enumerate(turns))
    return Row(id=f"row{n}", messages=messages, target="sports", file="a.csv", line=n, group=f"row{n}")


def test_rows_become_items_with_their_place_and_the_turns_before() -> None:
    single, chat = label_items([row(1, "one"), row(2, "hi", "hello", "and now?")])
    assert single.text == "one" and single.messages == () and (single.source.file, single.source.line) == ("a.csv", 1)
    assert chat.text == "and now?" and [m.content for m in chat.messages] == ["hi", "hello"]
    assert "sports" not in single.given + single.suggested  # the answer in the data is no hint


def test_uncertainty_is_one_minus_the_largest_probability() -> None:
    items = label_items([row(1, "a"), row(2, "b")], labels=("x", "y"), probabilities={"row1": (0.3, 0.7)})
    assert items[0].suggested == "y" and items[0].confidence == 0.7
    assert abs((items[0].uncertainty or 0) - 0.3) < 1e-12 and items[1].uncertainty is None
    assert least_confidence((0.25, 0.25, 0.25, 0.25)) == 0.75


def test_doubts_keep_their_rank_their_first_id_and_both_labels(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [row(n, f"t{n}") for n in (1, 2, 3)])
    doubts = [
        {"row": came, "id": id, "given": "sports", "suggested": "science", "probability_suggested": p, "score": 1 - p}
        for came, id, p in (("came2", "row2", 0.98), ("row1", "row1", 0.7))
    ]
    write_lines(tmp_path / "label_errors.jsonl", doubts)
    items = doubted_items(tmp_path)
    assert [(i.id, i.text) for i in items] == [("came2", "t2"), ("row1", "t1")]
    assert (items[0].given, items[0].suggested, items[0].confidence) == ("sports", "science", 0.98)


def test_pairs_come_with_the_passage_they_were_made_from(tmp_path: Path) -> None:
    write_lines(tmp_path / "passages.jsonl", [{"id": "p1", "text": "dpkg installs packages"}])
    source = {"passage": "p1", "file": "m.pdf", "page": 3, "heading": ["Tools", "dpkg"]}
    pair = {
        "id": "x",
        "prompt": "What does dpkg do?",
        "completion": "It installs packages",
        "source": source,
        "how": "faq",
        "support": {"missing": ["7"]},
    }
    write_lines(tmp_path / "pairs.jsonl", [pair])
    (item,) = pair_items(tmp_path, tmp_path)
    assert item.kind == "pair" and item.source.passage == "dpkg installs packages" and item.source.page == 3
    assert item.source.heading == ("Tools", "dpkg") and item.id == "x" and item.missing == ("7",)


def test_supported_words_are_marked_as_phrases() -> None:
    passage = "The package manager dpkg installs and removes packages on Debian systems."
    assert parts("dpkg installs and removes packages quickly.", passage) == [
        ("dpkg installs and removes packages", True), (" quickly.", False)
    ]  # fmt: skip
    assert parts("It is of the best", passage) == [("It is of the best", False)]
    assert parts("", passage) == [] and parts("x", "") == [("x", False)]


@given(st.text(), st.text())
def test_the_parts_are_the_whole_text(text: str, other: str) -> None:
    assert "".join(p for p, _ in parts(text, other)) == text
