"""One question to a bundle, without a server: what it would answer over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Answer, Message
from tunesmith.core.stage import Exec
from tunesmith.serve.bundle import LoadedBundle


def ask(bundle: LoadedBundle, question: str | Sequence[Message]) -> Answer:
    """The answer to a text, or to a conversation that ends with the user's turn.

    Raises InputError for an empty question or one that does not fit the model, DataError where the chat
    template refuses the turns.
    """
    messages = as_messages(question)
    if not any(m.content.strip() for m in messages):
        raise InputError("the question is empty", fix='tunesmith ask "your text"')
    excess = too_long(bundle, messages)
    if excess:
        raise InputError(excess, fix="ask a shorter question")
    return answer_all(bundle, [messages])[0]


def as_messages(question: str | Sequence[Message]) -> tuple[Message, ...]:
    return (Message(role="user", content=question),) if isinstance(question, str) else tuple(question)


def too_long(bundle: LoadedBundle, messages: Sequence[Message]) -> str:
    """Why prompt and answer don't fit the model's context together; empty when they do."""
    prompt = len(bundle.renderer.prompt(messages))
    answer = bundle.settings.max_new_tokens
    if bundle.scores_labels:
        answer = max(len(bundle.renderer.answer(label)) for label in bundle.labels)
    if prompt + answer <= bundle.context:
        return ""
    return f"the prompt has {prompt} tokens and an answer up to {answer}; the model holds {bundle.context}"


def answer_all(bundle: LoadedBundle, prompts: Sequence[Sequence[Message]]) -> list[Answer]:
    """One batch of prompts, by label scoring or generation as the bundle was evaluated."""
    from tunesmith.model.answer import LanguageModel  # late: torch

    language_model = LanguageModel(bundle.model, bundle.renderer)
    batch_tokens = Exec().micro_batch_tokens
    if bundle.scores_labels:
        return language_model.choose(prompts, bundle.labels, batch_tokens=batch_tokens)
    return language_model.generate(
        prompts,
        max_new_tokens=bundle.settings.max_new_tokens,
        temperature=bundle.settings.temperature,
        batch_tokens=batch_tokens,
    )
