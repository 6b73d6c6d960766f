"""The stage documents: what is refused, what is left out, and that nothing but content decides the result."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import pytest

from tests.data.documents.making import documents_spec, pdf, run_documents, source
from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError, Stopped
from tunesmith.core.stage import Workspace
from tunesmith.data.documents import sources
from tunesmith.data.documents.corpus import corpus
from tunesmith.data.documents.documents import documents
from tunesmith.data.documents.stages import CorpusInputs, CorpusSpec, DocumentsInputs

FILES: dict[str, bytes | str] = {
    "a/guide.md": "# Guide\n\nHow to use the thing, in short.\n\n## Why?\n\nBecause.\n\n## Odd\n\ntoo short\n",
    "b.html": "<html><body><nav>menu</nav><h1>Page</h1><p>Some words on the page.</p></body></html>",
    "c.txt.gz": gzip.compress(b"Packed words that are read as well.\n"),
    "d.pdf": pdf([[(72, 700, 10, "Words in a PDF file."), (72, 60, 10, "A second paragraph here.")]]),
    "e.tsv": "RAM\twhat forgets\n",
}


def test_every_format_at_once_and_every_character_accounted_for(tmp_path: Path) -> None:
    read = run_documents(tmp_path, FILES)
    read.account_for_every_character()
    assert [(p.file, p.kind, p.page) for p in read.passages] == [
        ("a/guide.md", "prose", None),
        ("a/guide.md", "faq", None),
        ("b.html", "prose", None),
        ("c.txt.gz", "prose", None),
        ("d.pdf", "prose", 1),
        ("e.tsv", "glossary", None),
    ]
    assert read.reasons() == {"navigation": 1, "short": 1}
    assert read.facts["passages"] == 6
    assert [d["format"] for d in read.facts["documents"]] == ["markdown", "html", "text", "pdf", "glossary"]


def test_the_order_of_files_on_disk_and_a_second_run_change_nothing(tmp_path: Path) -> None:
    first = run_documents(tmp_path / "1", FILES)
    second = run_documents(tmp_path / "2", dict(reversed(FILES.items())))
    assert first.bytes() == second.bytes()


def test_a_further_file_changes_no_other_file_s_ids(tmp_path: Path) -> None:
    before = {p.id for p in run_documents(tmp_path / "1", FILES).passages}
    after = {p.id for p in run_documents(tmp_path / "2", {"0.txt": "A further file.", **FILES}).passages}
    assert before < after


def test_a_restored_passage_is_back(tmp_path: Path) -> None:
    gone = next(g for g in run_documents(tmp_path / "1", FILES).left_out if g.reason == "short")
    read = run_documents(tmp_path / "2", FILES, restored=(gone.key,))
    assert "too short" in read.said
    assert read.facts["restored"] == [gone.key]
    assert "short" not in read.reasons()
    read.account_for_every_character()


def test_kinds_not_asked_for_are_left_out_with_that_reason(tmp_path: Path) -> None:
    read = run_documents(tmp_path, FILES, kinds=("glossary",))
    assert {p.kind for p in read.passages} == {"glossary"}
    assert read.reasons()["kind"] == 6
    read.account_for_every_character()


BAD: dict[str, bytes | str] = {
    "bad.bin": b"\x00\x01",
    "bad.docx": b"PK nothing",
    "bad.pdf": b"%PDF-1.4 nothing",
    "bad.txt": b"caf\xe9",
    "empty.md": b" \n",
    "locked.pdf": pdf([[(72, 700, 10, "x")]], encrypted=True),
    "nul.txt": b"a\0b",
    "torn.txt.gz": gzip.compress(b"words " * 1000)[:40],
    "really.txt": pdf([[(72, 700, 10, "x")]]),
}
REASONS = {
    "bad.bin": "unknown_format",
    "bad.docx": "broken",
    "bad.pdf": "broken",
    "bad.txt": "encoding",
    "empty.md": "empty",
    "locked.pdf": "encrypted",
    "nul.txt": "not_text",
    "torn.txt.gz": "broken",
    "really.txt": "mislabelled",
}


def test_every_bad_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as e:
        run_documents(tmp_path, {**BAD, "good.txt": "Some good words."})
    assert {p.where for p in e.value.problems} == set(BAD)
    assert all(p.what and p.fix for p in e.value.problems)


def test_bad_files_can_be_left_out_with_their_reasons(tmp_path: Path) -> None:
    read = run_documents(tmp_path, {**BAD, "good.txt": "Some good words."}, bad_files="leave_out")
    assert {g.file: g.reason for g in read.left_out} == REASONS
    assert read.said == ["Some good words."]
    read.account_for_every_character()


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no document is named"):
        run_documents(tmp_path / "1", {})
    with pytest.raises(DataError, match="no passage"):
        run_documents(tmp_path / "2", {"a.md": "# Only a heading\n"})


def test_a_layout_for_no_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\*\.dict' matches no text file"):
        run_documents(tmp_path, FILES, layouts=(("*.dict", "foldoc"),))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    assert run_documents(tmp_path, {"a.txt": "Grüße an alle.".encode(encoding)}).said == ["Grüße an alle."]


def test_a_document_without_text_says_so(tmp_path: Path) -> None:
    read = run_documents(tmp_path, {"a.html": "<html><body><p> </p></body></html>", "b.txt": "Some good words."})
    assert [(g.file, g.reason) for g in read.left_out] == [("a.html", "no_text")]


def test_a_gzip_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LIMIT", 10_000)
    with pytest.raises(DataError, match="unpacked"):
        run_documents(tmp_path, {"a.txt.gz": gzip.compress(b"0" * 1_000_000)})


def test_an_index_beside_a_dictionary_is_no_bad_file(tmp_path: Path) -> None:
    read = run_documents(tmp_path, {"x.dict": "Term\n\n   Its definition.\n", "x.index": "term\tA\tB\n"})
    assert read.reasons() == {"index": 1}


def test_it_stops_when_asked(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    inputs = DocumentsInputs(source=source(tmp_path / "source", FILES))
    with pytest.raises(Stopped):
        documents(documents_spec(), inputs, Workspace(root=tmp_path / "work", stop=stop))


def test_a_corpus_has_texts_groups_and_sources(tmp_path: Path) -> None:
    read = run_documents(tmp_path, FILES)
    spec = CorpusSpec(kinds=("prose", "faq"), headings=True, group="heading")
    out = corpus(spec, CorpusInputs(passages=read.folder), Workspace(root=tmp_path / "c"))
    rows = list(read_lines(out.made / "corpus.jsonl"))
    assert [(r["text"], r["group"]) for r in rows[:3]] == [
        ("Guide\n\nHow to use the thing, in short.", "a/guide.md#Guide"),
        ("Guide > Why?\n\nBecause.", "a/guide.md#Guide"),
        ("Page\n\nSome words on the page.", "b.html#Page"),
    ]
    assert rows[0]["source"] == {
        "passage": read.passages[0].id,
        "file": "a/guide.md",
        "page": None,
        "heading": ["Guide"],
    }
    with pytest.raises(DataError, match="no passage is of kind table"):
        spec = CorpusSpec(kinds=("table",), headings=False, group="document")
        corpus(spec, CorpusInputs(passages=read.folder), Workspace(root=tmp_path / "d"))


def test_check_reads_a_corpus(tmp_path: Path) -> None:
    from tests.data.making import check_spec
    from tunesmith.data.check import check
    from tunesmith.data.stages import CheckInputs

    read = run_documents(tmp_path, FILES)
    spec = CorpusSpec(kinds=(), headings=True, group="document")
    made = corpus(spec, CorpusInputs(passages=read.folder), Workspace(root=tmp_path / "c")).made
    (made / "corpus.json").unlink()  # facts, which are not read as rows
    out = check(check_spec(kind="domain", group="group"), CheckInputs(source=made), Workspace(root=tmp_path / "k"))
    assert len(list(read_lines(out.examples / "rows.jsonl"))) == 6
