"""HTML to text: what people would read stays, and what merely looks like a tag is left alone."""

from __future__ import annotations

import time

import pytest

from tunesmith.data.clean.markup import html

LEFT_ALONE = [
    "a < b and c > d",
    "if (a<b && c>d) return <none>;",
    "List<String> x = new ArrayList<>();",
    "<your name> <name@example.org>",
    "How do I use <div> in a page?",
    "Write `<b>bold</b>` for bold.",
    "```html\n<p>code</p>\n<br>\n```",
    "x <- c(1, 2); <3",
    "Tom &amp; Jerry &lt;3",
]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_text_that_is_no_html_is_left_alone(text: str) -> None:
    assert html([text])[0] is text


READ = [
    ("paragraphs", "<p>One\n two.</p>\n<p>Three</p>", "One two.\n\nThree"),
    ("line breaks", "a<br>b<br/>\nc<br><br>d", "a\nb\nc\n\nd"),
    ("inline tags in plain text keep its lines", "Dear all,\n\nthis is <b>bold</b>,\nyours", "Dear all,\n\nthis is bold,\nyours"),
    ("links' words", 'see <a href="http://x.org/a?b=1&c">the page</a>.', "see the page."),
    ("lists", "<ul><li>one<li>two</ul><ol><li>a</li><li>b</li></ol>end", "- one\n- two\n\n1. a\n2. b\n\nend"),
    ("lists in lists", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n- b\n- c"),
    ("tables", "<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>", "k\tv\na\t1"),
    ("scripts, styles and comments", "<style>p{}</style><p>x<script>if(a<b){'</p>'}</script><!-- <b>no</b> --></p>", "x"),
    ("a script in capitals", "<SCRIPT>bad()</SCRIPT ><P>ok</P>", "ok"),
    ("a comment that does not end stays", "<p>a</p><!-- <p>b</p>", "a\n\n<!--\n\nb"),
    ("pre keeps its spaces", "<pre>a\n  b</pre><p>c  d</p>", "a\n  b\n\nc d"),
    ("attributes with > in quotes", '<p title="a > b" class=x>t</p>', "t"),
    ("entities become characters, those of tags stay", "<p>&eacute;&nbsp;&lt;b&gt; Q&amp;A 1 &amp; 2</p>", "é\u00a0&lt;b&gt; Q&A 1 & 2"),
    ("an ampersand that would make an entity stays", "<p>&amp;lt;</p>", "&amp;lt;"),
    ("a whole page", "<!DOCTYPE html><html><head><title>T</title></head><body><h1>H</h1>text</body></html>", "T\n\nH\n\ntext"),
    ("unknown names are text", "<p>a <foo> b</p>", "a <foo> b"),
    ("code fences inside", "<p>say</p>\n```\n<p>x</p>\n```", "say\n\n```\n<p>x</p>\n```"),
    ("a tag made by taking tags out, without its end", "<b></b><scr<i></i>ipt>x</script>", "<script>x"),
    ("Office", "<o:p>&nbsp;</o:p><div>x</div>", "\u00a0\nx"),
]  # fmt: skip


@pytest.mark.parametrize("_name, text, wanted", READ, ids=[r[0] for r in READ])
def test_html_is_read(_name: str, text: str, wanted: str) -> None:
    assert html([text]) == [wanted]
    assert html([wanted]) == [wanted]


HOSTILE = {
    "open": "<p>" * 60_000, "less": "<" * 200_000, "quote": "<a href='" * 30_000, "close": "</p>" + "<br>" * 50_000,
    "tick": "`<" * 60_000, "fence": "```\n" * 40_001, "comment": "<!--" * 50_000 + "<b></b>", "script": "<script>" * 30_000,
    "scripts": "<script>x</script>" * 15_000, "attribute": "<b " + "a" * 200_000, "nested": "<b></b>" * 1_000 + "<" * 5_000 + "b>" * 5_000,
    "self made": "<b" * 30_000 + "></b>" + ">" * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_makes_it_slow(name: str) -> None:
    start = time.process_time()
    html([HOSTILE[name]])
    assert time.process_time() - start < 4.0
