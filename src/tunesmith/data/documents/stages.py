"""The four stages from documents to rows, without their code: what they take, give, and what decides the result.

documents  the user's documents -> passages: text under headings, with page and place
corpus     passages -> texts for domain adaptation
pairs      passages -> questions with answers, from glossaries, FAQs and headings, or written by a teacher
approve    pairs and people's judgments -> the pairs that may be trained on
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.stage import Stage

Layout = Literal["prose", "faq", "foldoc", "terms", "tsv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsSpec:
    """How documents become passages. Passages never overlap: every character is in one, or left out with a reason."""

    max_words: int  # longest passage; a sentence longer than that is cut, and the passage says so
    min_words: int  # a section with fewer words is left out; glossary and FAQ answers may be shorter
    kinds: tuple[str, ...]  # kinds of passages to keep; empty: all
    layouts: tuple[tuple[str, Layout], ...]  # (file pattern, layout) of text files; others are looked at
    bad_files: Literal["refuse", "leave_out"]
    restored: tuple[str, ...]  # keys of left-out passages that a person wants back


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsInputs:
    source: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsOutputs:
    passages: Path = field(metadata={"kind": "passages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSpec:
    """How passages become rows of a domain corpus."""

    kinds: tuple[str, ...]  # kinds of passages to use; empty: all
    headings: bool  # begin each text with its headings
    group: Literal["document", "heading"]  # what must not straddle a split: the document, or its top heading


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusInputs:
    passages: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusOutputs:
    made: Path = field(metadata={"kind": "made"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpec:
    """Who writes further pairs, and how it is asked."""

    url: str  # of an OpenAI-compatible endpoint ("https://host/v1", or http on this machine); "": the local model
    model: str  # the name the endpoint knows it by
    token_env: str  # environment variable that holds the token; "": none is sent
    max_requests: int  # at most so many passages are asked about, chosen by hash; 0: all
    per_passage: int  # pairs asked for
    max_tokens: int  # of a reply
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsSpec:
    """How passages become pairs."""

    kinds: tuple[Literal["glossary", "faq", "headings"], ...]  # of deterministic pairs
    questions: tuple[str, ...]  # for a glossary entry; each with {term}, one is chosen by hash
    heading_questions: tuple[str, ...]  # for a section; each with {heading}, and {title} where wanted
    max_answer_words: int
    long_answers: Literal["leave_out", "first_paragraphs"]  # of deterministic pairs
    teacher: TeacherSpec | None
    min_support: float  # share of a generated answer's content words that its passage must have
    restored: tuple[str, ...]  # keys of left-out pairs that a person wants back; they still wait for approval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsInputs:
    passages: Path
    teacher: Path | None = None  # a model folder, where the teacher is a local model


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsOutputs:
    pairs: Path = field(metadata={"kind": "pairs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveSpec:
    approval: Literal["required", "deterministic_free"]  # the second: only a teacher's pairs need a person
    group: Literal["passage", "heading", "document"]  # what must not straddle a split


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveInputs:
    pairs: Path
    judgments: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveOutputs:
    made: Path = field(metadata={"kind": "made"})


DOCUMENTS = Stage(
    name="documents",
    version=2,
    function="tunesmith.data.documents.documents:documents",
    spec=DocumentsSpec,
    inputs=DocumentsInputs,
    outputs=DocumentsOutputs,
)
CORPUS = Stage(
    name="corpus",
    version=1,
    function="tunesmith.data.documents.corpus:corpus",
    spec=CorpusSpec,
    inputs=CorpusInputs,
    outputs=CorpusOutputs,
)
PAIRS = Stage(
    name="pairs",
    version=1,
    function="tunesmith.data.documents.pairs:pairs",
    spec=PairsSpec,
    inputs=PairsInputs,
    outputs=PairsOutputs,
)
APPROVE = Stage(
    name="approve",
    version=1,
    function="tunesmith.data.documents.approve:approve",
    spec=ApproveSpec,
    inputs=ApproveInputs,
    outputs=ApproveOutputs,
)
