"""DOCX: styles, lists, tables, tracked changes, content controls, and what stands beside the text."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tests.data.documents.making import run_documents
from tunesmith.data.documents.blocks import Unreadable
from tunesmith.data.documents.word import read_docx

docx = pytest.importorskip("docx")
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def made(fill: object = None) -> bytes:
    document = docx.Document()
    document.core_properties.title = "The Doc"
    document.add_heading("The Doc", 0)
    document.add_paragraph("An introduction of some words.")
    document.add_heading("First part", 1)
    document.add_heading("Inside", 2)
    document.add_paragraph("one", style="List Bullet")
    document.add_paragraph("two", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for i, row in enumerate(table.rows):
        for j, cell in enumerate(row.cells):
            cell.text = f"cell {i}{j}"
    if callable(fill):
        fill(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_styles_decide() -> None:
    found = read_docx(made())
    assert found.title == "The Doc"
    assert [(b.kind, b.level, b.text, b.joins) for b in found.blocks] == [
        ("heading", 1, "The Doc", False),
        ("prose", 0, "An introduction of some words.", False),
        ("heading", 1, "First part", False),
        ("heading", 2, "Inside", False),
        ("list", 0, "- one", False),
        ("list", 0, "- two", True),
        ("table", 0, "cell 00 | cell 01", False),
        ("table", 0, "cell 10 | cell 11", True),
    ]


def test_a_style_based_on_a_heading_is_one() -> None:
    def fill(document: object) -> None:
        style = document.styles.add_style("Kapitel", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)  # type: ignore[attr-defined]
        style.base_style = document.styles["Heading 3"]  # type: ignore[attr-defined]
        document.add_paragraph("Own heading", style="Kapitel")  # type: ignore[attr-defined]

    assert read_docx(made(fill)).blocks[-1].level == 3


def test_insertions_and_content_controls_are_read_and_deletions_recorded() -> None:
    from docx.oxml import parse_xml

    def fill(document: object) -> None:
        body = document.element.body  # type: ignore[attr-defined]
        for xml in (
            f'<w:p {W}><w:r><w:t xml:space="preserve">kept </w:t></w:r><w:ins w:id="1" w:author="a"><w:r>'
            '<w:t>inserted</w:t></w:r></w:ins><w:del w:id="2" w:author="a"><w:r><w:delText>deleted</w:delText></w:r>'
            "</w:del></w:p>",
            f"<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>in a control</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        ):
            body.insert(len(body) - 1, parse_xml(xml))

    found = read_docx(made(fill))
    assert [b.text for b in found.blocks[-2:]] == ["kept inserted", "in a control"]
    assert [(r.reason, r.text) for r in found.removed] == [("deleted", "deleted")]


def test_headers_and_footers_are_recorded_and_not_in_the_text(tmp_path: Path) -> None:
    def fill(document: object) -> None:
        section = document.sections[0]  # type: ignore[attr-defined]
        section.header.paragraphs[0].text = "Company confidential"
        section.footer.paragraphs[0].text = "Page x"

    read = run_documents(tmp_path, {"a.docx": made(fill)}, min_words=1)
    assert [(g.reason, g.text) for g in read.left_out] == [("footer", "Page x"), ("header", "Company confidential")]
    assert read.passages[0].heading == ("The Doc",)
    assert read.passages[-1].heading == ("First part", "Inside")


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("word/document.xml", b"\0" * (1 << 20))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\xd0\xcf\x11\xe0rest", "encrypted"), (b"PK nothing", "broken"), (bomb(), "broken")],
)
def test_what_is_no_docx(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as e:
        read_docx(data)
    assert e.value.reason == reason


def test_a_zip_bomb_is_refused_unpacked_size_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.documents.word.LIMIT", 1 << 16)
    with pytest.raises(Unreadable) as e:
        read_docx(bomb())
    assert e.value.reason == "too_large"
