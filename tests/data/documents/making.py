"""Sources, specs and stages for the tests of documents; a PDF writer and a teacher small enough to read."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.documents import documents
from tunesmith.data.documents.pairs import GonePair, pairs
from tunesmith.data.documents.records import Gone, Pair, Passage
from tunesmith.data.documents.stages import (
    DocumentsInputs,
    DocumentsSpec,
    PairsInputs,
    PairsSpec,
    TeacherSpec,
)
from tunesmith.data.documents.teacher import Ask


def source(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if isinstance(body, bytes) else body.encode("utf-8"))
    return folder


def documents_spec(**changes: Any) -> DocumentsSpec:
    usual: dict[str, Any] = {
        "max_words": 60,
        "min_words": 3,
        "kinds": (),
        "layouts": (),
        "bad_files": "refuse",
        "restored": (),
    }
    return DocumentsSpec(**{**usual, **changes})


class Read:
    """What the stage documents wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passages: list[Passage] = list(read_lines(folder / "passages.jsonl", Passage))
        self.left_out: list[Gone] = list(read_lines(folder / "left_out.jsonl", Gone))
        self.facts = read_json(folder / "documents.json")
        self.facts["documents"] = list(read_lines(folder / "documents.jsonl"))
        self.texts = {t["file"]: t["text"] for t in read_lines(folder / "texts.jsonl")}

    @property
    def said(self) -> list[str]:
        return [p.text for p in self.passages]

    def reasons(self) -> dict[str, int]:
        return dict(self.facts["left_out"])

    def bytes(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(self.folder.iterdir())}

    def account_for_every_character(self) -> None:
        """The invariant that passages.py states."""
        for document in self.facts["documents"]:
            file = document["file"]
            text = self.texts.get(file)
            if text is None:
                assert document["left_out"], file
                continue
            owners = np.zeros(len(text), dtype=int)
            places = [(p.start, p.end) for p in self.passages if p.file == file]
            places += [(g.start, g.end) for g in self.left_out if g.file == file and g.start is not None]
            places += [(h["start"], h["end"]) for h in document["outline"]]
            for start, end in places:
                owners[start:end] += 1
            space = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
            assert (owners[~space] == 1).all(), file
            assert (owners[space] <= 1).all(), file
            for p in self.passages:
                if p.file == file:
                    assert p.text == text[p.start : p.end]
                    assert p.text.strip()
                    assert p.text == p.text.strip("\n").rstrip()  # a listing may begin set in


def run_documents(root: Path, files: dict[str, bytes | str], **changes: Any) -> Read:
    inputs = DocumentsInputs(source=source(root / "source", files))
    return Read(documents(documents_spec(**changes), inputs, Workspace(root=root / "work")).passages)


QUESTIONS = ("What is {term}?",)
HEADING_QUESTIONS = ("What does {title} say about {heading}?",)


def pairs_spec(**changes: Any) -> PairsSpec:
    usual: dict[str, Any] = {
        "kinds": ("glossary", "faq", "headings"),
        "questions": QUESTIONS,
        "heading_questions": HEADING_QUESTIONS,
        "max_answer_words": 60,
        "long_answers": "first_paragraphs",
        "teacher": None,
        "min_support": 0.8,
        "restored": (),
    }
    return PairsSpec(**{**usual, **changes})


def teacher_spec(url: str = "", **changes: Any) -> TeacherSpec:
    usual: dict[str, Any] = {
        "url": url,
        "model": "teacher-1",
        "token_env": "",
        "max_requests": 0,
        "per_passage": 2,
        "max_tokens": 256,
        "temperature": 0.0,
        "seed": 0,
    }
    return TeacherSpec(**{**usual, **changes})


class Paired:
    """What the stage pairs wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: list[Pair] = list(read_lines(folder / "pairs.jsonl", Pair))
        self.left_out: list[GonePair] = list(read_lines(folder / "left_out.jsonl", GonePair))
        self.facts = read_json(folder / "pairs.json")

    @property
    def asked(self) -> dict[str, str]:
        return {p.prompt: p.completion for p in self.pairs}

    def bytes(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(self.folder.iterdir())}


def run_pairs(root: Path, passages: Path, *, ask: Ask | None = None, **changes: Any) -> Paired:
    inputs = PairsInputs(passages=passages)
    return Paired(pairs(pairs_spec(**changes), inputs, Workspace(root=root), teacher=ask).pairs)


Placed = tuple[float, float, float, str]  # left, bottom, font size, text


def pdf(pages: Sequence[Sequence[Placed]], *, title: str = "", encrypted: bool = False) -> bytes:
    """A PDF with text at places, in the order given; a page of None-like emptiness has no text."""
    objects = [b"", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]
    kids = []
    for lines in pages:
        shown = b"\n".join(
            b"BT /F1 %g Tf %g %g Td (%s) Tj ET"
            % (
                size,
                left,
                bottom,
                text.encode("cp1252")
                .translate(None)
                .replace(b"\\", rb"\\")
                .replace(b"(", rb"\(")
                .replace(b")", rb"\)"),
            )
            for left, bottom, size, text in lines
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    objects.append(b"<< /Title (%s) >>" % title.encode("ascii"))
    trailer = b"/Root 1 0 R /Info %d 0 R" % len(objects)
    if encrypted:
        key = b"<" + b"ab" * 32 + b">"
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /O %s /U %s /P -4 >>" % (key, key))
        trailer += b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects)
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    places = []
    for i, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (i, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for place in places:
        out.write(b"%010d 00000 n \n" % place)
    out.write(b"trailer << /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start))
    return out.getvalue()


class Heard:
    """What a teacher on this machine was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.url = ""

    @property
    def count(self) -> int:
        return len(self.bodies)


Behaviour = Callable[[dict[str, Any], int], tuple[int, dict[str, str], bytes]]


@contextmanager
def teacher(behave: Behaviour) -> Iterator[Heard]:
    """A real HTTP server on loopback. `behave(body, nth request)` gives status, headers and body."""
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with heard.lock:
                heard.bodies.append(body)
                heard.headers.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
                nth = len(heard.bodies)
            status, headers, said = behave(body, nth)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: Any, **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"choices": [choice], "usage": usage, **more}).encode()


def passage_in(body: dict[str, Any]) -> str:
    said: str = body["messages"][1]["content"]
    return said.split("Passage:\n", 1)[1].rsplit("\n\nWrite ", 1)[0]


def honest(body: dict[str, Any], nth: int = 0) -> tuple[int, dict[str, str], bytes]:
    """Asks about the first words of a passage and answers with its first sentence."""
    text = passage_in(body)
    first = text.split(". ")[0].rstrip(".") + "."
    topic = " ".join(text.split()[:3])
    return 200, {}, completion(json.dumps({"pairs": [{"question": f"What about {topic}?", "answer": first}]}))
