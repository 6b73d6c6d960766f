"""Pairs that need no model: what a glossary defines, what a FAQ asks, what a heading promises.

A glossary entry's definition answers "What is X?"; numbered senses with different subjects become a pair each ("What
is X (networking)?"); an entry that only refers to others says what an abbreviation stands for. A section under a
question answers it; a section under any other heading answers a question made from the heading.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tunesmith.data.documents.blocks import count_words
from tunesmith.data.documents.faq import is_question, unnumbered
from tunesmith.data.documents.records import How, Passage

SENSE = re.compile(r"(?:^|\n\n)\s*(\d{1,2})\.\s+")
SUBJECT = re.compile(r"^<([^<>\n]{2,80})>\s*")
SPOKEN = re.compile(r"^/[^/\n]{1,60}/\s*(?:or\s+/[^/\n]{1,60}/\s*)*(?:(?:n|v|adj|adv|vt|vi)\.\s*)*")
BRACKETED = re.compile(r"^\((?:Or |From |Also )?[^()\n]{1,80}\)\.?\s*")
SHORT_FORM = re.compile(r"^\((?:(?:Or|From|Also) )?[\"'\w](?:[^\s()]* ?){1,6}\)\s+(?=[A-Z\d])")
NOTHING_SAID = re.compile(
    r"^(?:(?:<[^<>]*>\s*)?\([^()]*\)|<[^<>]*>|\[[^\[\]]*\]|See(?: also)? (?:\S+ ?){1,5}|[^\n]{0,40}:)\.?$"
)
CREDITED = re.compile(r"\s*\[[^\[\]\n]{2,60}\]\s*$")
CITED = re.compile(
    r"^(?:\[[^\[\]]*\]|\(\w+:[^\s()]+\)|(?:\S+ ){0,6}\(?(?:https?|ftp)://\S+)[.,;]*$"
)  # a paragraph of its own
LEADS_ON = re.compile(r"(?:^|\n\n|(?<=[.!?)\"'])\s+)(?:See also|See|Compare|Cf\.?|Contrast):?\s[^.\n]{1,200}\.?\s*$")
EDITORS = re.compile(r"\s*\[[^\[\]]*\?\]\s*\.?")  # [Details?]: an editor's note to himself
GENERIC = {
    "introduction", "overview", "general", "notes", "note", "summary", "background", "conclusion", "examples",
    "example", "usage", "description", "see also", "references", "preface", "misc", "miscellaneous", "default", "type",
    "options", "details", "abstract", "scope", "purpose", "error", "text", "other", "others",
}  # fmt: skip
FURTHER = {"see also", "references", "bibliography", "index", "contents", "table of contents", "further reading"}
LETTERS = re.compile(r"[^\W\d_]")
FINAL = re.compile(r"[.!?:;)\]\"'”’]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A question and its answer, or why there is none."""

    prompt: str
    completion: str
    passage: Passage  # where the answer begins
    how: How
    parts: int = 1  # passages that the answer is from
    reason: str = ""  # why it can't be used
    detail: str = ""
    partial: bool = False  # the answer is the first paragraphs of a longer text


@dataclass(frozen=True, slots=True)
class Section:
    """Passages under one heading, and the document's title."""

    passages: tuple[Passage, ...]
    title: str

    @property
    def first(self) -> Passage:
        return self.passages[0]

    @property
    def text(self) -> str:
        return "\n\n".join(p.text for p in self.passages)


def sections(passages: Iterable[Passage], titles: dict[str, str]) -> Iterator[Section]:
    """Consecutive passages of one file under one heading (or of one glossary entry)."""
    run: list[Passage] = []
    for passage in passages:
        if run and (run[-1].file, run[-1].heading, run[-1].terms) != (passage.file, passage.heading, passage.terms):
            yield Section(tuple(run), titles.get(run[0].file, ""))
            run = []
        run.append(passage)
    if run:
        yield Section(tuple(run), titles.get(run[0].file, ""))


def pick(templates: Sequence[str], key: str) -> str:
    """One of them, the same for the same key whatever else is asked."""
    return templates[int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big") % len(templates)]


def glossary_pairs(section: Section, templates: Sequence[str]) -> Iterator[Draft]:
    first = section.first
    term = first.terms[0] if first.terms else first.heading[-1]
    whole = EDITORS.sub("", section.text)
    meanings = _senses(whole)
    if first.see:
        yield _reference(section, term, meanings)
        return
    subjects = [m.subject for m in meanings]
    if len(meanings) > 1 and all(subjects) and len(set(subjects)) == len(subjects):
        for meaning in meanings:
            named = f"{term} ({meaning.subject})"
            yield _draft(section, pick(templates, named).format(term=named), meaning.text, "glossary")
        return
    answer = "\n\n".join(f"{i}. {m.text}" for i, m in enumerate(meanings, 1)) if len(meanings) > 1 else meanings[0].text
    yield _draft(section, pick(templates, term).format(term=term), answer, "glossary")


@dataclass(frozen=True, slots=True)
class Meaning:
    subject: str  # "networking"; "" if the entry does not say
    text: str


def _senses(text: str) -> list[Meaning]:
    """Numbered senses 1, 2, ... in order, or the whole text as one."""
    marks = [m for m in SENSE.finditer(text)]
    numbers = [int(m.group(1)) for m in marks]
    if len(marks) < 2 or numbers != list(range(1, len(marks) + 1)) or _bare(text[: marks[0].start()]):
        return [_meaning(text)]
    ends = [*[m.start() for m in marks[1:]], len(text)]
    return [_meaning(text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]


def _meaning(text: str) -> Meaning:
    subject = ""
    text = text.strip()
    while True:
        bare = SPOKEN.sub("", text, count=1)
        if found := SUBJECT.match(bare):
            subject = subject or _said(found.group(1))
            bare = bare[found.end() :]
        bare = (BRACKETED if subject else SHORT_FORM).sub("", bare, count=1)
        if bare == text or not bare.strip():
            break
        text = bare.strip()
    text = CREDITED.sub("", text).strip()
    while (cited := re.search(r"\n\n([^\n]+)$", text)) and CITED.match(cited.group(1)):
        text = text[: cited.start()].strip()
    while (shorter := LEADS_ON.sub("", text).strip()) != text and LETTERS.search(shorter):
        text = shorter  # to other entries, which the reader of an answer does not have
    return Meaning(subject, text)


def _bare(text: str) -> str:
    return _meaning(text).text if text.strip() else ""


def _said(subject: str) -> str:
    """`language, standard` as words; what is no subject (a person, a company) is said too, as the glossary has it."""
    parts = [p.strip() for p in subject.split(",") if p.strip()]
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


def _reference(section: Section, term: str, meanings: Sequence[Meaning]) -> Draft:
    """An entry without words of its own: what it stands for, if it is an abbreviation of what it refers to."""
    names = section.first.see
    prompt = f"What does {term} stand for?"
    fits = [name for name in names if _abbreviates(term, name)]
    if not fits or len(fits) < len(names):
        return Draft(
            prompt=prompt,
            completion=", ".join(names),
            passage=section.first,
            how="glossary",
            reason="cross_reference",
            detail="the entry only refers to others",
        )
    if len(fits) == 1:
        return _draft(section, prompt, f"{term} stands for {fits[0]}.", "glossary")
    said = [
        f"{name} ({meaning.subject})" if meaning.subject else name
        for name, meaning in zip(fits, meanings, strict=False)
    ]
    said += fits[len(said) :]
    return _draft(section, prompt, f"{term} can stand for {', '.join(said[:-1])} or {said[-1]}.", "glossary")


def _abbreviates(term: str, name: str) -> bool:
    """Are the term's letters, in order, initials or letters of the name, the first one its first?"""
    letters = [c for c in term.casefold() if c.isalnum()]
    words = [w for w in re.split(r"[\W_]+", name.casefold()) if w]
    if not 2 <= len(letters) <= 8 or len(words) < 2 or not any(c.isupper() for c in term):
        return False
    rest = iter("".join(words))
    begins = words[0][0] == letters[0] or (letters[0] == "x" and words[0].startswith("ex"))
    return begins and all(c in rest for c in letters)


def faq_pair(section: Section) -> Draft:
    return _draft(section, unnumbered(section.first.heading[-1]), section.text, "faq")


def heading_pair(section: Section, templates: Sequence[str]) -> Draft | None:
    """None for sections without a heading, and for those that only lead elsewhere."""
    if not section.first.heading:
        return None
    path = [unnumbered(h).strip() for h in section.first.heading]
    name = path[-1]
    if name.casefold().strip(".: ") in FURTHER or not LETTERS.search(name):
        return None
    asked = _spoken(name)
    if asked is None:
        above = [h for h in path[:-1] if h.casefold() != section.title.casefold()]
        where = f"{name} ({above[-1]})" if above and (name.casefold() in GENERIC or len(name.split()) == 1) else name
        asked = pick(templates, "\n".join(path)).format(heading=where, title=section.title)
    return _draft(section, asked, section.text, "heading")


def _spoken(name: str) -> str | None:
    """Headings that are a question but for their mark: `How to salvage a package`, `When to upload`."""
    if is_question(name):
        return name
    found = re.match(r"(how|when|where|why|what|when and how)\s+to\s+(.+)$", name, re.I)
    if found is None:
        return None
    word = found.group(1).capitalize()
    verb = "do" if word.lower() == "how" else "should"
    return f"{word} {verb} you {found.group(2).rstrip('.:')}?"


def _draft(section: Section, prompt: str, completion: str, how: How) -> Draft:
    text = completion.strip()
    reason, detail = "", ""
    if not LETTERS.search(text):
        reason, detail = "empty_answer", "the answer has no words"
    elif how == "glossary" and NOTHING_SAID.match(text):
        reason, detail = "no_definition", "the entry names or cites, and defines nothing"
    elif how == "heading" and text.endswith(":"):
        reason, detail = "introduction", "the text only introduces what follows under other headings"
    return Draft(
        prompt=prompt,
        completion=text,
        passage=section.first,
        how=how,
        parts=len(section.passages),
        reason=reason,
        detail=detail,
    )


def shortened(draft: Draft, max_words: int, policy: str) -> Draft:
    """The draft, or with `first_paragraphs` its answer's first paragraphs that fit, at least one sentence short of
    nothing: where not even the first paragraph fits, it is left out as too long."""
    words = count_words(draft.completion)
    if words <= max_words:
        return draft
    kept: list[str] = []
    if policy == "first_paragraphs":
        for paragraph in draft.completion.split("\n\n"):
            if count_words("\n\n".join([*kept, paragraph])) > max_words:
                break
            kept.append(paragraph)
        while kept and kept[-1].endswith(":"):
            kept.pop()  # it introduces what was cut off
    if kept:
        return replace(draft, completion="\n\n".join(kept), partial=True)
    return replace(draft, reason="long_answer", detail=f"{words:,} words, more than {max_words:,}")
