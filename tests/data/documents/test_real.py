"""Real documents, where their Debian packages are installed: a PDF manual, a glossary of 15,254 names, a FAQ."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tests.data.documents.making import HEADING_QUESTIONS, QUESTIONS, Paired, Read, documents_spec, pairs_spec
from tunesmith.core.stage import Clock, Workspace
from tunesmith.data.documents.documents import documents
from tunesmith.data.documents.faq import unnumbered
from tunesmith.data.documents.pairs import pairs
from tunesmith.data.documents.sources import SourceFile, read_bytes
from tunesmith.data.documents.stages import DocumentsInputs, PairsInputs

PDF = Path("/usr/share/developers-reference/developers-reference.pdf")
MANUAL_HTML = PDF.with_suffix(".html")
FOLDOC = Path("/usr/share/dictd/foldoc.dict.dz")
FAQ = Path("/usr/share/doc/debian/FAQ")


def needs(path: Path, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"needs the Debian package {package}")


def read(root: Path, *paths: Path) -> Read:
    folder = root / "source"
    folder.mkdir(parents=True)
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())
    spec = documents_spec(max_words=220, min_words=8)
    out = Read(documents(spec, DocumentsInputs(source=folder), Workspace(root=root / "work")).passages)
    out.account_for_every_character()
    assert max(len(p.text.split()) for p in out.passages) <= 220
    return out


def paired(root: Path, from_: Read) -> Paired:
    spec = pairs_spec(questions=QUESTIONS, heading_questions=HEADING_QUESTIONS, max_answer_words=220)
    return Paired(pairs(spec, PairsInputs(passages=from_.folder), Workspace(root=root / "pairs")).pairs)


@pytest.fixture(scope="module")
def from_pdf(tmp_path_factory: pytest.TempPathFactory) -> Read:
    return read(tmp_path_factory.mktemp("pdf"), PDF)


@needs(PDF, "developers-reference")
def test_the_manual_as_pdf_says_what_it_says_as_html(tmp_path: Path, from_pdf: Read) -> None:
    from_html = read(tmp_path / "html", MANUAL_HTML)
    headings = [
        {unnumbered(h["text"]).casefold() for h in r.facts["documents"][0]["outline"]} for r in (from_pdf, from_html)
    ]
    assert len(headings[0] & headings[1]) >= 0.95 * len(headings[1])
    said = [re.findall(r"\w{3,}", " ".join(r.said)) for r in (from_pdf, from_html)]
    shingles = [{tuple(words[i : i + 4]) for i in range(len(words) - 3)} for words in said]
    assert len(shingles[0] & shingles[1]) >= 0.93 * len(shingles[1])
    assert len({p.page for p in from_pdf.passages}) > 90
    assert not any(re.search(r"\.\s\.\s\.\s\.|Reference, Release 12", p.text) for p in from_pdf.passages)


@needs(PDF, "developers-reference")
def test_the_manual_s_headings_ask(tmp_path: Path, from_pdf: Read) -> None:
    made = paired(tmp_path, from_pdf)
    assert len(made.pairs) > 200
    assert made.facts["how"]["heading"] > 200
    assert all(p.source.page for p in made.pairs)
    assert "What does Debian Developer's Reference say about Adopting a package?" in {p.prompt for p in made.pairs}


@needs(FAQ, "debian-faq")
def test_the_faq_asks_the_same_as_text_and_as_html(tmp_path: Path) -> None:
    texts, pages = (
        read(tmp_path / "text", FAQ / "debian-faq.en.txt.gz"),
        read(tmp_path / "html", *FAQ.glob("*.en.html")),
    )
    asked = [{p.prompt for p in paired(r.folder.parent, r).pairs if p.how == "faq"} for r in (texts, pages)]
    assert len(asked[0]) > 110
    assert len(asked[0] & asked[1]) >= 0.95 * len(asked[1])
    assert all(q.rstrip("\"'”!").endswith("?") for q in asked[0])


@pytest.mark.slow
@needs(FOLDOC, "dict-foldoc")
def test_every_entry_of_the_glossary_is_found_under_all_its_names(tmp_path: Path) -> None:
    """The truth is dictd's own index: which bytes are an entry, and its 15,254 names."""
    clock = Clock()
    found = read(tmp_path, FOLDOC, FOLDOC.with_name("foldoc.index"))
    seconds = clock.seconds
    entries = _entries_by_index()
    assert sum(map(len, entries.values())) == 15_254
    terms = {p.terms for p in found.passages}
    real = {k for k, names in entries.items() if not names[0].startswith("00-database")}
    raw = read_bytes(SourceFile(name=FOLDOC.name, path=FOLDOC, format="foldoc"))
    hit = sum(_heads(raw, place) in terms for place in real)
    print(f"{len(real):,} entries, {hit:,} found, {len(found.passages):,} passages in {seconds:.1f} s")
    assert hit >= 0.998 * len(real)
    made = paired(tmp_path, found)
    assert len(made.pairs) >= 0.95 * len(real)
    assert not any(re.search(r"\(\d{4}-\d\d-\d\d\)$|\{[^{}\s]", p.completion) for p in made.pairs[:2000])


def _entries_by_index() -> dict[tuple[int, int], list[str]]:
    entries: dict[tuple[int, int], list[str]] = {}
    for line in FOLDOC.with_name("foldoc.index").read_text("utf-8").splitlines():
        name, offset, size = line.split("\t")
        entries.setdefault((_number(offset), _number(size)), []).append(name)
    return entries


def _number(digits: str) -> int:
    """dictd's numbers: base 64, most significant digit first."""
    padded = digits.rjust(-(-len(digits) // 4) * 4, "A")
    return int.from_bytes(base64.b64decode(padded), "big")


def _heads(raw: bytes, place: tuple[int, int]) -> tuple[str, ...]:
    entry = raw[place[0] : place[0] + place[1]].decode("utf-8")
    return tuple(" ".join(line.split()) for line in entry.split("\n\n")[0].splitlines())
