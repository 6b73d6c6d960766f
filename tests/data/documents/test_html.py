"""HTML: headings kept, lists and tables readable, navigation recorded, nothing else lost."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.data.documents.making import run_documents
from tunesmith.data.documents.html import read_html

PAGE = b"""<!DOCTYPE html><html><head><title>Site - Page</title><style>p{}</style></head><body>
<nav>Home <a href="/">Start</a></nav>
<h1>The   Page</h1><p>First<br>line with <b>bold</b>text&nbsp;and <code>code</code>.<script>evil()</script></p>
loose words
<h2 id="x">Part one<a class="headerlink" href="#x">\xc2\xb6</a></h2>
<ul><li>one</li><li><p>two</p><p>more of two</p></li><li>three<ul><li>inner</li></ul></li></ul>
<ol><li>first</li><li>second</li></ol>
<table><tr><th>Name</th><th>Use</th></tr><tr><td>a</td><td>b c</td></tr></table>
<pre>  if x:
      go()
</pre>
<dl class="glossary"><dt>RAM</dt><dd>What forgets.</dd></dl>
<dl><dt>Freedom:</dt><dd><p>All of it.</p></dd></dl>
<div class="footer">(c) us</div><!-- note --></body></html>"""


def test_a_page_becomes_blocks_in_order() -> None:
    found = read_html(PAGE)
    assert found.title == "The Page"
    assert [(b.kind, b.text) for b in found.blocks] == [
        ("heading", "The Page"),
        ("prose", "First line with boldtext and code."),
        ("prose", "loose words"),
        ("heading", "Part one"),
        ("list", "- one"),
        ("list", "- two"),
        ("prose", "more of two"),
        ("list", "- three"),
        ("list", "- inner"),
        ("list", "1. first"),
        ("list", "2. second"),
        ("table", "Name | Use"),
        ("table", "a | b c"),
        ("code", "if x:\n    go()"),
        ("glossary", "What forgets."),
        ("list", "Freedom: All of it."),
    ]
    assert [(r.reason, r.text) for r in found.removed] == [
        ("navigation", "Home Start"),
        ("navigation", "(c) us"),
    ]


def test_docbook_headings_are_kept() -> None:
    page = (
        '<html><body><div class="titlepage"><div><h2 class="title"><a id="q"></a>1.1. What is it?</h2></div></div>'
        '<p>A tool.</p><div class="toc"><dl class="toc"><dt>1.1. What is it?</dt></dl></div></body></html>'
    )
    found = read_html(page.encode())
    assert [(b.kind, b.text) for b in found.blocks] == [("heading", "1.1. What is it?"), ("prose", "A tool.")]
    assert [r.reason for r in found.removed] == ["navigation"]


tags = st.sampled_from(["p", "div", "b", "li", "ul", "td", "table", "tr", "dl", "dt", "dd", "span", "h2", "pre", "ol"])
trees = st.recursive(
    st.integers(0, 999).map(lambda i: f" w{i} "),
    lambda inner: st.tuples(tags, st.lists(inner, max_size=4)).map(lambda t: f"<{t[0]}>{''.join(t[1])}</{t[0]}>"),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@example(parts=["<table><td> w0 </td></table>"])
@given(parts=st.lists(trees, min_size=1, max_size=4))
def test_no_word_of_any_tree_is_lost_or_doubled(parts: list[str]) -> None:
    page = f"<html><body>{''.join(parts)}</body></html>"
    found = read_html(page.encode())
    read = " ".join([*(b.text for b in found.blocks), *(t for b in found.blocks for t in b.terms)])
    assert sorted(re.findall(r"\bw\d+\b", read)) == sorted(re.findall(r"\bw\d+\b", page))


def test_the_encoding_is_the_page_s_own() -> None:
    page = '<html><head><meta charset="iso-8859-1"></head><body><p>Grüße an alle Häuser</p></body></html>'
    assert read_html(page.encode("latin-1")).blocks[0].text == "Grüße an alle Häuser"


def test_a_page_nested_without_end_is_read_or_refused_and_never_crashes(tmp_path: Path) -> None:
    page = "<html><body><p>Some words up here.</p>" + "<div>" * 20_000 + "deep" + "</div>" * 20_000 + "</body></html>"
    read = run_documents(tmp_path, {"a.html": page, "b.txt": "Some good words."}, bad_files="leave_out")
    assert "Some good words." in read.said
    read.account_for_every_character()
