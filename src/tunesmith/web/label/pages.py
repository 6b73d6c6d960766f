"""HTML of the room: every page is complete without a script, and scripts swap the same fragments."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import jinja2

from tunesmith.core.words import duration
from tunesmith.web.label.room import Person, ReviewRoom

HERE = Path(__file__).parent
RESERVED = "asu"  # accept what is suggested, skip, undo
KEYS = "1234567890" + "".join(c for c in "bcdefghijklmnopqrtvwxyz" if c not in RESERVED)
MANY = 12  # labels from which on a search field helps
CLEAR = 10  # shared items before agreement is a number worth showing
REASONS = ("I can't tell", "no label fits", "broken or unreadable", "private or harmful content")
MEDIA = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


def static_files() -> dict[str, tuple[bytes, str]]:
    """By a name that has the content's hash in it, so that browsers may keep them: (content, media type)."""
    found = {}
    for path in sorted(HERE.iterdir()):
        if path.suffix in MEDIA:
            content = path.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
            found[name] = (content, MEDIA[path.suffix])
    return found


STATIC = static_files()
BY_STEM = {f"{n.split('.')[0]}.{n.split('.')[-1]}": f"/static/{n}" for n in STATIC}


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters.update(duration=duration, number=number, json=lambda v: json.dumps(v, ensure_ascii=False))
PAGES.globals.update(static=BY_STEM, keys=KEYS, many=MANY, clear=CLEAR, reasons=REASONS)


def fragment(item: dict[str, Any], queue: dict[str, Any], *, disputes: bool) -> str:
    """One item with all that can be said about it."""
    return PAGES.get_template("item.html.jinja").render(
        i=item, queue=queue, disputes=disputes, judgment=secrets.token_hex(16)
    )


def label_page(
    room: ReviewRoom, person: Person, queue: dict[str, Any], asked: dict[str, Any], *, disputes: bool, problem: str
) -> str:
    """The whole page with its first item."""
    items = asked["items"]
    return PAGES.get_template("label.html.jinja").render(
        room=room.name,
        person=person,
        queue=queue,
        queues=room.queues(),
        p=asked["progress"],
        first=items[0] if items else None,
        html=fragment(items[0], queue, disputes=disputes) if items else "",
        disputes=disputes,
        problem=problem,
        undo_id=secrets.token_hex(16),
    )


def overview_page(
    overview: dict[str, Any], person: Person, *, link: tuple[str, str] | None, problem: str, live: bool
) -> str:
    """The owner's page; `live`: only the part that changes. `link`: (name, path with token), shown once."""
    template = "live.html.jinja" if live else "overview.html.jinja"
    return PAGES.get_template(template).render(o=overview, person=person, link=link, problem=problem)


def join_page(room: str, problem: str) -> str:
    return PAGES.get_template("join.html.jinja").render(room=room, problem=problem)
