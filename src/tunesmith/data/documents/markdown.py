"""Markdown (CommonMark with tables) to blocks. Marks of emphasis and links' addresses go; their words stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.documents.blocks import Block, Extracted, Removed, tidy, tidy_lines

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
TAG = re.compile(r"<[^>]*>")


def read_markdown(text: str) -> Extracted:
    parser = need("markdown_it", extra="documents", why="reading Markdown files").MarkdownIt("commonmark")
    found = Extracted(format="markdown", why="by its name")
    front = FRONT_MATTER.match(text)
    if front:
        found.removed.append(Removed(reason="front_matter", text=front.group(1)))
        text = text[front.end() :]
    found.blocks = list(_blocks(parser.enable("table").parse(text), found))
    top = next((b for b in found.blocks if b.kind == "heading" and b.level == 1), None)
    found.title = top.text if top else ""
    return found


def _blocks(tokens: Sequence[Any], found: Extracted) -> Iterator[Block]:
    lists: list[list[Any]] = []  # for each open list: the number of its next item, or "" for bullets
    mark = ""  # of an item whose first paragraph is still to come
    joins = False
    row: list[str] = []
    level = 0
    in_cell = False
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            ordered = token.type.startswith("ordered")
            lists.append([int(token.attrGet("start") or 1) if ordered else ""])
            joins = len(lists) > 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif token.type == "list_item_open":
            number = lists[-1][0]
            mark = f"{number}. " if number != "" else "- "
            lists[-1][0] = number + 1 if number != "" else ""
        elif token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            if any(row):
                yield Block(kind="table", text=" | ".join(row), joins=joins)
            joins = True
        elif token.type == "table_open":
            joins = False
        elif token.type in ("th_open", "td_open"):
            in_cell = True
        elif token.type in ("th_close", "td_close"):
            in_cell = False
        elif token.type == "inline":
            text = tidy(_plain(token.children or ()))
            if level:
                if text:
                    yield Block(kind="heading", text=text, level=level)
                level = 0
            elif in_cell:
                row.append(text)
            elif text:
                kind = "list" if mark else "prose"
                yield Block(kind=kind, text=mark + text, joins=joins and bool(mark))
                joins, mark = bool(lists), ""
        elif token.type in ("fence", "code_block"):
            code = tidy_lines(token.content)
            if code:
                yield Block(kind="code", text=code)
        elif token.type == "html_block":
            text = tidy(TAG.sub(" ", token.content)) if "<!--" not in token.content else ""
            if text:
                yield Block(kind="prose", text=text)
            else:
                found.removed.append(Removed(reason="markup", text=token.content))


def _plain(children: Sequence[Any]) -> str:
    pieces: list[str] = []
    for child in children:
        if child.type in ("text", "code_inline"):
            pieces.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            pieces.append(" ")
        elif child.type == "image":
            pieces.append(_plain(child.children or ()))
        elif child.type == "html_inline" and child.content.lower().startswith("<br"):
            pieces.append(" ")
    return "".join(pieces)
