"""Tool calls and declared tools as chat templates take them (transformers' convention), and whether one writes them.

    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id", "function": {"name", "arguments": {}}}]}
    {"role": "tool", "content", "name", "tool_call_id"}          tools=[{"type": "function", "function": {...}}]

A template that knows nothing of tools leaves them out without a word, and the model would learn to answer from
nothing. So each template is tried once on a marked dialogue, and refused for rows that hold what it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message
from tunesmith.text.template import ChatTemplate, TemplateRefusal, Tools

NAME, KEY, VALUE, RESULT, ABOUT = "qnameq", "qkeyq", "qvalueq", "qresultq", "qaboutq"  # no template says these
ID = "qcall0001"  # nine letters and digits: what Mistral's templates insist on
FIX = "choose a model whose template knows tools, or leave such rows out"


@dataclass(frozen=True, slots=True)
class Writes:
    """What a template writes of a dialogue with a tool; `why` where it refuses it."""

    tools: bool
    calls: bool
    results: bool
    why: str = ""


def uses_tools(messages: Sequence[Message], tools: Tools) -> bool:
    return bool(tools) or any(m.tool_calls or m.role == "tool" for m in messages)


def turns_of(
    messages: Sequence[Message], contents: Sequence[str], change: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The turns for the template; `change` is made to every text of calls, as `contents` have it already."""
    turns: list[dict[str, Any]] = []
    waiting: list[tuple[str, str]] = []  # id and name of the calls that tool turns answer, in order
    for m, content in zip(messages, contents, strict=True):
        turn: dict[str, Any] = {"role": m.role, "content": content}
        if m.tool_calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": c.id,
                    "function": {"name": change(c.name), "arguments": changed(json.loads(c.arguments), change)},
                }
                for c in m.tool_calls
            ]
            waiting = [(c.id, change(c.name)) for c in m.tool_calls]
        elif m.role == "tool":
            at = next((i for i, (id, _) in enumerate(waiting) if m.tool_call_id and id == m.tool_call_id), 0)
            id, name = waiting.pop(at) if waiting else (m.tool_call_id, "")
            turn |= {"name": name, "tool_call_id": id}
        turns.append(turn)
    return turns


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with `change` made to every text in it, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): changed(v, change) for k, v in value.items()}
    return [changed(v, change) for v in value] if isinstance(value, (list, tuple)) else value


def texts_of(messages: Iterable[Message], tools: Tools) -> Iterator[str]:
    """Everything a person or tool said in the conversation, for a search through it."""
    for m in messages:
        yield m.content
        for call in m.tool_calls:
            yield call.name
            yield json.dumps(json.loads(call.arguments), ensure_ascii=False)
    if tools:
        yield json.dumps(list(tools), ensure_ascii=False)


def try_out(template: ChatTemplate) -> Writes:
    """What this template writes of tools, found by one marked dialogue."""
    call = {"type": "function", "id": ID, "function": {"name": NAME, "arguments": {KEY: VALUE}}}
    dialogue: list[dict[str, Any]] = [
        {"role": "user", "content": "quserq"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": RESULT, "name": NAME, "tool_call_id": ID},
    ]
    about = {"type": "object", "properties": {KEY: {"type": "string", "description": "d"}}, "required": [KEY]}
    tools = [{"type": "function", "function": {"name": NAME, "description": ABOUT, "parameters": about}}]
    try:
        declared = template.write(dialogue[:1], add_generation_prompt=True, tools=tools)
        spoken = template.write(dialogue, add_generation_prompt=True, tools=tools)
    except TemplateRefusal as e:
        return Writes(False, False, False, str(e))
    own = spoken.replace(declared, "", 1) if spoken.startswith(declared) else spoken
    return Writes(
        tools=ABOUT in declared,
        calls=VALUE in spoken and own.count(NAME) >= 1 and own.count(KEY) >= 1,
        results=RESULT in spoken,
    )


def refuse_left_out(writes: Writes, messages: Sequence[Message], tools: Tools) -> None:
    """Raises DataError when the row holds what the template does not write."""
    missing = [
        words
        for words, there, written in (
            ("the declared tools", bool(tools), writes.tools),
            ("tool calls", any(m.tool_calls for m in messages), writes.calls),
            ("what tools answer", any(m.role == "tool" for m in messages), writes.results),
        )
        if there and not written
    ]
    if missing:
        why = f" (it says: {writes.why})" if writes.why else ""
        raise DataError(f"the model's chat template leaves out {' and '.join(missing)}{why}", where="messages", fix=FIX)


def refuse_lost(messages: Sequence[Message], contents: Sequence[str], text: str) -> None:
    """Raises DataError when a turn of this very conversation is not in the text that the template wrote."""
    for m, content in zip(messages, contents, strict=True):
        said = content.strip()
        if not (m.tool_calls or m.role == "tool") or not said or said in text:
            continue
        if json.dumps(said, ensure_ascii=False)[1:-1] in text:
            continue  # some templates write what a tool answers as a JSON text
        whose = "the assistant says beside its tool calls" if m.tool_calls else "a tool answers"
        raise DataError(f"the chat template leaves out what {whose}: {said[:60]!r}", where="messages", fix=FIX)
