"""One row as one record of each format."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tunesmith.core.nouns import Message, Row

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
FLAT = ("id", "messages", "target", "group", "weight", "file", "line", "rejected", "origin", "tools")


class Unfit(Exception):
    """The format has no place for something in this row; never leaves this room."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _turn(m: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": m.role, "content": m.content}
    if m.tool_calls:
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in m.tool_calls
        ]
    if m.tool_call_id:
        turn["tool_call_id"] = m.tool_call_id
    if m.weight != 1 and m.role == "assistant":
        turn["weight"] = m.weight
    return turn


def openai(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    """https://platform.openai.com/docs/guides/fine-tuning: chat, or preference where an answer was rejected."""
    if not row.messages:
        raise Unfit("text without a conversation")
    turns = [_turn(m) for m in row.messages]
    tools = {"tools": list(row.tools)} if row.tools else {}
    answer = {"role": "assistant", "content": row.target}
    if row.rejected:
        return {
            "input": {"messages": turns, **tools},
            "preferred_output": [answer],
            "non_preferred_output": [{"role": "assistant", "content": row.rejected}],
        }
    return {"messages": [*turns, answer], **tools}


def sharegpt(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    if not row.messages:
        raise Unfit("text without a conversation")
    if row.rejected:
        raise Unfit("a preference")
    if row.tools or any(m.role == "tool" or m.tool_calls for m in row.messages):
        raise Unfit("tool calls")
    turns = [{"from": SHAREGPT_ROLES[m.role], "value": m.content} for m in row.messages]
    return {"conversations": [*turns, {"from": "gpt", "value": row.target}]}


def alpaca(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    system = [m.content for m in row.messages if m.role == "system"]
    turns = [m for m in row.messages if m.role != "system"]
    if not turns:
        raise Unfit("text without a conversation")
    if row.rejected:
        raise Unfit("a preference")
    if len(turns) != 1 or turns[0].role != "user" or row.tools:
        raise Unfit("more than one turn")
    record = {"instruction": turns[0].content, "input": "", "output": row.target}
    return record | ({"system": system[0]} if system else {})


def flat(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    """Typed columns; further columns of the data as JSON text under field_NAME."""
    return {
        "id": row.id,
        "messages": [
            {
                "role": m.role,
                "content": m.content,
                "tool_calls": json.dumps(_turn(m)["tool_calls"], ensure_ascii=False) if m.tool_calls else None,
                "tool_call_id": m.tool_call_id or None,
                "weight": m.weight,
            }
            for m in row.messages
        ],
        "target": row.target,
        "group": row.group,
        "weight": row.weight,
        "file": row.file,
        "line": row.line,
        "rejected": row.rejected or None,
        "origin": row.origin or None,
        "tools": json.dumps(list(row.tools), ensure_ascii=False) if row.tools else None,
        **{f"field_{k}": v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in row.fields.items()},
    }


def text_type(pa: Any) -> Any:
    return pa.string()


FLAT_TYPES: dict[str, Callable[[Any], Any]] = {
    "messages": lambda pa: pa.list_(
        pa.struct(
            [
                ("role", pa.string()),
                ("content", pa.string()),
                ("tool_calls", pa.string()),  # JSON
                ("tool_call_id", pa.string()),
                ("weight", pa.float64()),
            ]
        )
    ),
    "weight": lambda pa: pa.float64(),
    "line": lambda pa: pa.int64(),
}


def label_studio(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    """https://labelstud.io/guide/tasks: data, and the label as an annotation of a control named `label`."""
    if facts["kind"] == "classify":
        result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [row.target]}}
    else:
        result = {"from_name": "answer", "to_name": "text", "type": "textarea", "value": {"text": [row.target]}}
    return {
        "data": {"text": row.example.input, "messages": [_turn(m) for m in row.messages]},
        "meta": {"id": row.id, "file": row.file, "line": row.line, "group": row.group},
        "annotations": [{"result": [result]}],
    }


def argilla(row: Row, facts: dict[str, Any]) -> dict[str, Any]:
    """Records as argilla 2 logs them: fields, suggestions by question, metadata."""
    question = "label" if facts["kind"] == "classify" else "answer"
    return {
        "id": row.id,
        "fields": {"text": row.example.input},
        "metadata": {"file": row.file, "line": row.line, "group": row.group},
        "suggestions": {question: {"value": row.target, "score": None, "agent": "dataset"}},
        "responses": {},
    }
