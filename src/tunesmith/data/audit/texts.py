"""The texts of a row by the name of their field, and the row with some of them changed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from tunesmith.core.nouns import Message, Row


def texts_of(row: Row) -> list[tuple[str, str]]:
    """Messages, arguments of tool calls, target, rejected answer and kept columns with text, in that order."""
    found = []
    for i, message in enumerate(row.messages):
        found.append((f"messages[{i}].content", message.content))
        for j, call in enumerate(message.tool_calls):
            found.append((f"messages[{i}].tool_calls[{j}].arguments", call.arguments))
    found.append(("target", row.target))
    if row.rejected:
        found.append(("rejected", row.rejected))
    found += [(f"fields.{name}", value) for name, value in sorted(row.fields.items()) if isinstance(value, str)]
    return found


def with_texts(row: Row, changed: Mapping[str, str]) -> Row:
    """`changed`: by field name. The id follows the content, and the group where it was the id."""
    messages = tuple(_message(m, i, changed) for i, m in enumerate(row.messages))
    fields = {name: changed.get(f"fields.{name}", value) for name, value in row.fields.items()}
    new = msgspec.structs.replace(
        row,
        messages=messages,
        target=changed.get("target", row.target),
        rejected=changed.get("rejected", row.rejected),
        fields=fields,
    )
    identity = new.example.id
    group = identity if row.group == row.id else changed.get("group", row.group)
    return msgspec.structs.replace(new, id=identity, group=group)


def input_field(row: Row) -> str | None:
    """The field of the last user turn, None where there is none."""
    at = next((i for i in reversed(range(len(row.messages))) if row.messages[i].role == "user"), None)
    return None if at is None else f"messages[{at}].content"


def is_json(text: str) -> bool:
    """An object or a list in JSON: arguments of a tool call, an extracted record."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def inside_string(text: str, position: int) -> bool:
    """Is this position of a JSON text within a string?"""
    quotes = re.findall(r'(?<!\\)(?:\\\\)*"', text[:position])
    return len(quotes) % 2 == 1


def _message(message: Message, i: int, changed: Mapping[str, str]) -> Message:
    calls = tuple(
        msgspec.structs.replace(call, arguments=changed.get(f"messages[{i}].tool_calls[{j}].arguments", call.arguments))
        for j, call in enumerate(message.tool_calls)
    )
    content = changed.get(f"messages[{i}].content", message.content)
    return msgspec.structs.replace(message, content=content, tool_calls=calls)
