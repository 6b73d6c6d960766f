"""One file to its blocks: which reader, which layout, and why."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tunesmith.core.errors import InputError
from tunesmith.data.documents.blocks import Extracted, Removed, Unreadable
from tunesmith.data.documents.glossary import (
    looks_like_foldoc,
    looks_like_terms,
    read_foldoc,
    read_terms,
    read_tsv,
)
from tunesmith.data.documents.plain_text import looks_like_faq, read_text
from tunesmith.data.documents.sources import INDEX, KNOWN, SourceFile, decode, read_bytes


def extract(file: SourceFile, layouts: Sequence[tuple[str, str]]) -> Extracted:
    """Raises Unreadable; InputError where a library is missing."""
    if not file.format:
        if file.name.lower().endswith(INDEX):
            raise Unreadable("index", "is an index of a dictionary, which is read without it", "")
        raise Unreadable("unknown_format", "its format is not known", f"known formats: {KNOWN}")
    data = read_bytes(file)
    if not data.strip():
        raise Unreadable("empty", "the file is empty", "export it again")
    if data.startswith(b"%PDF-") and file.format != "pdf":
        raise Unreadable("mislabelled", "is a PDF under another name", f"rename it to {file.name}.pdf")
    named = next((layout for pattern, layout in layouts if fnmatchcase(file.name, pattern)), None)
    try:
        found = _read(file, data, named)
    except RecursionError as e:
        raise Unreadable("too_deep", "its parts are nested too deep", "simplify it") from e
    if not found.blocks and not found.removed:
        found.removed.append(Removed(reason="no_text", text="", detail="there is no text in it"))
    found.title = found.title or PurePosixPath(file.name).name.split(".")[0]
    return found


def _read(file: SourceFile, data: bytes, named: str | None) -> Extracted:
    if file.format == "pdf":
        from tunesmith.data.documents.pdf import read_pdf

        return read_pdf(data)
    if file.format == "docx":
        from tunesmith.data.documents.word import read_docx

        return read_docx(data)
    if file.format == "html":
        from tunesmith.data.documents.html import read_html

        return read_html(data)
    text = decode(data)
    if file.format == "markdown" and named is None:
        from tunesmith.data.documents.markdown import read_markdown

        return read_markdown(text)
    layout, why = (named, "named in the settings") if named else _layout(file, text)
    if layout == "foldoc":
        return read_foldoc(text, layout, why)
    if layout == "terms":
        return read_terms(text, why)
    if layout == "tsv":
        return read_tsv(text, why)
    if layout in ("prose", "faq"):
        return read_text(text, layout, why)
    raise InputError(f"{layout!r} is no layout", where="documents.layouts", fix="prose, faq, foldoc, terms or tsv")


def _layout(file: SourceFile, text: str) -> tuple[str, str]:
    if file.format in ("foldoc", "tsv"):
        return file.format, "by its name"
    lines = text.splitlines()
    if n := looks_like_foldoc(lines):
        return "foldoc", f"{n:,} entries begin with a subject in angle brackets"
    if looks_like_faq(lines):
        return "faq", "its paragraphs are marked Q and A by turns"
    if n := looks_like_terms(lines):
        return "terms", f"{n:,} lines are a term, a colon or dash, and its definition"
    return "prose", "no other layout fits"
