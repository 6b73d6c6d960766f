"""One example as its tokens, the trained ones coloured: what `tunesmith tokens FILE:LINE` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.nouns import Message
from tunesmith.text.render import Renderer
from tunesmith.text.template import Tools

TRAINED, MASKED, OFF = "\x1b[30;42m", "\x1b[2m", "\x1b[0m"
BORDER = "\x1b[90m|" + OFF
SHOWN = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍", "\x1b": "␛"})  # an example must not drive the terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    id: int
    piece: str  # its text; for special tokens their name; for a part of a character the vocabulary's spelling
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """Prints as marked text; `text(colour=True)` for a terminal."""

    tokens: tuple[Token, ...]

    @property
    def trained(self) -> int:
        return sum(t.trained for t in self.tokens)

    def __str__(self) -> str:
        return self.text(colour=False)

    def text(self, *, colour: bool) -> str:
        """Tokens divided by |, line ends shown as ↵; trained runs green, or between ‹ and › without colour."""
        lines: list[str] = []
        line: list[str] = []
        for i, token in enumerate(self.tokens):
            line.append(self._coloured(i) if colour else self._marked(i))
            if "\n" in token.piece:
                lines.append("".join(line))
                line = []
        lines.append("".join(line))
        body = "\n".join(x for x in lines if x)
        return f"{body}\n\n{len(self.tokens):,} tokens, {self.trained:,} trained"

    def _coloured(self, i: int) -> str:
        token = self.tokens[i]
        border = BORDER if i and "\n" not in self.tokens[i - 1].piece else ""
        return f"{border}{TRAINED if token.trained else MASKED}{_visible(token.piece)}{OFF}"

    def _marked(self, i: int) -> str:
        token = self.tokens[i]
        before = i > 0 and self.tokens[i - 1].trained
        after = i + 1 < len(self.tokens) and self.tokens[i + 1].trained
        border = "|" if i and "\n" not in self.tokens[i - 1].piece and before == token.trained else ""
        opening = "‹" if token.trained and not before else ""
        closing = "›" if token.trained and not after else ""
        return f"{border}{opening}{_visible(token.piece)}{closing}"


def view(renderer: Renderer, messages: Sequence[Message], target: str, tools: Tools = ()) -> TokenView:
    """Every token of one example, exactly as it is trained on."""
    rendered = renderer.render(messages, target, tools)
    return TokenView(
        tokens=tuple(
            Token(id=i, piece=renderer.tokenizer.piece(i), trained=t)
            for i, t in zip(rendered.ids, rendered.trained, strict=True)
        )
    )


def _visible(piece: str) -> str:
    shown = piece.translate(SHOWN)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)
