"""What `tunesmith tokens` shows: each token, and which are trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.text.families import make_family
from tunesmith.core.nouns import Message
from tunesmith.text.render import Renderer
from tunesmith.text.view import view

TALK = tuple(Message(role=r, content=c) for r, c in (("user", "Hi"), ("assistant", "Hello you"), ("user", "So?")))


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    return Renderer.load(make_family(tmp_path, "chatml"))


def test_without_colour_trained_runs_are_between_marks(renderer: Renderer) -> None:
    shown = view(renderer, TALK, "Yes.")
    text = str(shown)
    assert re.findall("‹(.*?)›", text.replace("|", "")) == ["Hello you<im_end>", "Yes.<im_end>"]
    assert text.endswith(f"{len(shown.tokens)} tokens, {shown.trained} trained")


def test_the_view_is_what_is_trained_on(renderer: Renderer) -> None:
    shown, rendered = view(renderer, TALK, "Yes."), renderer.render(TALK, "Yes.")
    assert [(t.id, t.trained) for t in shown.tokens] == list(zip(rendered.ids, rendered.trained, strict=True))
    assert shown.trained == sum(rendered.trained)


def test_with_colour_the_same_text_is_shown(renderer: Renderer) -> None:
    shown = view(renderer, TALK, "Yes.")
    coloured = shown.text(colour=True)
    assert "\x1b[30;42mY" in coloured and "\x1b[2mHi" in coloured
    plain = re.sub("\x1b\\[[0-9;]*m", "", coloured)
    assert plain.replace("|", "") == str(shown).replace("|", "").replace("‹", "").replace("›", "")


def test_an_example_cannot_drive_the_terminal(renderer: Renderer) -> None:
    text = view(renderer, (Message(role="user", content="\x1b[2J\x07\r\u202e"),), "x").text(colour=False)
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text and "\u202e" not in text
    assert "␛" in text and "\\u0007" in text and "␍" in text
