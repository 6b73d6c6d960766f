"""Conversations: turns to messages, in the one order that every chat template can say.

    [system] user assistant ... user assistant, where an assistant turn may call tools:
    user, assistant(calls), one tool turn for each call, assistant

A row whose answer is itself a call of tools keeps that turn as its last message: a target is text, and only the
model's own template says how a call is written. The target is then the calls as JSON lines, for people and metrics;
text/render.py trains the turn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from tunesmith.core.canonical import canonical_json
from tunesmith.core.nouns import Message, ToolCall
from tunesmith.data.shapes.known import fault, nearest, wrong_type

TURN_KEYS = {"role", "content", "weight", "tool_calls", "tool_call_id"}
OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}  # others' words
SHAREGPT_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "function_call": "assistant",
    "tool_call": "assistant", "observation": "tool", "tool": "tool", "function_response": "tool",
}  # fmt: skip
CALLERS = ("function_call", "tool_call")  # of ShareGPT's "from": the value is a call as JSON


def conversation(messages: Sequence[Message], at: str = "messages") -> tuple[tuple[Message, ...], str]:
    """(messages before the answer, the answer) of a whole conversation. Raises Unusable."""
    _refuse_order(messages, at)
    last = messages[-1]
    if last.weight == 0:
        raise fault(
            "weight",
            f"{at}[{len(messages) - 1}].weight",
            "is 0 on the last turn: nothing after the turns before it is trained",
            "end the conversation with a turn that is trained",
        )
    if last.tool_calls:
        return tuple(messages), calls_text(last)
    before = messages[:-1]
    if last.weight != 1.0:  # the row has it (`answer_weight`), and the turns before what they are to it
        before = [structs.replace(m, weight=m.weight / last.weight) if m.role == "assistant" else m for m in before]
    return tuple(before), last.content


def answer_weight(messages: Sequence[Message]) -> float:
    """Of the example whose conversation this is: of its last turn, where that is a text."""
    return 1.0 if messages[-1].tool_calls else messages[-1].weight


def calls_text(m: Message) -> str:
    """What an assistant's turn of calls says, without a template: its text, then each call as a JSON line."""
    calls = [
        canonical_json({"name": c.name, "arguments": json.loads(c.arguments)}).decode("utf-8") for c in m.tool_calls
    ]
    return "\n".join([m.content, *calls] if m.content.strip() else calls)


def _refuse_order(messages: Sequence[Message], at: str) -> None:
    offset = 1 if messages and messages[0].role == "system" else 0
    due, open_calls, answered = "user", 0, 0
    for i, m in enumerate(messages[offset:], offset):
        may = {"tool": ("tool",), "user": ("user",), "assistant": ("assistant",)}[due]
        if m.role not in may:
            after = f"after {messages[i - 1].role!r}" if i else "at the start"
            if due == "tool":
                after += f", which calls {open_calls} tool(s) of which {answered} answered"
            raise fault(
                "turns",
                f"{at}[{i}].role",
                f"is {m.role!r} {after}, where {due!r} is due",
                "one system turn at most, first; then user and assistant by turns, tools right after their calls; "
                "join turns of one speaker",
            )
        if m.role == "user":
            due = "assistant"
        elif m.role == "assistant":
            due, open_calls, answered = ("tool", len(m.tool_calls), 0) if m.tool_calls else ("user", 0, 0)
            calls = m.tool_calls
        else:
            _refuse_stranger(m, calls, f"{at}[{i}]")
            answered += 1
            due = "tool" if answered < open_calls else "assistant"
    if len(messages) == offset or messages[-1].role != "assistant":
        what = "the last turn is not the assistant's: there is no answer to learn"
        raise fault("no_label", at, what, "add the answer")


def _refuse_stranger(m: Message, calls: Sequence[ToolCall], at: str) -> None:
    known = [c.id for c in calls if c.id]
    if m.tool_call_id and known and m.tool_call_id not in known:
        what = f"is {m.tool_call_id!r}, but the calls before it are {', '.join(map(repr, known))}"
        raise fault("tool_calls", f"{at}.tool_call_id", what, "name the call that this turn answers")


def openai_turns(turns: Any, at: str = "messages") -> list[Message]:
    """OpenAI's turns. Raises Unusable."""
    if not isinstance(turns, list):
        raise wrong_type(at, turns, "a list")
    return [_message(f"{at}[{i}]", turn) for i, turn in enumerate(turns)]


def _message(at: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise wrong_type(at, turn, "an object with role and content")
    said = {key for key, value in turn.items() if value is not None}
    role = turn.get("role")
    if role == "function" or "function_call" in said:
        what = "is OpenAI's older form of a tool call"
        raise fault("tool_calls", at, what, "write tool_calls, and turns of the role tool")
    if role == "developer":
        role = "system"  # OpenAI's newer name for the same turn
    if role not in ("system", "user", "assistant", "tool"):
        near = OTHER_ROLES.get(str(role)) or nearest(str(role), ("system", "user", "assistant", "tool"))
        guess = f"; did you mean {near!r}?" if near else ""
        raise fault("role", f"{at}.role", f"is {role!r}{guess}", "roles: system, user, assistant, tool")
    if unknown := sorted(said - TURN_KEYS - ({"name"} if role == "tool" else set())):
        what = "is not known, and leaving it out could change the meaning"
        raise fault("turn_keys", f"{at}.{unknown[0]}", what, "keep role, content, weight and tool_calls")
    calls = _calls(turn.get("tool_calls"), role, f"{at}.tool_calls") if turn.get("tool_calls") else ()
    answers = turn.get("tool_call_id")
    if answers is not None and (role != "tool" or not isinstance(answers, str)):
        raise fault(
            "tool_calls", f"{at}.tool_call_id", f"is {answers!r} on a turn of {role}", "a text, on turns of tools"
        )
    return Message(
        role=role,
        content=_content(
            turn.get("content"), role, f"{at}.content", may_be_empty=role in ("system", "tool") or bool(calls)
        ),
        tool_calls=calls,
        tool_call_id=answers or "",
        weight=_weight(turn.get("weight"), role, at),
    )


def _weight(weight: Any, role: str, at: str) -> float:
    if weight is None:
        return 1.0
    # a Parquet column of weights may hold floats
    sound = type(weight) in (int, float) and 0 <= weight < math.inf
    if role != "assistant" or not sound:
        what = f"is {weight!r} on a turn of {role}"
        raise fault("weight", f"{at}.weight", what, "0 (context), 1, or how much it counts, on turns of the assistant")
    return float(weight)


def _content(content: Any, role: str, at: str, *, may_be_empty: bool) -> str:
    if (
        isinstance(content, list)
        and len(content) == 1
        and isinstance(content[0], dict)
        and content[0].get("type") == "text"
    ):
        content = content[0].get("text")  # OpenAI's long form of one text
    if content is None and may_be_empty and role == "assistant":
        return ""
    if not isinstance(content, str):
        raise wrong_type(at, content, "a text")
    if not content.strip() and not may_be_empty:
        reason = "no_label" if role == "assistant" else "no_text"
        raise fault(reason, at, "is empty", "write it, or remove the row")
    return content


def _calls(calls: Any, role: str, at: str) -> tuple[ToolCall, ...]:
    if not isinstance(calls, list):
        raise wrong_type(at, calls, "a list")
    if role != "assistant":
        raise fault("tool_calls", at, f"stands on a turn of {role}", "only the assistant calls tools")
    return tuple(_call(call, f"{at}[{i}]") for i, call in enumerate(calls))


def _call(call: Any, at: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise fault(
            "tool_calls",
            at,
            "is no call of a function",
            '{"id", "type": "function", "function": {"name", "arguments"}}',
        )
    id = call.get("id")
    if id is not None and not isinstance(id, str):
        raise wrong_type(f"{at}.id", id)
    return ToolCall(name=_name(function, at), arguments=_arguments(function.get("arguments"), at), id=id or "")


def _name(function: dict[str, Any], at: str) -> str:
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise fault("tool_calls", f"{at}.name", "is missing", "name the function")
    return name


def _arguments(arguments: Any, at: str) -> str:
    """JSON text as the data had it; an object, which typed files hold, as canonical JSON."""
    if isinstance(arguments, dict):
        try:
            # a Parquet struct has every argument of every function; those without a value were not given
            return canonical_json({k: v for k, v in arguments.items() if v is not None}).decode("utf-8")
        except ValueError:
            raise fault("not_finite", f"{at}.arguments", "holds NaN or infinity", "write a number or null") from None
    if not isinstance(arguments, str):
        raise wrong_type(f"{at}.arguments", arguments, "a text of JSON")
    try:
        value = json.loads(arguments)
        canonical_json(value)
    except (ValueError, RecursionError):
        raise fault("tool_calls", f"{at}.arguments", "is not JSON", "write the arguments as a JSON object") from None
    if not isinstance(value, dict):
        raise fault("tool_calls", f"{at}.arguments", "is no JSON object", "write the arguments as a JSON object")
    return arguments


def tools_of(value: Any, at: str = "tools") -> tuple[dict[str, Any], ...]:
    """Declared tools in OpenAI's form; bare functions, which ShareGPT files hold, are put into it. Raises Unusable."""
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise fault("tool_calls", at, "is not JSON", "write the tools as a JSON list") from None
    if not isinstance(value, list):
        raise wrong_type(at, value, "a list")
    tools = []
    for i, tool in enumerate(value):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type", "function") not in ("function", "object"):
            raise fault("tool_calls", f"{at}[{i}]", "is no function", '{"type": "function", "function": {"name", ...}}')
        _name(function, f"{at}[{i}]")
        try:
            canonical_json(function)
        except ValueError:
            raise fault("not_finite", f"{at}[{i}]", "holds NaN or infinity", "write a number or null") from None
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def sharegpt_turns(turns: Any, at: str = "conversations") -> list[Message]:
    """ShareGPT's turns {"from", "value"}. Raises Unusable."""
    if not isinstance(turns, list):
        raise wrong_type(at, turns, "a list")
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        here = f"{at}[{i}]"
        if not isinstance(turn, dict):
            raise wrong_type(here, turn, "an object with from and value")
        speaker = turn.get("from")
        role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            near = nearest(str(speaker), SHAREGPT_ROLES)
            guess = f"; did you mean {near!r}?" if near else ""
            raise fault("role", f"{here}.from", f"is {speaker!r}{guess}", f"speakers: {', '.join(SHAREGPT_ROLES)}")
        value = turn.get("value")
        unknown = sorted(k for k, v in turn.items() if v is not None and k not in ("from", "value", "weight"))
        if unknown:
            what = "is not known, and leaving it out could change the meaning"
            raise fault("turn_keys", f"{here}.{unknown[0]}", what, "keep from, value and weight")
        if speaker in CALLERS:
            content, calls = "", _sharegpt_calls(value, f"{here}.value")
        else:
            content, calls = _content(value or "", role, f"{here}.value", may_be_empty=role in ("system", "tool")), ()
        weight = _weight(turn.get("weight"), role, here)
        messages.append(Message(role=role, content=content, tool_calls=calls, weight=weight))  # type: ignore[arg-type]
    return messages


def _sharegpt_calls(value: Any, at: str) -> tuple[ToolCall, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise fault("tool_calls", at, "is not JSON", '{"name": ..., "arguments": {...}}') from None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(c, dict) for c in calls):
        raise fault("tool_calls", at, "is no call of a function", '{"name": ..., "arguments": {...}}')
    return tuple(
        ToolCall(
            name=_name(c, f"{at}[{i}]"), arguments=_arguments(c.get("arguments", c.get("parameters")), f"{at}[{i}]")
        )
        for i, c in enumerate(calls)
    )
