"""The page of `data look` says what is wrong first, each with the key that decides it, and is whole without any section."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.web.facts import HOSTILE
from tests.web.test_report import CONTRAST
from tunesmith.web.look import concerns, headline, histogram, look_page, look_words

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make_facts(**changes: Any) -> dict[str, Any]:
    """Debian's package metadata, as counted from it, with hostile text in every place where a user's text stands."""
    member = {
        "file": "packages.tsv",
        "line": 812,
        "text": "library for handling page faults in user mode - development",
    }
    return {
        "folder": "exports",
        "files": [
            {"file": "packages.tsv", "format": "tsv", "rows": 63_440, "bytes": 31_457_280, "shape": "text_label",
             "why": "the header has text, label", "notes": ["columns are separated by tabs"]},
            {"file": f"mail/{HOSTILE}.eml", "format": "eml", "rows": 1, "bytes": 3_318, "shape": "text", "why": "", "notes": []},
        ],
        "unread": [{"file": "old.xls", "reason": "Excel of before 2007", "fix": "save it as .xlsx"}],
        "rows": 63_441, "kept": 63_120, "left_out": {"duplicate": 310, "no_text": 8, "unknown_label": 3},
        "left_out_samples": [{"file": "packages.tsv", "line": 77, "reason": "no_text", "detail": "text: is empty", "text": "", "step": "check"},
                             {"file": "packages.tsv", "line": 78, "reason": "unknown_label", "text": HOSTILE}],
        "columns": [{"name": "text", "filled": 0.9998, "distinct": 62_990, "examples": ["advanced text editor", HOSTILE]},
                    {"name": "label", "filled": 63_441, "distinct": 58, "examples": ["editors", "libs"]}],
        "languages": {"en": 63_300, "de": 141, "xx": 2},
        "lengths": {"characters": {"mean": 412.4, "p50": 320, "p95": 1_104, "max": 12_877},
                    "words": {"mean": 61.0, "p50": 47, "p95": 164, "max": 1_930},
                    "histogram": [[0, 5_200], [100, 14_100], [200, 16_400], [400, 18_300], [800, 7_600], [1600, 1_500], [3200, 300], [6400, 40]]},
        "classes": {"libs": 6_703, "libdevel": 6_290, "python": 5_450, "misc": 12, HOSTILE: 15},
        "duplicates": {"exact": 310, "near": {"threshold": 0.8, "clusters": 6_210, "rows": 21_480,
            "largest": [{"size": 214, "kept": "packages.tsv:812", "members": [member, member | {"line": 813, "text": HOSTILE}]}],
            "templates": [{"text": "This package contains the development files", "rows": 2_911}]}},
        "leaks": {"naive": {"test_rows": 6_344, "with_twin": 2_772, "share": 0.437,
                            "pairs": [{"a": member, "b": member | {"line": 9}, "similarity": 0.913}, {"a": "one text", "b": "its twin", "similarity": 0.8}]},
                  "proven": {"test_rows": 6_301, "with_twin": 0, "left_out": 118},
                  "contamination": [{"against": "forbidden.jsonl", "rows": 41}]},
        "risks": [{"kind": "email_address", "count": 2_304, "rows": [member], "severity": "high", "fix": "data: {audit: {pii: redact}}"},
                  {"kind": "prompt_injection", "count": 2, "rows": [member], "severity": "medium", "fix": ""},
                  {"kind": "special_token", "count": 0, "rows": [], "severity": "low", "fix": ""}],
        "next": ["tunesmith data clean", "tunesmith run"],
        "settings": "data:\n  files: [exports/]\n  dedup: {near: 0.8}\n", "seconds": 171.2,
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return look_page(make_facts())


def test_what_is_wrong_comes_first_with_the_key_that_decides_it(html: str) -> None:
    body = html[html.index("<body>") :]
    assert "63,441 rows, 4 things to decide." in body[: body.index("<ul")]
    assert "63,120 of 63,441 rows can be used, 321 cannot, each with its reason" in body
    todo = body[body.index('class="todo"') : body.index("Files that could not be read</h2>")]
    for what, fix in (
        ("1 file could not be read", "save it as .xlsx"),
        ("a random split would leak: 44% of its test rows have a twin in train", "data: {split: {near: 0.8}}"),
        ("41 rows also in forbidden.jsonl", "data: {dedup: {against: [forbidden.jsonl]}}"),
        ("2,304 rows: email address", "data: {audit: {pii: redact}}"),
        ("21,480 rows are near-copies in 6,210 clusters", "data: {dedup: {near: 0.8}}"),
        ("11 rows cannot be used: 8 no text, 3 unknown label", "tunesmith data removed --reason no_text"),
    ):
        assert todo.index(what) < todo.index(f"<code>{fix}</code>")
    assert "special" not in todo  # a risk of which there is none


def test_the_gravest_comes_first() -> None:
    assert [c.severity for c in concerns(make_facts())] == ["high"] * 4 + ["medium"] * 4


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"rows": 0}, "No row can be read here."),
        ({"rows": 5}, "5 rows, nothing to decide."),
        ({"rows": 5, "duplicates": {"exact": 1}}, "5 rows, nothing to decide, 1 thing to look at."),
        ({"rows": 5, "unread": [{"file": "a", "reason": "b"}]}, "5 rows, 1 thing to decide."),
    ],
)
def test_the_headline_counts_what_is_to_decide(facts: dict[str, Any], words: str) -> None:
    assert headline(facts, concerns(facts)) == words


SECTIONS = {
    "unread": "unread", "files": "files", "columns": "columns", "classes": "classes", "lengths": "lengths",
    "languages": "languages", "duplicates": "duplicates", "leaks": "leaks", "risks": "risks", "left_out": "left-out",
    "next": "next", "settings": "settings",
}  # fmt: skip


@pytest.mark.parametrize("missing", SECTIONS)
def test_a_section_that_the_facts_do_not_have_is_not_shown(html: str, missing: str) -> None:
    facts = make_facts()
    del facts[missing]
    assert f'<h2 id="{SECTIONS[missing]}">' in html
    page = look_page(facts)
    assert f'<h2 id="{SECTIONS[missing]}">' not in page and "</html>" in page
    assert look_words(facts)


def test_with_hardly_any_facts_the_page_is_still_whole() -> None:
    page = look_page({"folder": "x", "rows": 3})
    assert "3 rows, nothing to decide." in page and page.count("<section") == 1
    assert look_words({"folder": "x", "rows": 3}) == "3 rows, nothing to decide.\n0 files.\n\n"


def test_parts_of_a_section_may_be_missing_too() -> None:
    facts = make_facts(
        duplicates={"exact": 2}, leaks={"contamination": []}, lengths={"words": {"mean": 1, "p50": 1, "p95": 1, "max": 1}}
    )  # fmt: skip
    assert "2 rows the same as another" in look_page(facts)
    facts["duplicates"] = {"near": {"threshold": 0.7, "clusters": 0, "rows": 0}}
    facts["leaks"] = {"naive": {"test_rows": 0, "with_twin": 0, "share": 0.0}}
    assert "at a Jaccard similarity of 0.7" in look_page(facts)


def test_user_text_is_escaped_everywhere(html: str) -> None:
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") >= 5


def test_nothing_is_fetched_or_executed(html: str) -> None:
    assert "<script" not in html
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "@import" not in html and "url(" not in html


def test_the_page_stays_small_however_much_was_found() -> None:
    row = {"file": "f.csv", "line": 1, "text": "x" * 500}
    many = make_facts(
        files=make_facts()["files"] * 500,
        unread=make_facts()["unread"] * 300,
        classes={f"class {i}": i + 1 for i in range(3_000)},
        risks=[{"kind": "phone", "count": 999, "rows": [row] * 999, "severity": "high", "fix": "x"}] * 6,
    )
    page = look_page(many)
    assert len(page.encode()) < 120_000
    assert "and 2,960 more" in page and "and 960 more" in page and "and 991 more" in page


class Outline(HTMLParser):
    """What a screen reader goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.named: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.landmarks: list[str] = []
        self.open: list[str] = []
        self.bare_headers = self.unnamed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.ids += [has["id"] or ""] if "id" in has else []
        self.named += [has["aria-labelledby"] or ""] if "aria-labelledby" in has else []
        self.links += [(has["href"] or "")[1:]] if "href" in has else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.landmarks += [tag] if tag in ("header", "main", "footer") else []
        self.bare_headers += tag == "th" and "scope" not in has
        self.unnamed += (tag == "svg" or "tabindex" in has) and not has.get("aria-label")
        if tag not in ("meta", "link", "br", "hr", "line", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "circle"):
            assert self.open.pop() == tag


def test_its_structure_serves_a_screen_reader(html: str) -> None:
    seen = Outline()
    seen.feed(html)
    assert len(seen.ids) == len(set(seen.ids))
    assert set(seen.named) | set(seen.links) <= set(seen.ids)
    assert seen.headings == [1] + [2] * (len(seen.headings) - 1)
    assert seen.landmarks == ["header", "main", "footer"]
    assert not seen.open and not seen.bare_headers and not seen.unnamed
    assert '<html lang="en">' in html and 'name="viewport"' in html


def test_a_histogram_says_its_peak_and_draws_nothing_without_numbers() -> None:
    drawn = histogram([[0, 3], [10, 0], [20_000, 9]])
    assert "9 rows" in drawn and ">20k<" in drawn and drawn.count("<rect") == 3
    assert histogram([]) == "" and "nan" not in histogram([[0, 0]])


def test_the_terminal_says_the_same_in_a_screen_or_so() -> None:
    said = look_words(make_facts())
    assert said.startswith("63,441 rows, 4 things to decide.\n")
    for words in (
        "  packages.tsv: 63,440 rows, tsv, text_label",
        "  old.xls: not read: Excel of before 2007",
        "  languages: English 99.8%, German 0.2%, xx < 0.1%",
        "  5 classes: libs 6,703",
        "  decide  41 rows also in forbidden.jsonl\n          data: {dedup: {against: [forbidden.jsonl]}}",
        "Next\n  tunesmith data clean",
        "Looked at in 2 min 51 s.",
    ):
        assert words in said, words
    assert len(said.splitlines()) < 48


def test_a_name_cannot_speak_to_the_terminal() -> None:
    said = look_words(make_facts(classes={"\x1b[2Jgone": 3, "line\nbreak": 2}))
    assert "\x1b" not in said and "�[2Jgone 3, line�break 2" in said


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_it_fits_the_screen_with_enough_contrast_and_is_used_by_keyboard(html: str, tmp_path: Path) -> None:
    """At both widths, in both schemes: no sideways scrolling of the page; text against its ground at least 4.5 : 1."""
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "look.html"
    page_file.write_text(html, encoding="utf-8")
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        for width in (390, 1200):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
                asked: list[str] = []
                page.on("request", lambda r, asked=asked: asked.append(r.url))
                page.goto(page_file.as_uri())
                page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate(CONTRAST) >= 4.5
                page.keyboard.press("Tab")
                assert page.evaluate("document.activeElement.className") == "skip"
                page.keyboard.press("Enter")
                assert page.url.endswith("#decide")
                page.keyboard.press("Tab")
                assert page.evaluate("document.activeElement.getAttribute('href')").startswith("#")
                assert asked == [page_file.as_uri()]
                page.emulate_media(media="print", color_scheme=scheme)  # type: ignore[arg-type]
                assert page.evaluate(CONTRAST) >= 4.5  # dark ink on paper, whatever the screen shows
                page.close()
        browser.close()
