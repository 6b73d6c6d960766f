"""Stage documents: read every file, keep its text in passages, and say what is in none of them.

    source -> passages.jsonl, texts.jsonl (each document's extracted text, which offsets count in),
              documents.jsonl (how each was read, and its outline), left_out.jsonl (with reasons), documents.json (counts)

One document is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.core.errors import DataError, Problem, require
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.blocks import Extracted, Removed, Unreadable, count_characters, count_words, lay_out
from tunesmith.data.documents.passages import Cut, cut
from tunesmith.data.documents.read import extract
from tunesmith.data.documents.records import Gone, Passage
from tunesmith.data.documents.sources import TEXTS, SourceFile, raise_any, source_files
from tunesmith.data.documents.stages import DocumentsInputs, DocumentsOutputs, DocumentsSpec
from tunesmith.data.lines import excerpt
from tunesmith.data.write import LinesWriter

STEP = "documents"
COMPANION = "index"  # reason of files that are read with another one


def documents(spec: DocumentsSpec, inputs: DocumentsInputs, work: Workspace) -> DocumentsOutputs:
    """Raises one DataError with every file that cannot be read, unless `bad_files` leaves such files out."""
    require(spec.max_words >= 1, "documents.max_words", spec.max_words, "a positive integer")
    require(spec.min_words >= 0, "documents.min_words", spec.min_words, "0 or more")
    files = source_files(inputs.source)
    _refuse_idle_layouts(spec, files)
    folder = work.scratch / "passages"
    folder.mkdir(parents=True, exist_ok=True)
    problems: list[Problem] = []
    total = sum(f.path.stat().st_size for f in files)
    done = 0
    with (
        LinesWriter(folder / "passages.jsonl") as passages,
        LinesWriter(folder / "texts.jsonl") as texts,
        LinesWriter(folder / "documents.jsonl") as facts,
        LinesWriter(folder / "left_out.jsonl") as left_out,
    ):
        tally = _Tally(spec, passages, texts, facts, left_out)
        for file in files:
            work.stop_if_asked()
            work.progress(done, total, STEP, files=tally.files)
            try:
                tally.take(file, extract(file, spec.layouts))
            except Unreadable as e:
                if spec.bad_files == "refuse" and e.reason != COMPANION:
                    problems.append(Problem(where=file.name, what=e.what, fix=e.fix))
                tally.leave_file_out(file, e)
            done += file.path.stat().st_size
        raise_any(problems)
    tally.refuse_nothing()
    report = tally.report()
    write_atomic(folder / "documents.json", canonical_json(report) + b"\n")
    work.summarize(**{k: report[k] for k in ("files", "passages", "words", "left_out")})
    work.progress(total, total, STEP, files=len(files))
    return DocumentsOutputs(passages=folder)


def _refuse_idle_layouts(spec: DocumentsSpec, files: Sequence[SourceFile]) -> None:
    """A layout that is named for no text file is a mistake, not a wish."""
    texts = [file.name for file in files if file.format in TEXTS]
    raise_any(
        Problem(
            where="documents.layouts",
            what=f"{pattern!r} matches no text file",
            fix=f"text files: {', '.join(texts[:5]) or 'none'}",
        )
        for pattern, _ in spec.layouts
        if not any(fnmatchcase(name, pattern) for name in texts)
    )


class _Tally:
    """Writes passages and what is in none, and counts both."""

    def __init__(
        self,
        spec: DocumentsSpec,
        passages: LinesWriter,
        texts: LinesWriter,
        facts: LinesWriter,
        left_out: LinesWriter,
    ) -> None:
        self._spec = spec
        self._passages, self._texts, self._facts, self._left_out = passages, texts, facts, left_out
        self._formats: Counter[str] = Counter()
        self._gone: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._words = self._cut = 0
        self._restored: set[str] = set()

    @property
    def files(self) -> int:
        return self._formats.total()

    def take(self, file: SourceFile, found: Extracted) -> None:
        text, spans = lay_out(found.blocks)
        pieces = cut(file.name, text, spans, max_words=self._spec.max_words, min_words=self._spec.min_words)
        kept: Counter[str] = Counter()
        gone: Counter[str] = Counter()
        for passage in sorted((*pieces.passages, *pieces.short), key=lambda p: p.start):
            reason = self._why_not(passage, pieces)
            if reason and not self._leave_out(passage, reason, text):
                reason = ""
            if reason:
                gone[reason] += 1
            else:
                self._keep(passage)
                kept[passage.kind] += 1
        for removed in found.removed:
            self._remove(file.name, removed)
            gone[removed.reason] += removed.count
        self._texts.write({"file": file.name, "text": text})
        self._formats[found.format] += 1
        self._facts.write(
            {
                "file": file.name,
                "format": found.format,
                "layout": found.layout,
                "why": found.why,
                "title": found.title,
                "pages": found.pages,
                "characters": count_characters(text),
                "passages": dict(sorted(kept.items())),
                "left_out": dict(sorted(gone.items())),
                "outline": pieces.outline,
                "notes": found.notes,
            }
        )

    def _why_not(self, passage: Passage, pieces: Cut) -> str:
        if self._spec.kinds and passage.kind not in self._spec.kinds:
            return "kind"
        return "short" if any(p is passage for p in pieces.short) else ""

    def _keep(self, passage: Passage) -> None:
        self._passages.write(passage)
        self._kinds[passage.kind] += 1
        self._words += count_words(passage.text)
        self._cut += passage.cut

    def _leave_out(self, passage: Passage, reason: str, text: str) -> bool:
        """False if a person restored it."""
        words = count_words(passage.text)
        what = {"kind": f"is {passage.kind}", "short": f"{words} words, alone under its heading"}[reason]
        gone = Gone(
            file=passage.file,
            line=text.count("\n", 0, passage.start) + 1,
            reason=reason,
            detail=what,
            text=excerpt(passage.text),
            step=STEP,
            page=passage.page,
            start=passage.start,
            end=passage.end,
            characters=count_characters(passage.text),
        )
        if gone.key in self._spec.restored:
            self._restored.add(gone.key)
            return False
        self._gone[reason] += 1
        self._left_out.write(gone)
        return True

    def _remove(self, file: str, removed: Removed) -> None:
        characters = removed.characters
        self._gone[removed.reason] += removed.count
        self._left_out.write(
            Gone(
                file=file,
                line=1,
                reason=removed.reason,
                detail=removed.detail,
                text=excerpt(removed.text),
                step=STEP,
                page=removed.page,
                count=removed.count,
                characters=count_characters(removed.text) if characters is None else characters,
            )
        )

    def leave_file_out(self, file: SourceFile, why: Unreadable) -> None:
        self._gone[why.reason] += 1
        self._left_out.write(Gone(file=file.name, line=1, reason=why.reason, detail=why.what, step=STEP))
        self._formats["not read"] += 1
        self._facts.write({"file": file.name, "left_out": {why.reason: 1}, "why": why.what})

    def refuse_nothing(self) -> None:
        """Raises DataError if there is no passage at all."""
        if self._kinds:
            return
        why = ", ".join(f"{n} {reason}" for reason, n in self._gone.most_common()) or "no text was found"
        raise DataError(
            f"there is no passage in {self.files} files: {why}",
            where="documents.files",
            fix="scanned pages need their text recognised first, e.g. with OCRmyPDF",
        )

    def report(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "formats": dict(sorted(self._formats.items())),
            "passages": self._kinds.total(),
            "kinds": dict(sorted(self._kinds.items())),
            "words": self._words,
            "cut_sentences": self._cut,
            "left_out": dict(sorted(self._gone.items())),
            "restored": sorted(self._restored),
        }
