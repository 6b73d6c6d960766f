"""The page answers its question first, fetches nothing, runs nothing, and reads well at every width."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.web.facts import HOSTILE, make_facts
from tunesmith.core.words import duration
from tunesmith.web.charts import curve_chart, tick_step
from tunesmith.web.report import headline, report_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def html() -> str:
    return report_page(make_facts())


def test_the_verdict_comes_first(html: str) -> None:
    body = html[html.index("<body>") :]
    assert body.index("Passes 1 of 2 goals; 1 unproven.") < body.index("<table")
    assert "not enough evidence" in body[: body.index("<table")]


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (("pass", "pass"), "Passes all 2 goals."),
        (("pass",), "Passes its goal."),
        (("fail", "pass"), "Fails 1 of 2 goals."),
        (("unproven", "pass"), "Passes 1 of 2 goals; 1 unproven."),
        ((), "No goal is set."),
    ],
)
def test_the_headline_counts_goals(statuses: tuple[str, ...], words: str) -> None:
    assert headline({"goals": [{"status": s} for s in statuses]}) == words


def test_user_text_is_escaped(html: str) -> None:
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html


def test_nothing_is_fetched_or_executed(html: str) -> None:
    assert "<script" not in html
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "@import" not in html and "url(" not in html


def test_the_page_stays_small(html: str) -> None:
    assert len(html.encode()) < 60_000


def test_charts_say_their_numbers_in_words_and_tables(html: str) -> None:
    assert html.count('role="img"') == 3
    assert html.count("aria-label=") >= 3
    for number in ("0.690", "0.240", "0.770"):
        assert number in html


def test_a_report_without_training_curve_or_classes_is_still_whole() -> None:
    facts = make_facts(classes=0)
    facts["training"]["log"] = []
    facts["report"]["arms"]["tuned"].pop("per_class")
    page = report_page(facts)
    assert "What to do next" in page and "</html>" in page


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (0.41, 12.2, 370, 7500)] == ["0.4 s", "12 s", "6 min 10 s", "2 h 05 min"]


def test_ticks_are_round() -> None:
    assert [tick_step(s) for s in (1.0, 0.7, 182, 3.4)] == [0.2, 0.2, 50, 1]


def test_a_constant_curve_can_be_drawn() -> None:
    drawn = curve_chart(raw=[(1, 0.0), (2, 0.0)], validation=[], y_label="loss", best_step=None, title="t")
    assert "nan" not in drawn and "inf" not in drawn


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_with_enough_contrast(html: str, tmp_path: Path, width: int, scheme: str) -> None:
    """No sideways scrolling of the page; text against background at least 4.5 : 1."""
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "report.html"
    page_file.write_text(html, encoding="utf-8")
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url))
        page.goto(page_file.as_uri())
        assert page.title().startswith("coding <script>")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) >= 4.5
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert asked == [page_file.as_uri()]
        browser.close()


CONTRAST = """() => {
  const rgb = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const lum = c => { const [r, g, b] = rgb(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b };
  const ground = lum(getComputedStyle(document.body).backgroundColor);
  let worst = 99;
  for (const e of document.querySelectorAll('p,td,th,h1,h2,li,span,summary,text,a')) {
    if (!e.textContent.trim()) continue;
    const s = getComputedStyle(e);
    const l = lum(e.namespaceURI.includes('svg') ? s.fill : s.color);
    worst = Math.min(worst, (Math.max(l, ground) + .05) / (Math.min(l, ground) + .05));
  }
  return worst;
}"""
