"""A teacher as a function, for steps that ask one: `connect(...)` gives ask(messages) -> text."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tunesmith.core.errors import InputError
from tunesmith.data.documents.endpoint import Refused, ask, endpoint
from tunesmith.data.documents.replies import text_of


def connect(
    *, url: str, model: str, token_env: str, max_tokens: int, temperature: float, seed: int
) -> Callable[[list[dict[str, str]]], str]:
    """Asks an OpenAI-compatible endpoint. An answer that it refuses or malforms is empty text, which the caller
    counts; everything else that goes wrong raises. The token is read from the environment and kept nowhere."""
    to = endpoint(url, token_env)
    never = threading.Event()

    def answer(messages: list[dict[str, str]]) -> str:
        body = {
            "model": model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        try:
            return text_of(ask(to, body, never))[0] or ""
        except Refused:
            return ""

    if not model:
        raise InputError("names no model", where="documents.teacher.model", fix="the name the endpoint knows it by")
    return answer
