"""How a chat template lays out a conversation, found by rendering marked dialogues once, at loading.

    <|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n  Hi  <|im_end|>  \\n
    └──────────────────────── prompt ─────────────────────────┘  │       │      └ never trained
                                                           answer text  stop token

Nothing is known beforehand about any family; what a template cannot do is refused here with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.core.errors import ModelError
from tunesmith.core.nouns import Message
from tunesmith.text.template import ChatTemplate, TemplateRefusal
from tunesmith.text.tokenizer import Tokenizer

SYSTEM, USER, ANSWER, NEXT = "qsystemq", "quserq", "qanswerq", "qnextq"  # no template says these
STRETCHED = (" \n\t a b\n c \n ", "\n\na\n\n", "  a  ")  # what templates strip from the assistant's text shows here
KEPT: dict[str, Callable[[str], str]] = {
    "as is": lambda text: text,
    "stripped": str.strip,
    "stripped at the start": str.lstrip,
    "stripped at the end": str.rstrip,
    "newlines stripped": lambda text: text.strip("\n"),
    "newlines stripped at the start": lambda text: text.lstrip("\n"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """prompt + lead + kept(answer) + tail + stop is what the template writes for one exchange.

    ends            where the prompt ends: where the template's generation prompt does, or, when an assistant's
                    turn does not begin with the generation prompt, where the answer begins in that turn
    lead, tail      white space the template puts round the answer; the model writes it, so it is trained
    kept            which white space of the answer survives (a key of KEPT)
    stop            the special token right after the answer; the tokenizer's end of sequence if there is none
    context         the constant end of every prompt, from its last special token on
    folds_system    the template takes no system role: the system prompt opens the first user turn
    own_system      what the template says as the system when nobody gives a system prompt; "" if nothing
    history         an earlier assistant turn reads as it did when it was the last, without and with a
                    system prompt: only then are earlier turns trained
    """

    ends: Literal["generation prompt", "assistant turn"]
    lead: str
    tail: str
    kept: str
    stop: str
    context: str
    folds_system: bool
    own_system: str
    history: tuple[bool, bool]


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The system prompt and a blank line before the first user turn, as Gemma's and Mistral's makers do it."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    for i, m in enumerate(rest):
        if m.role == "user":
            rest[i] = Message(role="user", content=f"{system.content}\n\n{m.content}")
            return rest
    return [Message(role="user", content=system.content), *rest]


def find_layout(template: ChatTemplate, tokenizer: Tokenizer, *, where: str) -> Layout:
    """Raises ModelError when answers cannot be told apart from the prompt in this template."""
    folds = _folds_system(template)
    prompt = _write(template, [("user", USER)], generate=True, where=where)
    turn = _write(template, [("user", USER), ("assistant", ANSWER)], generate=False, where=where)
    if turn.count(ANSWER) != 1 or USER not in turn or USER not in prompt:
        raise _unusable("does not write the user's and the assistant's text exactly once", where)
    header, after = turn.split(ANSWER)
    ends: Literal["generation prompt", "assistant turn"] = "assistant turn"
    lead = ""
    if header.startswith(prompt) and not header[len(prompt) :].strip():
        ends, lead = "generation prompt", header[len(prompt) :]
    opening = header[: len(header) - len(lead)]

    special = tokenizer.find_special(after)
    writes_stop = special is not None and not after[: special.start()].strip()
    stop = special[0] if special is not None and writes_stop else tokenizer.names["eos_token"]
    tail = after[: special.start()] if special is not None and writes_stop else ""

    end = opening[opening.rindex(USER) + len(USER) :]
    specials = list(re.finditer("|".join(map(re.escape, tokenizer.specials)) or "(?!)", end))
    answer = lead + ANSWER + tail + stop
    return Layout(
        ends=ends,
        lead=lead,
        tail=tail,
        kept=_kept(template, header, after, where),
        stop=stop,
        context=end[specials[-1].start() :] if specials else end,
        folds_system=folds,
        own_system="" if folds else _own_system(template, where),
        history=(
            writes_stop and _reads_the_same(template, [], answer, ends, where),
            writes_stop and (folds or _reads_the_same(template, [("system", SYSTEM)], answer, ends, where)),
        ),
    )


def _write(template: ChatTemplate, turns: Sequence[tuple[str, str]], *, generate: bool, where: str) -> str:
    try:
        return template.write([{"role": r, "content": c} for r, c in turns], add_generation_prompt=generate)
    except TemplateRefusal as e:
        said = ", ".join(role for role, _ in turns)
        raise _unusable(f"refuses the turns {said}: {e}", where) from e


def _unusable(why: str, where: str) -> ModelError:
    return ModelError(f"the chat template {why}", where=where, fix="put another chat_template.jinja into the folder")


def _folds_system(template: ChatTemplate) -> bool:
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    try:
        return SYSTEM not in template.write(turns, add_generation_prompt=True)
    except TemplateRefusal:
        return True


def _own_system(template: ChatTemplate, where: str) -> str:
    with_system = _write(template, [("system", SYSTEM), ("user", USER)], generate=True, where=where)
    without = _write(template, [("user", USER)], generate=True, where=where)
    before, _, after = with_system.partition(SYSTEM)
    if len(without) > len(before) + len(after) and without.startswith(before) and without.endswith(after):
        return without[len(before) : len(without) - len(after)]
    return ""


def _kept(template: ChatTemplate, header: str, after: str, where: str) -> str:
    for name, kept in KEPT.items():
        if all(
            _write(template, [("user", USER), ("assistant", text)], generate=False, where=where)
            == header + kept(text) + after
            for text in STRETCHED
        ):
            return name
    raise _unusable(
        "changes the assistant's text beyond stripping white space, so it cannot be learned as given", where
    )


def _reads_the_same(template: ChatTemplate, system: list[tuple[str, str]], answer: str, ends: str, where: str) -> bool:
    """Whether the prompt and answer of a first exchange are the start of a longer conversation's text."""
    first = [*system, ("user", USER)]
    if ends == "generation prompt":
        opening = _write(template, first, generate=True, where=where)
    else:
        turn = _write(template, [*first, ("assistant", ANSWER)], generate=False, where=where)
        opening = turn[: turn.index(ANSWER)]
    longer = [*first, ("assistant", ANSWER), ("user", NEXT)]
    return _write(template, longer, generate=True, where=where).startswith(opening + answer)
