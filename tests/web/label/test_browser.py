"""The page as people use it, in a real browser: by key and by thumb, two at once, reloaded, undone, cut off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.web.label.conftest import CHROMIUM, Live, Serve
from tests.web.label.example import LABELS
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


CONTRAST = """() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = rgb(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; } return 'rgb(255,255,255)' };
  let worst = 99;
  for (const e of document.querySelectorAll('p,td,th,h1,h2,li,span,summary,a,kbd,b,em,mark,button,label,legend,caption,textarea')) {
    if (!e.textContent.trim() || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    worst = Math.min(worst, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return worst;
}"""


@pytest.fixture
def open_page(browser: Any) -> Any:
    """open_page(address, **context): a person's own browser window; whatever it complains of fails the test."""
    contexts, complaints = [], []

    def open_one(address: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 850}, **options)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def item(page: Any) -> str:
    return page.evaluate("() => document.querySelector('form.judge')?.dataset.item")


def saved(page: Any) -> None:
    page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'")


def press(page: Any, key: str) -> None:
    """A key, and wait until another item (or none) is on the screen."""
    page.wait_for_function("() => document.getElementById('moment').hidden", polling=10)
    before = item(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('form.judge')?.dataset.item !== before", arg=before, polling=10
    )


def test_fifty_labels_by_keyboard_with_a_reload_in_the_middle(serve: Serve, open_page: Any) -> None:
    live = serve()
    page = open_page(live.base)
    wanted = []
    for n in range(50):
        if n == 25:
            page.reload()  # whatever had not reached the server yet is sent again
            page.wait_for_selector("form.judge:visible")
        wanted.append(("olga", f"ticket{n:05d}", "label", LABELS[n % 6]))
        page.wait_for_selector("form.judge")  # typing may be faster than this machine
        assert item(page) == wanted[-1][1]
        press(page, str(n % 6 + 1))
    saved(page)
    assert live.said() == wanted
    assert page.inner_text("#given") == "50" and page.inner_text("#mine") == "50"
    assert page.evaluate("localStorage.length") == 0
    assert page.title().startswith("10 left")
    seconds = [j["seconds"] for j in live.judgments.list()]
    assert all(0 < s < 60 for s in seconds)


def test_two_people_disagree_blind_and_the_owner_decides(serve: Serve, open_page: Any) -> None:
    live = serve(n=12, overlap=1.0)
    ann, ben = open_page(live.link("ann")), open_page(live.link("ben"))
    for page, name in ((ann, "ann"), (ben, "ben")):
        page.wait_for_url(f"{live.base}/q/labels")
        assert page.inner_text(".me") == name and "#" not in page.url
        assert "disagreements" not in page.inner_text("nav") and "overview" not in page.inner_text("nav")
    for n in range(12):  # at the same time, turn by turn
        press(ann, "1")
        assert "billing" not in ben.inner_text("#item").replace("1\nbilling", "").replace("billing\n", "", 1)
        press(ben, "2" if n in (3, 7) else "1")
    assert "Thank you" in ann.inner_text("#done") and "Thank you" in ben.inner_text("#done")
    saved(ann), saved(ben)
    owner = open_page(f"{live.base}/q/labels/disputes")
    assert owner.inner_text("#disputes") == "2"
    assert owner.eval_on_selector_all("button.voted em", "e => e.map(x => x.textContent)") == ["ann", "ben"]
    first = item(owner)
    press(owner, "s")  # later: the other one first
    press(owner, "2")
    assert item(owner) == first
    press(owner, "1")
    saved(owner)
    assert "No disagreement" in owner.inner_text("#done") and owner.inner_text("#disputes") == "0"
    rulings = [(i, v) for a, i, verb, v in live.said() if verb == "adjudicate"]
    assert rulings == [("ticket00007", "delivery"), ("ticket00003", "billing")]
    owner.goto(f"{live.base}/overview")
    text = owner.inner_text("main")
    assert "Agreement on 12 items" in text and "0.83" in text and "2 adjudicated" in text and "12 of 12 items" in text


def test_two_people_at_once_share_the_work_without_meeting(serve: Serve, open_page: Any) -> None:
    live = serve(n=20)
    pages = {"ann": open_page(live.link("ann")), "ben": open_page(live.link("ben"))}
    for page in pages.values():
        page.wait_for_url(f"{live.base}/q/labels")
    for _ in range(9):
        for page in pages.values():
            press(page, "3")
    for page in pages.values():
        while page.query_selector("form.judge"):
            press(page, "3")
        saved(page)
    said = live.said()
    assert sorted(i for _, i, _, _ in said) == [f"ticket{n:05d}" for n in range(20)]
    assert {a for a, _, _, _ in said} == {"ann", "ben"}


def test_undo_goes_back_as_far_as_one_likes_also_after_a_reload(serve: Serve, open_page: Any) -> None:
    live = serve()
    page = open_page(live.base)
    for key in "123":
        press(page, key)
    for n in (2, 1):
        press(page, "u")
        assert item(page) == f"ticket{n:05d}"
    saved(page)
    page.reload()
    page.wait_for_selector("#undo:visible")
    press(page, "u")
    assert item(page) == "ticket00000"
    saved(page)
    assert page.is_hidden("#undo")
    press(page, "6")
    saved(page)
    standing = {}
    for _, what, verb, value in live.said():
        standing[what] = value if verb == "label" else None
    assert standing == {"ticket00000": "praise", "ticket00001": None, "ticket00002": None}
    assert page.inner_text("#mine") == "1"


def test_a_skip_says_why_and_the_item_goes_to_somebody_else(serve: Serve, open_page: Any) -> None:
    live = serve(n=2)
    ann = open_page(live.link("ann"))
    ann.wait_for_url(f"{live.base}/q/labels")
    ann.keyboard.press("s")
    press(ann, "2")
    ann.wait_for_selector("form.judge")  # a moment may pass without an item
    ann.keyboard.press("s")
    ann.fill("[name=reason_text]", "two topics at once")
    press(ann, "Enter")
    saved(ann)
    assert [j["reason"] for j in live.judgments.list()] == ["no label fits", "two topics at once"]
    assert {v for _, _, v, _ in live.said()} == {"skip"}
    owner = open_page(live.base)
    assert item(owner) == "ticket00000"
    owner.goto(f"{live.base}/overview")
    assert "2 skipped and still open" in owner.inner_text("#live")
    owner.click("summary")
    assert "ann: two topics at once" in owner.inner_text("#live")


def test_pairs_are_approved_rejected_and_edited_beside_their_passage(serve: Serve, open_page: Any) -> None:
    live = serve(pairs_n=4)
    page = open_page(f"{live.base}/q/pairs")
    assert "dpkg fails for any reason" in page.inner_text(".passage mark:nth-of-type(2)")
    assert "page 41 · Best practices" in page.inner_text(".passage .place")
    press(page, "a")
    press(page, "r")
    page.keyboard.press("e")
    page.fill("[name=completion]", "So that dpkg can run them again.")
    press(page, "Control+Enter")
    page.keyboard.press("e")
    page.keyboard.press("Escape")
    press(page, "a")
    saved(page)
    said = live.said("pairs")
    assert [v for _, _, v, _ in said] == ["approve", "reject", "correct", "approve"]
    assert said[2][3] == {
        "prompt": "Why must maintainer scripts be idempotent? (2)",
        "completion": "So that dpkg can run them again.",
    }


def test_people_disagree_on_pairs_and_the_owner_takes_one_correction(serve: Serve, open_page: Any) -> None:
    live = serve(pairs_n=3, pairs_overlap=1.0)
    fixed = {"prompt": "Why?", "completion": "So that dpkg can run them again."}
    for n, (a, b) in enumerate([("approve", "correct"), ("approve", "reject"), ("reject", "approve")]):
        for who, verb in (("ann", a), ("ben", b)):
            said = {"id": f"{who}said{n}", "queue": "pairs", "item": f"pair{n:04d}", "verb": verb}
            live.room.judge(who, said | {"value": fixed if verb == "correct" else None})
    page = open_page(f"{live.base}/q/pairs/disputes")
    assert "ann approved it" in page.inner_text(".votes") and fixed["completion"] in page.inner_text(".votes")
    before = item(page)
    page.click("text=Take ben")
    page.wait_for_function("b => document.querySelector('form.judge').dataset.item !== b", arg=before)
    press(page, "r")
    page.keyboard.press("e")
    page.fill("[name=completion]", "Short.")
    press(page, "Control+Enter")
    press(page, "u")
    press(page, "a")
    saved(page)
    rulings = [v for _, _, verb, v in live.said("pairs") if verb == "adjudicate"]
    assert rulings[0] == {"verb": "correct", **fixed} and rulings[1] == {"verb": "reject"}
    assert rulings[2]["completion"] == "Short." and rulings[3] == {"verb": "approve"}
    assert "No disagreement" in page.inner_text("#done")


def test_a_doubted_label_is_kept_or_corrected(serve: Serve, open_page: Any) -> None:
    live = serve()
    page = open_page(f"{live.base}/q/doubts")
    assert "Its label is delivery; a model that never saw it says billing" in page.inner_text(".doubt")
    press(page, "a")  # what the model says
    press(page, "3")  # what it has
    saved(page)
    assert [(verb, value) for _, _, verb, value in live.said("doubts")] == [
        ("correct", "billing"),
        ("label", "account"),
    ]


def test_a_hundred_labels_are_searched(serve: Serve, open_page: Any) -> None:
    live = serve(labels=tuple(f"code {n:03d} of the catalogue" for n in range(100)) + LABELS)
    page = open_page(live.base)
    page.keyboard.press("/")
    page.keyboard.type("cat 042")
    assert page.locator(".labels button:visible").count() == 1
    press(page, "Enter")
    saved(page)
    assert live.said()[0][3] == "code 042 of the catalogue"


def test_a_phone_has_buttons_for_a_thumb_and_nothing_runs_off_the_side(serve: Serve, open_page: Any) -> None:
    live = serve(overlap=1.0)
    page = open_page(live.base, is_mobile=True, has_touch=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(live.base)
    sizes = page.eval_on_selector_all(
        ".labels button, summary",
        "e => e.map(b => [b.getBoundingClientRect().width, b.getBoundingClientRect().height])",
    )
    assert len(sizes) == 7 and all(w >= 48 and h >= 48 for w, h in sizes)
    before = item(page)
    page.tap(".labels button >> nth=1")
    page.wait_for_function("b => document.querySelector('form.judge').dataset.item !== b", arg=before)
    page.tap("#undo")
    page.wait_for_function("b => document.querySelector('form.judge').dataset.item === b", arg=before)
    saved(page)
    assert [v for _, _, v, _ in live.said()] == ["label", "undo"]
    for path in ("/q/labels", "/q/pairs", "/q/doubts", "/q/labels/disputes", "/overview", "/join"):
        page.goto(live.base + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes_and_nothing_is_fetched_elsewhere(
    serve: Serve, open_page: Any, scheme: str
) -> None:
    live = serve()
    page = open_page(live.base, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    for path in ("/q/labels", "/q/pairs", "/q/doubts", "/overview", "/join"):
        page.goto(live.base + path)
        assert page.evaluate(CONTRAST) >= 4.5, path
    assert asked and all(u.startswith((live.base, "data:")) for u in asked)


def test_hostile_text_is_shown_and_never_run(serve: Serve, open_page: Any) -> None:
    text = '</p><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
    page = open_page(serve(hostile=text).base)
    saved(page)  # also the item that the script put there
    page.evaluate("show()")
    assert "owned" not in page.title() and page.inner_text("#item .text") == text
    assert page.query_selector("#item img, #item script") is None


def test_without_a_connection_judgments_wait_in_the_browser_and_count_once(serve: Serve, open_page: Any) -> None:
    live = serve()
    page = open_page(live.base)
    saved(page)
    lost: list[str] = []

    def keep_but_lose_the_answer(route: Any) -> None:
        route.fetch()  # the server keeps it, the browser never hears of it
        lost.append(route.request.post_data)
        route.abort()

    page.route("**/api/judge", keep_but_lose_the_answer)
    press(page, "1")
    press(page, "2")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('2 waiting in this browser')")
    page.wait_for_timeout(50)
    page.unroute("**/api/judge")
    page.reload()  # the two still wait
    page.wait_for_selector("form.judge:visible")
    saved(page)
    press(page, "3")
    saved(page)
    assert len(lost) >= 1 and json.loads(lost[0])["value"] == "billing"
    assert [v for _, _, _, v in live.said()] == ["billing", "delivery", "account"]
    assert page.evaluate("localStorage.length") == 0


def test_a_refused_judgment_is_said_and_the_page_shows_how_things_are(serve: Serve, open_page: Any) -> None:
    live = serve()
    page = open_page(live.base)
    saved(page)
    other = live.room.ask("olga", "labels")["items"][0]["id"]  # the same person in another tab
    live.room.judge("olga", {"id": "othertab1", "queue": "labels", "item": other, "verb": "label", "value": "praise"})
    press(page, "1")
    page.wait_for_selector("#problem:visible")
    assert "you have judged this item already" in page.inner_text("#problem")
    saved(page)
    press(page, "2")
    saved(page)
    assert [v for _, _, _, v in live.said()] == ["praise", "delivery"]


def test_the_owner_hands_out_links_and_a_new_one_ends_the_old(serve: Serve, open_page: Any) -> None:
    live = serve()
    owner = open_page(f"{live.base}/overview")
    links = []
    for _ in range(2):
        owner.fill("form.row [name=name]", "ann")
        owner.click("form.row button")
        links.append(owner.input_value("#link"))
    assert re.fullmatch(rf"{re.escape(live.base)}/join#[\w-]{{43}}", links[1]) and links[0] != links[1]
    old, new = open_page(links[0]), open_page(links[1])
    old.wait_for_function("() => document.getElementById('status').textContent.includes('opens nothing')")
    new.wait_for_url(f"{live.base}/q/labels")
    assert new.inner_text(".me") == "ann"
    assert new.evaluate("document.cookie") == ""  # scripts can't read it
    pasted = open_page(f"{live.base}/join")
    pasted.fill("#link", links[1])
    pasted.click("button.go")
    pasted.wait_for_url(f"{live.base}/q/labels")


def test_without_scripts_everything_still_works(serve: Serve, open_page: Any) -> None:
    live = serve(n=3, pairs_n=2)
    page = open_page(live.base, java_script_enabled=False)
    page.click("button[value=delivery]")
    page.click("summary")
    page.check("[value='no label fits']")
    page.press("[name=reason_text]", "Enter")  # skips, and does not press the first label
    page.click("#undo")
    page.click("button[value=praise]")
    page.goto(f"{live.base}/q/pairs")
    page.click("button[name=approve]")
    page.click(".edit summary")
    page.fill("[name=completion]", "Short.")
    page.click("[name=correct]")
    assert "Thank you" in page.inner_text("#done")
    assert [(v, w) for _, _, v, w in live.said() if v != "undo"] == [
        ("label", "delivery"),
        ("skip", None),
        ("label", "praise"),
    ]
    assert [(v, w) for _, _, v, w in live.said("pairs")] == [
        ("approve", None), ("correct", {"prompt": "Why must maintainer scripts be idempotent? (1)", "completion": "Short."})
    ]  # fmt: skip


SERVER = """
import sys
from pathlib import Path
from tests.web.label.example import example_room
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger
from tunesmith.web.label.server import serve_labels
room = example_room(Judgments(Ledger.open(Path(sys.argv[1]))), n=400)
serve_labels(room, host="127.0.0.1", port=int(sys.argv[2]), me="olga", say=lambda text: print(text, flush=True))
"""


def start_server(state: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(state), str(port)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert found
    return process, found[0].rstrip("/")


def stop_server(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def test_a_server_killed_in_the_middle_loses_no_acknowledged_judgment(tmp_path: Path, open_page: Any) -> None:
    """kill -9 while somebody labels; they go on typing, the server comes back, and everything is there once."""
    process, base = start_server(tmp_path, 0)
    page = open_page(base)
    typed = 0
    for kill in range(2):
        for _ in range(4):
            press(page, "123456"[typed % 6])
            typed += 1
        page.wait_for_selector("form.judge")  # the next item is here; what was typed may still be on its way
        acknowledged = page.inner_text("#mine")
        stop_server(process, signal.SIGKILL)
        press(page, "123456"[typed % 6])  # nobody is there to take it: it waits
        typed += 1
        process, _ = start_server(tmp_path, int(base.rpartition(":")[2]))
        page.evaluate("flush()")
        page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'", timeout=20_000)
        assert int(acknowledged) <= int(page.inner_text("#mine")) == typed
        if kill == 0:
            page.reload()
            page.wait_for_selector("form.judge:visible")
    stop_server(process, signal.SIGTERM)
    assert process.returncode == 0
    with Ledger.open(tmp_path) as ledger:
        said = [(j["item"], j["value"]) for j in Judgments(ledger).list()]
        assert said == [(f"ticket{n:05d}", LABELS[n % 6]) for n in range(typed)]
        assert doctor(ledger).is_clean


def test_the_tab_of_a_revoked_link_says_so_and_keeps_what_was_typed(serve: Serve, open_page: Any) -> None:
    live: Live = serve()
    page = open_page(live.link("ann"))
    page.wait_for_url(f"{live.base}/q/labels")
    saved(page)
    live.room.invite("ann")
    press(page, "1")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('no longer works')")
    assert live.said() == [] and page.evaluate("localStorage.length") == 1
    assert json.loads(urllib.request.urlopen(f"{live.base}/health").read()) == {"status": "ok"}
