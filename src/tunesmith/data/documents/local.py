"""A model folder as the teacher, behind the same interface as an endpoint. Loads torch when it is first asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Message
from tunesmith.data.documents.endpoint import Refused

BATCH_TOKENS = 1 << 20  # one prompt at a time: what a batch holds would decide the draws


class LocalTeacher:
    """`ask(body)` answers like an endpoint. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model: Any = None

    def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        model = self._loaded()
        messages = [Message(role=m["role"], content=m["content"]) for m in body["messages"]]
        try:
            (answer,) = model.generate(
                [messages],
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"],
                seed=body["seed"],
                batch_tokens=BATCH_TOKENS,
            )
        except InputError as e:
            raise Refused("the passage does not fit the model's context") from e
        return {
            "choices": [{"message": {"content": answer.text}, "finish_reason": answer.finish}],
            "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.answer_tokens},
        }

    def _loaded(self) -> Any:
        if self._model is None:
            from tunesmith.model.answer import LanguageModel
            from tunesmith.model.load import load_base
            from tunesmith.text.render import Renderer

            self._model = LanguageModel(load_base(self._folder, dtype="fp32"), Renderer.load(self._folder, system=""))
        return self._model
