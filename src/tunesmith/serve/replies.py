"""Answers in OpenAI's shapes: whole, and as chunks of a stream.

Choices of a classification bundle carry one more field, `tunesmith`, with the confidence and the
likeliest labels; clients that don't know it ignore it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.serve.scheduler import Finished, Piece, TokenLogprob
from tunesmith.serve.wire import finite

TOP_LABELS = 5  # likeliest labels in the `tunesmith` field


@dataclass(slots=True, kw_only=True)
class Choice:
    """One answer as it grows on the HTTP side."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: Finished | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.logprobs.extend(piece.logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The head that every chunk and the whole answer share, and how to fill them."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], *, usage: dict[str, int], with_logprobs: bool) -> dict[str, Any]:
        out = []
        for index, choice in enumerate(choices):
            logprobs = self._logprobs(choice.logprobs, 0) if with_logprobs else None
            body: dict[str, Any] = {"index": index, "logprobs": logprobs}
            if self.chat:
                body["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
            else:
                body["text"] = choice.text
            out.append(body | _ending(choice.end))
        return self._head(chunk=False) | {"choices": out, "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat answer names the role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._chunk({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def part(self, index: int, piece: Piece, *, offset: int, with_logprobs: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"index": index, "finish_reason": None}
        body["logprobs"] = self._logprobs(piece.logprobs, offset) if with_logprobs else None
        body |= {"delta": {"content": piece.text}} if self.chat else {"text": piece.text}
        return self._chunk(body)

    def closing(self, index: int, end: Finished) -> dict[str, Any]:
        body: dict[str, Any] = {"index": index, "logprobs": None}
        body["delta" if self.chat else "text"] = {} if self.chat else ""
        return self._chunk(body | _ending(end))

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, when stream_options.include_usage asks for it."""
        return self._head(chunk=True) | {"choices": [], "usage": usage}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._head(chunk=True) | {"choices": [choice]}

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        return {"id": prefix + self.id, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        if self.chat:
            content = [
                _entry(t.token, t.logprob) | {"top_logprobs": [_entry(word, value) for word, value in t.top]}
                for t in tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for t in tokens:
            offsets.append(offset)
            offset += len(t.token)
        return {
            "tokens": [t.token for t in tokens],
            "token_logprobs": [finite(t.logprob) for t in tokens],
            "top_logprobs": [{word: finite(value) for word, value in t.top} for t in tokens],
            "text_offset": offsets,
        }


def _entry(token: str, logprob: float) -> dict[str, Any]:
    """`bytes` is null where the token is part of a character: its text then isn't its bytes."""
    whole = "\ufffd" not in token
    return {"token": token, "logprob": finite(logprob), "bytes": list(token.encode()) if whole else None}


def _ending(end: Finished | None) -> dict[str, Any]:
    if end is None:
        return {"finish_reason": None}
    body: dict[str, Any] = {"finish_reason": end.reason}
    if end.confidence is not None:
        extra: dict[str, Any] = {"confidence": end.confidence}
        if end.label_probabilities:
            extra["label_probabilities"] = dict(end.label_probabilities[:TOP_LABELS])
        body["tunesmith"] = extra
    return body


def usage_of(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, int]:
    """Every sampled token counts, the stop token too: it is what was paid for in time."""
    answer = sum(c.end.answer_tokens for c in choices if c.end)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answer, "total_tokens": prompt_tokens + answer}


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
