"""PDF: reading order, paragraphs across lines and pages, running heads, hyphens, headings, and what can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.documents.making import Placed, pdf, run_documents
from tunesmith.core.errors import DataError
from tunesmith.data.documents.blocks import Unreadable
from tunesmith.data.documents.pdf import read_pdf

BODY = "lines of prose about the matter at hand and more of it, so that most of the page is body text"


def column(left: float, top: float, lines: list[str], size: float = 10) -> list[Placed]:
    return [(left, top - 12 * i, size, line) for i, line in enumerate(lines)]


def wrapped(text: str, width: int = 60) -> list[str]:
    lines, now = [], ""
    for word in text.split():
        if len(now) + len(word) > width:
            lines.append(now.strip())
            now = ""
        now += f"{word} "
    return [*lines, now.strip()]


def test_lines_become_a_paragraph_and_gaps_part_them() -> None:
    page = [*column(72, 700, ["First line of", "a paragraph."]), *column(72, 640, ["Second one."])]
    assert [(b.kind, b.text, b.page) for b in read_pdf(pdf([page])).blocks] == [
        ("prose", "First line of a paragraph.", 1),
        ("prose", "Second one.", 1),
    ]


def test_columns_are_read_one_after_the_other_whatever_the_order_in_the_file() -> None:
    left = column(60, 600, [f"left column line number {i}" for i in range(8)])
    right = column(330, 600, [f"right column line number {i}" for i in range(8)])
    title: list[Placed] = [(60, 640, 10, "A line that goes over both of the columns, from the left side to the right")]
    mixed = [line for pair in zip(right, left, strict=True) for line in pair]
    text = " ".join(b.text for b in read_pdf(pdf([[*mixed, *title]])).blocks)
    said = [text.index(f"left column line number {i}") for i in range(8)]
    said += [text.index(f"right column line number {i}") for i in range(8)]
    assert text.startswith("A line that goes over both")
    assert said == sorted(said)


def test_cells_at_one_height_are_one_line_from_left_to_right() -> None:
    row: list[Placed] = [(300, 700, 10, "right cell"), (72, 700, 10, "left cell")]
    assert [b.text for b in read_pdf(pdf([row])).blocks] == ["left cell right cell"]


def test_rows_of_cells_are_a_table_and_a_bullet_far_from_its_text_is_not() -> None:
    rows: list[Placed] = [(72 + 150 * j, 700 - 12 * i, 10, f"cell {i}{j}") for i in range(3) for j in range(3)]
    bullets: list[Placed] = [(72 + 30 * j, 600 - 12 * i, 10, ("-", f"item {i}")[j]) for i in range(2) for j in range(2)]
    assert [(b.kind, b.text) for b in read_pdf(pdf([[*rows, *bullets]])).blocks] == [
        ("table", "cell 00 | cell 01 | cell 02"),
        ("table", "cell 10 | cell 11 | cell 12"),
        ("table", "cell 20 | cell 21 | cell 22"),
        ("list", "- item 0"),
        ("list", "- item 1"),
    ]


def test_a_hyphen_at_a_line_s_end_goes_unless_the_word_has_one() -> None:
    lines = ["the administrator said work-needing things to the admin-", "istrator, who is work-", "needing and happy"]
    (block,) = read_pdf(pdf([column(72, 700, lines)])).blocks
    assert block.text == (
        "the administrator said work-needing things to the administrator, who is work-needing and happy"
    )


def test_running_heads_and_page_numbers_go_and_are_counted(tmp_path: Path) -> None:
    pages = [
        [
            (72, 760, 8, "The Manual, Release 3" if n % 2 else "Chapter on things"),
            *column(72, 700, wrapped(f"Page {n} has its own {BODY}.")),
            (300, 30, 8, str(n)),
        ]
        for n in range(1, 9)
    ]
    read = run_documents(tmp_path, {"m.pdf": pdf(pages)})
    gone = {(g.reason, g.text): (g.count, g.detail) for g in read.left_out}
    assert gone == {
        ("running_head", "The Manual, Release 3"): (4, "on 4 pages, first on page 1"),
        ("running_head", "Chapter on things"): (4, "on 4 pages, first on page 2"),
        ("page_number", "1"): (8, "on 8 pages, first on page 1"),
    }
    assert not any("Release" in p.text for p in read.passages)
    assert sum(f"Page {n} has" in p.text for n in range(1, 9) for p in read.passages) == 8


def test_a_line_that_repeats_in_the_text_stays() -> None:
    pages = [column(72, 700 - 40 * n, ["Note well.", *wrapped(BODY * 3)]) for n in range(4)]
    assert sum(b.text.count("Note well.") for b in read_pdf(pdf(pages)).blocks) == 4


def test_a_paragraph_goes_on_over_the_page(tmp_path: Path) -> None:
    pages = [column(72, 100, ["It begins here and"]), column(72, 720, ["goes on there.", "", "New one."])]
    blocks = read_pdf(pdf(pages)).blocks
    assert blocks[0].text == "It begins here and goes on there."
    assert blocks[0].page == 1
    read = run_documents(tmp_path, {"m.pdf": pdf(pages)})
    assert read.passages[0].page == 1


def test_headings_by_size_and_number() -> None:
    page = [
        (72, 720, 18.0, "The Great Title"),
        *column(72, 690, wrapped(BODY * 2)),
        (72, 600, 14.0, "2.1 A Part"),
        *column(72, 580, wrapped(BODY * 2)),
    ]
    found = read_pdf(pdf([page]))
    assert [(b.text, b.level) for b in found.blocks if b.kind == "heading"] == [
        ("The Great Title", 1),
        ("2.1 A Part", 2),
    ]


def test_footnotes_do_not_break_a_paragraph() -> None:
    pages = [
        [*column(72, 700, [*wrapped(BODY * 4), "the sentence goes on"]), (72, 60, 7, "1 A note below.")],
        column(72, 700, ["on the next page. " + BODY]),
    ]
    said = [b.text for b in read_pdf(pdf(pages)).blocks]
    assert "the sentence goes on on the next page." in said[0]
    assert said[-1] == "1 A note below."


def test_contents_with_leading_dots_are_left_out() -> None:
    page = column(72, 700, ["1 First . . . . . . . . . 3", "2 Second . . . . . . . . . . 14", "Prose that stays here."])
    found = read_pdf(pdf([page]))
    assert [b.text for b in found.blocks] == ["Prose that stays here."]
    assert [(r.reason, r.detail) for r in found.removed] == [("contents", "2 lines")]


def test_empty_pages_say_so(tmp_path: Path) -> None:
    read = run_documents(tmp_path, {"m.pdf": pdf([column(72, 700, ["Some words here."]), []])})
    assert [(g.reason, g.page) for g in read.left_out] == [("blank_page", 2)]


def test_a_page_that_is_a_picture_is_left_out_as_one(tmp_path: Path) -> None:
    pdfium = pytest.importorskip("pypdfium2")
    document = pdfium.PdfDocument.new()
    page = document.new_page(200, 200)
    picture = pdfium.PdfImage.new(document)
    bitmap = pdfium.PdfBitmap.new_native(4, 4, pdfium.raw.FPDFBitmap_BGR)
    bitmap.fill_rect((255, 0, 0, 255), 0, 0, 4, 4)
    picture.set_bitmap(bitmap)
    picture.set_matrix(pdfium.PdfMatrix().scale(150, 150))
    page.insert_obj(picture)
    page.gen_content()
    document.save(tmp_path / "scan.pdf")
    files: dict[str, bytes | str] = {"scan.pdf": (tmp_path / "scan.pdf").read_bytes(), "a.txt": "Some words here."}
    read = run_documents(tmp_path, files)
    assert [(g.file, g.reason, g.page) for g in read.left_out] == [("scan.pdf", "image_only_page", 1)]
    with pytest.raises(DataError, match="OCRmyPDF"):
        run_documents(tmp_path / "only", {"scan.pdf": files["scan.pdf"]})


@pytest.mark.parametrize(
    ("data", "reason"),
    [(pdf([column(72, 700, ["secret"])], encrypted=True), "encrypted"), (b"%PDF-1.4\nnothing", "broken")],
)
def test_encrypted_and_broken_files(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as e:
        read_pdf(data)
    assert e.value.reason == reason


def test_letters_beyond_ascii_and_the_title() -> None:
    found = read_pdf(pdf([column(72, 700, ["Grüße (an) die Häuser \\ 50 €"])], title="My Title"))
    assert found.title == "My Title"
    assert found.blocks[0].text == "Grüße (an) die Häuser \\ 50 €"
