"""A text file is one record: {text, file, folder}; the folder's name is then a natural label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.data import lines
from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Record, examine, excerpt

TEXT_FIELDS = ("text", "file", "folder")


def read_text(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Windows line breaks become \\n; nothing else changes."""
    facts.columns = list(TEXT_FIELDS)
    with open_source(path, facts) as f:
        raw = f.read(lines.LINE_LIMIT + 1)
    facts.read_bytes = len(raw)
    facts.lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
    if len(raw) > lines.LINE_LIMIT:
        what = f"the text is longer than {lines.LINE_LIMIT >> 20} MiB"
        fix = "divide it, or give it to documents.files, which makes passages of it"
        yield BadRecord(line=1, fault=Fault(reason="too_long", what=what, fix=fix), lines=facts.lines)
        return
    try:
        whole = examine(raw, 1, 0, facts)
    except DataError as e:  # UTF-16: of a folder of texts, one such file is one row that cannot be used
        fault = Fault(reason="broken_utf8", what=e.problems[0].what, fix=e.problems[0].fix)
        yield BadRecord(line=1, fault=fault, lines=facts.lines)
        return
    if whole.fault is not None:
        yield BadRecord(line=1, fault=whole.fault, text=excerpt(whole.text), lines=facts.lines)
        return
    facts.crlf_lines = raw.count(b"\r\n")
    fields = {"text": whole.text.replace("\r\n", "\n"), "file": facts.file, "folder": facts.folder}
    yield Record(line=1, fields=fields, lines=facts.lines)
