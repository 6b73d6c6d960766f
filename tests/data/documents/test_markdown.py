"""Markdown: headings, lists, tables, listings; words without their marks."""

from __future__ import annotations

from tunesmith.data.documents.markdown import read_markdown

TEXT = """\
---
title: x
---
# The *Title*

Some **bold** and `code` with a [link](http://example.org)
on two lines.

Part
----

- one
- two
  1. inner
  2. other

  more of two

3. three
4. four

| a | b |
|---|---|
| 1 | `2` |

```python
def f():
    return 1
```

<!-- a comment -->

<div>html here</div>

![picture of a cat](cat.png)
"""


def test_markdown_becomes_blocks() -> None:
    found = read_markdown(TEXT)
    assert found.title == "The Title"
    assert [(b.kind, b.text, b.joins) for b in found.blocks] == [
        ("heading", "The Title", False),
        ("prose", "Some bold and code with a link on two lines.", False),
        ("heading", "Part", False),
        ("list", "- one", False),
        ("list", "- two", True),
        ("list", "1. inner", True),
        ("list", "2. other", True),
        ("prose", "more of two", False),
        ("list", "3. three", False),
        ("list", "4. four", True),
        ("table", "a | b", False),
        ("table", "1 | 2", True),
        ("code", "def f():\n    return 1", False),
        ("prose", "html here", False),
        ("prose", "picture of a cat", False),
    ]
    assert [b.level for b in found.blocks if b.kind == "heading"] == [1, 2]
    assert [(r.reason, r.text.strip()) for r in found.removed] == [
        ("front_matter", "title: x"),
        ("markup", "<!-- a comment -->"),
    ]
