"""From sampled tokens to text that may leave: whole characters only, and nothing of a stop string.

A byte-level token can be half a character, and a stop string can straddle tokens. Text is held back
until neither is possible, so that the pieces of a stream join to exactly the text of one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunesmith.serve.scheduler import Piece, TokenLogprob

REPLACEMENT = "\ufffd"  # what a tokenizer writes for an incomplete UTF-8 sequence
LONGEST_CHARACTER = 4  # bytes, so at most so many byte-level tokens are waited for


class TextStream:
    """The text of one answer, growing token by token.

    `push` returns what may leave now; `stopped` says that a stop string was met; `finish` returns the rest.
    `tail` is what the chat template writes between an answer and its stop token: not part of the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), *, tail: str = "") -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._tail = tail
        self._ids: list[int] = []
        self._from = 0  # tokens before this one no longer change how later ones are spelled
        self._read = 0  # tokens whose text is in _held or has left
        self._held = ""  # text that might still turn out to begin a stop string
        self._tokens: list[TokenLogprob] = []  # of the held text
        self.stopped = False

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Piece | None:
        """Add one token (not a stop token)."""
        self._ids.append(token)
        if logprob is not None:
            self._tokens.append(logprob)
        self._held += self._new_text(final=False)
        return self._release(final=False)

    def finish(self, *, by_token: bool) -> Piece | None:
        """The end of the answer, `by_token` when a stop token ended it: what was held back leaves."""
        if self.stopped:
            return None
        self._held += self._new_text(final=True)
        if by_token and self._tail and self._held.endswith(self._tail):
            self._held = self._held.removesuffix(self._tail)
            self._tokens = _spelling(self._tokens, self._held)
        return self._release(final=True)

    def _new_text(self, *, final: bool) -> str:
        before = self._decode(self._ids[self._from : self._read])
        now = self._decode(self._ids[self._from :])
        incomplete = now.endswith(REPLACEMENT) and len(self._ids) - self._read < LONGEST_CHARACTER
        if len(now) <= len(before) or (incomplete and not final):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def _release(self, *, final: bool) -> Piece | None:
        cut = min((at for s in self._stop if (at := self._held.find(s)) >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            text, self._held = self._held[:cut], ""
            self._tokens = _spelling(self._tokens, text)
        else:
            keep = 0 if final else max((_overlap(self._held, s) for s in self._watched()), default=0)
            text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if not text and not (self._tokens and final):
            return None
        tokens, self._tokens = tuple(self._tokens), []
        return Piece(text, tokens)

    def _watched(self) -> tuple[str, ...]:
        return (*self._stop, self._tail + "\0") if self._tail else self._stop  # the whole tail is held back too


def _spelling(tokens: list[TokenLogprob], text: str) -> list[TokenLogprob]:
    """The tokens that begin inside `text`: those of a stop string's own spelling are not part of the answer."""
    kept, length = [], 0
    for token in tokens:
        if length >= len(text):
            break
        kept.append(token)
        length += len(token.token)
    return kept


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
