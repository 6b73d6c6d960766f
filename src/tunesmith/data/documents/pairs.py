"""Stage pairs: passages to questions with answers, each with its source, each waiting for approval.

    passages -> pairs.jsonl, left_out.jsonl (with reasons), pairs.json (counts)

Deterministic pairs come first, then the teacher's, both in the order of the passages. Of questions that say the same
the first is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, content_id, read_lines, write_atomic
from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.nouns import LeftOut
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.corpus import source_of, with_headings
from tunesmith.data.documents.endpoint import ask, endpoint
from tunesmith.data.documents.local import LocalTeacher
from tunesmith.data.documents.questions import (
    Draft,
    Section,
    faq_pair,
    glossary_pairs,
    heading_pair,
    sections,
    shortened,
)
from tunesmith.data.documents.records import How, Pair, Passage, Source, pair_id
from tunesmith.data.documents.replies import Replies
from tunesmith.data.documents.stages import PairsInputs, PairsOutputs, PairsSpec, TeacherSpec
from tunesmith.data.documents.support import support
from tunesmith.data.documents.teacher import (
    WORKERS,
    Ask,
    Asked,
    ask_all,
    chosen,
    parse,
    points_at_passage,
    request_body,
)
from tunesmith.data.lines import excerpt
from tunesmith.data.write import LinesWriter

STEP = "pairs"
EVERY = 500  # sections between progress reports
ARTICLES = {"a", "an", "the"}


class GonePair(LeftOut, frozen=True, kw_only=True, omit_defaults=True):
    """A pair that is not asked to be approved, and why."""

    prompt: str = ""
    completion: str = ""
    source: Source | None = None
    how: How = "teacher"
    support: dict[str, Any] = msgspec.field(default_factory=dict)


def pairs(spec: PairsSpec, inputs: PairsInputs, work: Workspace, *, teacher: Ask | None = None) -> PairsOutputs:
    """`teacher`: a callable that answers in the place of the one in the spec, for library use.

    Raises DataError if there is no pair; InputError for a teacher that cannot be asked, before anything is done.
    """
    _refuse_templates(spec)
    if teacher is not None and spec.teacher is None:
        raise InputError("a teacher is given, and the spec says nothing of how to ask it", where="teacher")
    asks = _teacher(spec.teacher, inputs.teacher, work) if teacher is None else teacher
    folder = work.scratch / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    titles = titles_of(inputs.passages)
    with LinesWriter(folder / "pairs.jsonl") as out, LinesWriter(folder / "left_out.jsonl") as left_out:
        sieve = _Sieve(spec, out, left_out)
        _deterministic(spec, inputs.passages, titles, sieve, work)
        asked = _ask_teacher(spec, inputs, titles, sieve, work, asks) if spec.teacher and asks else {}
    if not sieve.kept:
        why = ", ".join(f"{n:,} {reason}" for reason, n in sieve.left_out.most_common()) or "nothing asks or defines"
        what = f"no pair could be made: {why}"
        raise DataError(what, where="documents.pairs", fix="add headings to documents.pairs, or a teacher")
    facts: dict[str, Any] = {
        "pairs": sieve.kept.total(),
        "how": dict(sorted(sieve.kept.items())),
        "partial_answers": sieve.partial,
        "left_out": dict(sorted(sieve.left_out.items())),
        "restored": sorted(sieve.restored),
    }
    if asked:
        facts["teacher"] = asked
    write_atomic(folder / "pairs.json", canonical_json(facts) + b"\n")
    work.summarize(**facts)
    return PairsOutputs(pairs=folder)


def titles_of(passages: Path) -> dict[str, str]:
    """Each document's title."""
    return {d["file"]: d.get("title", "") for d in read_lines(passages / "documents.jsonl")}


def _refuse_templates(spec: PairsSpec) -> None:
    problems = []
    for where, templates, needed, known in (
        ("documents.questions", spec.questions, "term", {"term"}),
        ("documents.heading_questions", spec.heading_questions, "heading", {"heading", "title"}),
    ):
        if not templates:
            problems.append(Problem(where=where, what="is empty", fix=f"give at least one, with {{{needed}}}"))
        for template in templates:
            fields = re.findall(r"\{([^{}]*)\}", template)
            plain = re.sub(r"\{[^{}]*\}", "", template)
            if needed not in fields or not set(fields) <= known or "{" in plain or "}" in plain:
                fix = f"it needs {{{needed}}}; known: {', '.join(sorted(known))}"
                problems.append(Problem(where=where, what=f"{template!r} can't be filled in", fix=fix))
    if problems:
        raise InputError(problems)


def _teacher(spec: TeacherSpec | None, folder: Path | None, work: Workspace) -> Ask | None:
    """Who is asked. Raises InputError now, not after hours of other work."""
    if spec is None:
        return None
    if not spec.url:
        if folder is None:
            raise InputError("the teacher is neither a URL nor a model", where="documents.teacher", fix="name its url")
        return LocalTeacher(folder)
    to = endpoint(spec.url, spec.token_env)
    return lambda body: ask(to, body, work.stop)


def _deterministic(spec: PairsSpec, passages: Path, titles: dict[str, str], sieve: _Sieve, work: Workspace) -> None:
    size = max((passages / "passages.jsonl").stat().st_size, 1)
    done = 0
    for i, (number, section) in enumerate(_numbered(passages, titles)):
        if i % EVERY == 0:
            work.stop_if_asked()
            work.progress(min(done, size), size, STEP, pairs=sieve.kept.total())
        done += sum(len(p.text) for p in section.passages)
        for draft in _drafts(spec, section):
            sieve.take(shortened(draft, spec.max_answer_words, spec.long_answers), number)


def _numbered(passages: Path, titles: dict[str, str]) -> Iterator[tuple[int, Section]]:
    """Sections with the line of their first passage."""
    number = 1
    for section in sections(read_lines(passages / "passages.jsonl", Passage), titles):
        yield number, section
        number += len(section.passages)


def _drafts(spec: PairsSpec, section: Section) -> Iterator[Draft]:
    kinds = {p.kind for p in section.passages}
    if "glossary" in kinds:
        if "glossary" in spec.kinds:
            yield from glossary_pairs(section, spec.questions)
    elif "faq" in kinds:
        if "faq" in spec.kinds:
            yield faq_pair(section)
    elif "headings" in spec.kinds and kinds != {"code"}:
        draft = heading_pair(section, spec.heading_questions)
        if draft is not None:
            yield draft


def _ask_teacher(
    spec: PairsSpec, inputs: PairsInputs, titles: dict[str, str], sieve: _Sieve, work: Workspace, asks: Ask
) -> dict[str, Any]:
    """Facts for pairs.json. They say what was asked, not what was paid for now: that would differ after a resume."""
    assert spec.teacher is not None
    file = inputs.passages / "passages.jsonl"
    wanted = [p.id for p in read_lines(file, Passage) if _is_asked_about(p, spec)]
    ids = chosen(wanted, spec.teacher.max_requests, spec.teacher.seed)
    total = len(wanted) if ids is None else len(ids)
    tokens: Counter[str] = Counter()
    malformed = 0
    is_local = not spec.teacher.url
    with Replies(work, shared=not is_local) as replies:
        requests = _requests(spec, spec.teacher, file, titles, ids)
        answered = ask_all(requests, asks, replies, work, workers=1 if is_local else WORKERS)
        for i, (one, reply) in enumerate(answered):
            work.progress(i, total, "teacher", pairs=sieve.kept.total())
            tokens.update(prompt=reply.prompt_tokens, answer=reply.answer_tokens)
            said = parse(reply.text) if reply.text is not None else reply.problem
            if isinstance(said, str):
                malformed += 1
                what = f"{said} (finish: {reply.finish})" if reply.finish else said
                sieve.leave_reply_out(one, what)
                continue
            for question, answer in said:
                sieve.take_generated(one, question, answer, titles.get(one.passage.file, ""))
    work.summarize(requests_paid_before=replies.reused)
    return {
        "model": spec.teacher.model,
        "asked": total,
        "not_asked": len(wanted) - total,
        "unusable_replies": malformed,
        "prompt_tokens": tokens["prompt"],
        "answer_tokens": tokens["answer"],
    }


def _is_asked_about(passage: Passage, spec: PairsSpec) -> bool:
    """All but listings, and but what the document's own questions and definitions cover already."""
    return passage.kind != "code" and not (passage.kind in ("glossary", "faq") and passage.kind in spec.kinds)


def _requests(
    spec: PairsSpec, teacher: TeacherSpec, file: Path, titles: dict[str, str], ids: set[str] | None
) -> Iterator[Asked]:
    for number, passage in enumerate(read_lines(file, Passage), 1):
        if _is_asked_about(passage, spec) and (ids is None or passage.id in ids):
            body = request_body(teacher, passage, titles.get(passage.file, ""))
            yield Asked(number, passage, content_id({"url": teacher.url, "body": body}), body)


class _Sieve:
    """Keeps a pair, or leaves it out with a reason. Of each kept question a hash stays in memory."""

    def __init__(self, spec: PairsSpec, out: LinesWriter, left_out: LinesWriter) -> None:
        self.kept: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.restored: set[str] = set()
        self.partial = 0
        self._spec = spec
        self._out, self._gone = out, left_out
        self._asked: dict[bytes, tuple[int, bytes]] = {}  # question -> passage's line, answer

    def take(self, draft: Draft, number: int) -> None:
        facts: dict[str, Any] = {"copied": True}
        if draft.parts > 1:
            facts["passages"] = draft.parts
        if draft.partial:
            facts["partial"] = True
        self._take(draft.prompt, draft.completion, draft.passage, number, draft.how, facts, draft.reason, draft.detail)
        self.partial += draft.partial and not draft.reason

    def take_generated(self, one: Asked, question: str, answer: str, title: str) -> None:
        source = f"{title}\n{with_headings(one.passage)}"
        found = support(answer, source, at_least=self._spec.min_support)
        reason, detail = "", ""
        if points_at_passage(question):
            reason, detail = "not_self_contained", "the question points at a passage that its reader does not see"
        elif found.reason:
            reason, detail = "unsupported", found.reason
        self._take(question, answer, one.passage, one.number, "teacher", asdict(found), reason, detail)

    def leave_reply_out(self, one: Asked, what: str) -> None:
        reason = "refused_by_teacher" if what.startswith("refuses") else "malformed_reply"
        self.left_out[reason] += 1
        self._gone.write(
            GonePair(
                file=one.passage.file,
                line=one.number,
                reason=reason,
                detail=what,
                text=excerpt(one.passage.text),
                step=STEP,
                source=source_of(one.passage),
            )
        )

    def _take(
        self,
        prompt: str,
        completion: str,
        passage: Passage,
        number: int,
        how: How,
        facts: dict[str, Any],
        reason: str,
        detail: str,
    ) -> None:
        if not reason:
            reason, detail = self._repeats(prompt, completion, number)
        if reason:
            gone = GonePair(
                file=passage.file,
                line=number,
                reason=reason,
                detail=detail,
                text=excerpt(prompt),
                step=STEP,
                prompt=prompt,
                completion=completion,
                source=source_of(passage),
                how=how,
                support=facts,
            )
            if gone.key not in self._spec.restored:
                self.left_out[reason] += 1
                self._gone.write(gone)
                return
            self.restored.add(gone.key)
        self.kept[how] += 1
        self._asked.setdefault(question_key(prompt), (number, _short_id(completion)))
        self._out.write(
            Pair(
                id=pair_id(prompt, completion),
                prompt=prompt,
                completion=completion,
                source=source_of(passage),
                how=how,
                support=facts,
            )
        )

    def _repeats(self, prompt: str, completion: str, number: int) -> tuple[str, str]:
        earlier = self._asked.get(question_key(prompt))
        if earlier is None:
            return "", ""
        where = f"the pair from passage {earlier[0]:,}"
        if earlier[1] == _short_id(completion):
            return "duplicate", f"says the same as {where}, which is kept"
        return "same_question", f"asks the same as {where}, which is kept, and answers otherwise"


def question_key(question: str) -> bytes:
    """Equal for questions that differ in case, punctuation and articles alone."""
    words = [w for w in re.findall(r"\w+|[+#$%&*/<>=^~@!]+", question.casefold()) if w not in ARTICLES]
    return _short_id(" ".join(words).rstrip("! "))


def _short_id(text: str) -> bytes:
    return bytes.fromhex(content_id(text))[:12]
