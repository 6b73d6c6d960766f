"""The lines of passages.jsonl, pairs.jsonl and their left_out.jsonl."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import content_id
from tunesmith.core.nouns import LeftOut

How = Literal["glossary", "faq", "heading", "teacher"]


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one document's extracted text, which is texts.jsonl's `text[start:end]`.

    The id covers file, headings and text, not the offsets: an edit elsewhere in the document leaves it as it was.
    """

    id: str
    file: str
    page: int | None  # 1-based, where it starts; None in formats without pages
    heading: tuple[str, ...]  # outermost first
    text: str
    start: int  # characters
    end: int
    kind: str  # "prose", "faq", "glossary", "list", "table", "code"
    terms: tuple[str, ...] = ()  # of a glossary entry: what it defines, first the main name
    see: tuple[str, ...] = ()  # of a glossary entry that only refers to others
    cut: bool = False  # it begins or ends inside a sentence, because that was too long


def passage_id(file: str, heading: tuple[str, ...], text: str, nth: int) -> str:
    """`nth`: how many equal passages come before it."""
    return content_id({"file": file, "heading": heading, "text": text, "nth": nth})


class Gone(LeftOut, frozen=True, kw_only=True, omit_defaults=True):
    """Text that is in no passage, and why. `start` and `end` where it is part of the extracted text; text that
    was removed while reading (running heads, navigation) has only its count and characters."""

    page: int | None = None
    start: int | None = None
    end: int | None = None
    count: int = 1  # how often it was met
    characters: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pair comes from."""

    passage: str
    file: str
    page: int | None
    heading: tuple[str, ...]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its answer, waiting for approval. The id is its content, so that an approval stays with it."""

    id: str
    prompt: str
    completion: str
    source: Source
    how: How
    support: dict[str, Any]  # {"score", ...}: see support.py; of a deterministic pair {"copied": true, ...}


def pair_id(prompt: str, completion: str) -> str:
    return content_id({"prompt": prompt, "completion": completion})
