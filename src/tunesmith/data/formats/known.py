"""Which format a file has: by its name, and where the name does not say, by what it begins with.

What was decided from the content is a sentence in the file's notes, never a silent guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import BOM, FileFacts

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".mbox": "mbox",
    ".eml": "mail",
}
TEXTS = {".txt", ".text", ".md", ".markdown", ".rst", ".log"}  # looked into: mail is often kept as .txt
PACKED = {".gz": "gz", ".zst": "zst"}
ONE_RECORD = ("text", "mail")  # formats whose files are one record each
KNOWN = (
    "CSV (.csv), TSV (.tsv, .tab), JSON (.json), JSON lines (.jsonl, .ndjson), Parquet, Arrow (.arrow, .feather), "
    "Excel (.xlsx, .xls, .ods), SQLite (.sqlite, .db), mail (.mbox, .eml), text (.txt), each also as .gz or .zst"
)
SIDECARS = {"dataset_info.json", "dataset_dict.json", "state.json"}  # what `datasets` writes beside its tables
HEAD = 1 << 14  # bytes looked at
MAIL_NAMES = {
    b"from", b"to", b"subject", b"date", b"received", b"return-path", b"message-id", b"delivered-to", b"mime-version",
    b"sender", b"reply-to", b"cc", b"content-type", b"x-mailer",
}  # fmt: skip
FROM_LINE = re.compile(rb"From [^\r\n]*\d\d?:\d\d(:\d\d)?[^\r\n]* \d{4}[^\r\n]*\r?$")  # between messages of an mbox
HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:")
OTHERS = {  # by what they begin with
    b"%PDF": ("a PDF document", "documents: {files: [...]} reads PDF, DOCX and HTML"),
    b"PK\x03\x04": ("a ZIP archive", "unpack it first, or name it .xlsx or .ods if it is a spreadsheet"),
    b"BZh": ("packed with bzip2", "unpack it first"),
    b"\xfd7zXZ": ("packed with xz", "unpack it first"),
    b"\x7fELF": ("a program", "leave it out of data.files"),
    b"\x89PNG": ("a picture", "leave it out of data.files"),
    b"\xff\xd8\xff": ("a picture", "leave it out of data.files"),
    b"GIF8": ("a picture", "leave it out of data.files"),
}
DOCUMENTS = {".pdf", ".docx", ".doc", ".html", ".htm", ".odt", ".rtf", ".epub"}


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that is not read, and why. `harmless`: it belongs beside data and holds none."""

    file: str
    reason: str
    what: str
    fix: str = ""
    harmless: bool = False


def identify(path: Path, name: str) -> FileFacts | Unread:
    """The format of one file; `name`: its relative POSIX path, as people will read it.

    Raises DataError when it cannot be opened or unpacked, OSError when it is not there.
    """
    pure = PurePosixPath(name)
    facts = FileFacts(file=name, bytes=path.stat().st_size)
    if not facts.bytes:
        return Unread(name, "empty", "the file is empty", "export the data again")
    if pure.name.startswith("."):
        return Unread(name, "hidden", "its name begins with a dot", harmless=True)
    if pure.name in SIDECARS and _is_sidecar(path):
        return Unread(name, "sidecar", "describes the tables beside it, and holds no rows", harmless=True)
    beside = re.fullmatch(r"(.+)-(wal|journal|shm)", pure.name)
    if beside and (path.parent / beside[1]).is_file():
        what = f"holds changes that are not in {beside[1]} yet"
        fix = f"sqlite3 {beside[1]} 'PRAGMA wal_checkpoint(TRUNCATE)', then copy both again"
        return Unread(name, "unwritten_changes", what, fix, harmless=beside[2] == "shm")
    suffix = pure.suffix.lower()
    if suffix in PACKED:
        facts.packed = PACKED[suffix]
        pure = pure.with_suffix("")
        suffix = pure.suffix.lower()
    if suffix in DOCUMENTS:
        return Unread(name, "document", "a document, not rows", OTHERS[b"%PDF"][1])
    facts.folder = _folder(pure)
    if suffix in SUFFIXES and suffix != ".db":
        facts.format = SUFFIXES[suffix]
        facts.split = _split(path, pure, facts)
        return facts
    return _look(path, facts, suffix)


def _look(path: Path, facts: FileFacts, suffix: str) -> FileFacts | Unread:
    with open_source(path, facts) as f:
        head = f.read(HEAD)
    packed = {b"\x1f\x8b": "gz", b"\x28\xb5": "zst"}.get(head[:2])
    if packed and not facts.packed:
        facts.packed = packed
        with open_source(path, facts) as f:
            head = f.read(HEAD)
    if not head.strip():
        return Unread(facts.file, "empty", "the file is empty", "export the data again")
    for start, (what, fix) in OTHERS.items():
        if head.startswith(start):
            return Unread(facts.file, "unknown_format", f"its format is not known: {what}", f"{fix}; known: {KNOWN}")
    for start, found, called in (
        (b"SQLite format 3\0", "sqlite", "an SQLite database"),
        (b"PAR1", "parquet", "a Parquet file"),
        (b"ARROW1", "arrow", "an Arrow file"),
    ):
        if head.startswith(start):
            return _decided(facts, found, f"read as {called}: it begins like one")
    mail = mail_format(head)
    if mail:
        return _decided(
            facts, mail, f"read as {'mail' if mail == 'mail' else 'a mailbox'}: it begins with mail headers"
        )
    if b"\0" in head and suffix not in TEXTS:
        return Unread(facts.file, "unknown_format", "its format is not known: it is not text", f"known: {KNOWN}")
    if suffix == ".db":
        return Unread(facts.file, "unknown_format", "is no SQLite database, as its name says", f"known: {KNOWN}")
    if suffix not in TEXTS:
        start = head.removeprefix(BOM).lstrip()
        if start.startswith(b"{"):
            return _decided(facts, "jsonl", "read as JSON lines: it begins with an object")
        if start.startswith(b"[") and start[1:].lstrip().startswith((b"{", b"]")):
            return _decided(facts, "json", "read as JSON: it begins with a list of objects")
        return _decided(facts, "text", f"read as one text: {suffix or 'a name without suffix'} says no format")
    facts.format = "text"
    return facts


def _decided(facts: FileFacts, format: str, note: str) -> FileFacts:
    facts.format = format
    facts.notes.append(note)
    return facts


def mail_format(head: bytes) -> str:
    """ "mbox" for a text that begins as a mailbox does, "mail" for one message, "" for neither."""
    lines = head.removeprefix(BOM).split(b"\n")
    if lines[-1] != b"" and len(head) == HEAD:
        lines.pop()  # cut in the middle
    start = 0
    mbox = FROM_LINE.match(lines[0]) is not None
    if mbox:
        start = 1
    seen: set[bytes] = set()
    for i, line in enumerate(lines[start:]):
        if not line.strip():
            break
        if line[:1] in (b" ", b"\t") and i:
            continue  # a header goes on
        found = HEADER.match(line)
        if found is None:
            if line.startswith((b">From ", b"From ")):
                continue
            break
        seen.add(found[1].lower())
    known = seen & MAIL_NAMES
    if mbox:
        return "mbox" if known else ""
    return "mail" if len(known) >= 2 and known & {b"from", b"received", b"return-path", b"message-id"} else ""


def _folder(pure: PurePosixPath) -> str:
    """The name of the folder a file lies in; of a maildir, that of the mailbox round its cur and new."""
    parents = [p for p in pure.parent.parts if p not in ("", ".")]
    while len(parents) > 1 and parents[-1] in ("cur", "new", "tmp"):
        parents.pop()
    return parents[-1] if parents else ""


def _is_sidecar(path: Path) -> bool:
    return any(p.suffix in (".arrow", ".parquet") for p in path.parent.rglob("*"))


def _split(path: Path, pure: PurePosixPath, facts: FileFacts) -> str:
    """The split that a `datasets` folder files a table under: its layout says it, not our guess.

    save_to_disk writes NAME/data-00000-of-00001.arrow beside state.json, below dataset_dict.json;
    the hub's layout is data/NAME-00000-of-00001.parquet.
    """
    if facts.format == "arrow" and (path.parent / "state.json").is_file():
        return pure.parent.name if (path.parent.parent / "dataset_dict.json").is_file() else ""
    shard = re.fullmatch(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}(?:-[0-9a-f]{8,})?", pure.stem)
    return shard[1] if shard and facts.format in ("parquet", "arrow", "jsonl", "csv", "json") else ""
