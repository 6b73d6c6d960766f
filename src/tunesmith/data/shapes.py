"""What a record means: columns named by the task, or one of four shapes that people's files have.

    messages           {"messages": [{"role", "content"}, ...]}   OpenAI chat; the last turn is the answer
    instruction        {"instruction", "input"?, "output"}        Alpaca; also "system"
    prompt_completion  {"prompt", "completion"}
    text_label         {"text", "label"}, or the columns that task.text and task.label name
    text               {"text"}, for domain

A shape is found from the first rows and written down in check.json; a later row of another shape is
a bad row, and so is one that fits two: which was meant is unknown.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.core.nouns import Message
from tunesmith.data.lines import Fault, excerpt

LOOKED_AT = 20  # first records that the shape is found from
NEEDED = {
    "messages": ("messages",),
    "instruction": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text_label": ("text", "label"),
}
OPTIONAL = {"instruction": ("input", "system")}
KNOWN = "messages; instruction, input, output; prompt, completion; text, label"


class Unusable(Exception):
    """Carries the Fault of one row out of the conversion; never leaves this room."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one file's records are read."""

    name: str
    why: str  # a sentence for check.json
    text: str = "text"
    label: str = "label"
    group: str | None = None
    kind: str
    declared: bool = False  # the task named the columns: no other shape is looked for

    @property
    def answer_field(self) -> str:
        """Where a row of this shape says its answer."""
        return {"messages": "messages[-1].content", "instruction": "output", "prompt_completion": "completion"}.get(
            self.name, self.label
        )

    @property
    def used(self) -> dict[str, str]:
        """Column -> what it is used as."""
        if self.name in ("text_label", "text"):
            roles = {self.text: "text"} if self.name == "text" else {self.text: "text", self.label: "label"}
        else:
            roles = {c: c for c in NEEDED[self.name] + OPTIONAL.get(self.name, ())}
        return roles | ({self.group: "group"} if self.group else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A record's meaning, not yet judged."""

    messages: tuple[Message, ...]
    target: str
    group: str | None


def named_shape(kind: str, text: str, label: str | None, group: str | None) -> Shape:
    """The shape that the task's own column names make."""
    name = "text" if kind == "domain" else "text_label"
    named = f"task.text is {text!r}" + (f", task.label is {label!r}" if name == "text_label" else "")
    return Shape(name=name, why=named, text=text, label=label or "label", group=group, kind=kind, declared=True)


def detect_shape(
    kind: str, first: Sequence[Iterable[str]], group: str | None, file: str, *, is_table: bool
) -> Shape | Problem:
    """The shape that most of the first records fit, or what was seen instead. `first` holds their keys."""
    fits = Counter(found[0] for keys in first if len(found := fitting(kind, keys)) == 1)
    if fits:
        name, n = fits.most_common(1)[0]
        keys = "text" if name == "text" else ", ".join(NEEDED[name])
        why = f"the header has {keys}" if is_table else f"{n} of the first {len(first)} rows have {keys}"
        return Shape(name=name, why=why, group=group, kind=kind)
    both = next((found for keys in first if len(found := fitting(kind, keys)) > 1), None)
    seen = ", ".join(dict.fromkeys(key for keys in first for key in keys)) or "nothing"
    if both:
        return Problem(
            where=f"{file}:1",
            what=f"the rows fit {len(both)} shapes at once: {' and '.join(both)} (seen: {seen})",
            fix="keep one of them, or name the columns: --set task.text=... --set task.label=...",
        )
    wanted = "text" if kind == "domain" else KNOWN
    return Problem(
        where=f"{file}:1",
        what=f"what is text and what is answer is unknown (seen: {seen}; shapes known: {wanted})",
        fix="name the columns: --set task.text=..." + ("" if kind == "domain" else " --set task.label=..."),
    )


def fitting(kind: str, keys: Iterable[str]) -> list[str]:
    """Names of the shapes whose needed keys are all there."""
    have = set(keys)
    if kind == "domain":
        return ["text"] if "text" in have else []
    return [name for name, needed in NEEDED.items() if have.issuperset(needed)]


def missing_columns(shape: Shape, keys: Iterable[str], file: str) -> list[Problem]:
    """The task's columns that the file lacks, each with the nearest one it has."""
    have = list(dict.fromkeys(keys))
    wanted = [("task.group", shape.group)] if shape.group else []
    if shape.name in ("text_label", "text"):
        wanted.insert(0, ("task.text", shape.text))
    if shape.name == "text_label":
        wanted.insert(1, ("task.label", shape.label))
    problems = []
    for setting, column in wanted:
        if column in have:
            continue
        near = nearest(str(column), have)
        seen = ", ".join(map(repr, have[:12])) + (f" and {len(have) - 12} more" if len(have) > 12 else "")
        guess = f"did you mean {near!r}? " if near else ""
        problems.append(
            Problem(
                where=f"{file}:1",
                what=f"there is no column {column!r} ({setting}); {guess}The file has: {seen}",
                fix=f"--set {setting}={near or 'NAME'}",
            )
        )
    return problems


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, by letters, without regard to case."""
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def convert(shape: Shape, fields: dict[str, Any]) -> Parts:
    """What the record says. Raises Unusable."""
    if not shape.declared:
        found = fitting(shape.kind, fields)
        if len(found) > 1:
            raise _fault("two_shapes", "", f"fits {' and '.join(found)} at once", "keep the keys of one shape")
        if found and found[0] != shape.name:
            raise _fault(
                "other_shape",
                "",
                f"is of shape {found[0]}, the file is {shape.name} ({shape.why})",
                "put rows of another shape into a file of their own",
            )
    if shape.name == "messages":
        messages, target = _chat(fields.get("messages"))
    elif shape.name == "instruction":
        messages, target = _instruction(fields)
    elif shape.name == "prompt_completion":
        messages, target = _prompt_completion(fields)
    else:
        text = _text(fields, shape.text, "no_text")
        if shape.name == "text":
            messages, target = (), text
        else:
            messages, target = (Message(role="user", content=text),), _label(fields, shape.label)
    return Parts(messages=messages, target=target, group=_group(fields, shape.group))


def start_of(fields: dict[str, Any], shape: Shape) -> str:
    """What a person would recognise the row by, short."""
    for key in shape.used:
        value = fields.get(key)
        if isinstance(value, str) and value.strip():
            return excerpt(value)
        if isinstance(value, list):
            said = (turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "user")
            return excerpt(next((text for text in said if isinstance(text, str)), ""))
    return ""


def _instruction(fields: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Alpaca: the input, where there is one, follows the instruction after an empty line."""
    if fields.get("history"):
        raise _fault("history", "history", "earlier turns cannot be said in this shape", "write such rows as messages")
    said = _text(fields, "instruction", "no_text")
    given = fields.get("input")
    if given is not None and not isinstance(given, str):
        raise _wrong_type("input", given)
    if given and given.strip():
        said = f"{said}\n\n{given}"
    system = fields.get("system")
    if system is not None and not isinstance(system, str):
        raise _wrong_type("system", system)
    head = (Message(role="system", content=system),) if system and system.strip() else ()
    return (*head, Message(role="user", content=said)), _text(fields, "output", "no_label")


def _prompt_completion(fields: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    if isinstance(fields.get("label"), bool):
        raise _fault(
            "preference",
            "label",
            "prompt, completion and a true-or-false label is preference data: half of it shows what not to say",
            "keep the rows with label true, without the label",
        )
    said = _text(fields, "prompt", "no_text")
    return (Message(role="user", content=said),), _text(fields, "completion", "no_label")


def _chat(turns: Any) -> tuple[tuple[Message, ...], str]:
    """An optional system turn, then user and assistant by turns, the assistant last: what every template can say."""
    if not isinstance(turns, list):
        raise _wrong_type("messages", turns, "a list")
    messages = tuple(_message(i, turn) for i, turn in enumerate(turns))
    body = messages[1:] if messages and messages[0].role == "system" else messages
    offset = len(messages) - len(body)
    for i, m in enumerate(body):
        due = "assistant" if i % 2 else "user"
        if m.role != due:
            after = f"after {messages[i + offset - 1].role!r}" if i + offset else "at the start"
            raise _fault(
                "turns",
                f"messages[{i + offset}].role",
                f"is {m.role!r} {after}, where {due!r} is due",
                "one system turn at most, first; then user and assistant by turns; join turns of one speaker",
            )
    if not body or body[-1].role != "assistant":
        raise _fault(
            "no_label",
            "messages",
            "the last turn is not the assistant's: there is no answer to learn",
            "add the answer",
        )
    return messages[:-1], messages[-1].content


TURN_KEYS = {"role", "content", "weight"}
OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}  # others' words
CALLS = {"tool_calls", "function_call", "tool_call_id"}


def _message(i: int, turn: Any) -> Message:
    at = f"messages[{i}]"
    if not isinstance(turn, dict):
        raise _wrong_type(at, turn, "an object with role and content")
    said = {key for key, value in turn.items() if value is not None}
    role = turn.get("role")
    if role in ("tool", "function") or said & CALLS:
        raise _fault(
            "tool_calls",
            at,
            "tool calls cannot be trained in this version",
            "leave such conversations out: --set data.bad_rows=leave_out",
        )
    if role == "developer":
        role = "system"  # OpenAI's newer name for the same turn
    if role not in ("system", "user", "assistant"):
        near = OTHER_ROLES.get(str(role)) or nearest(str(role), ("system", "user", "assistant"))
        guess = f"; did you mean {near!r}?" if near else ""
        raise _fault("role", f"{at}.role", f"is {role!r}{guess}", "roles: system, user, assistant")
    if unknown := sorted(said - TURN_KEYS):
        raise _fault(
            "turn_keys",
            f"{at}.{unknown[0]}",
            "is not known, and leaving it out could change the meaning",
            "keep role, content and weight",
        )
    weight = turn.get("weight")
    if weight is not None and (role != "assistant" or type(weight) is not int or weight not in (0, 1)):
        raise _fault(
            "weight", f"{at}.weight", f"is {weight!r} on a turn of {role}", "0 or 1, on turns of the assistant"
        )
    if weight == 0:
        raise _fault(
            "weight",
            f"{at}.weight",
            "is 0, but every turn of the assistant is trained in this version",
            "end the conversation before this turn, or leave such rows out: --set data.bad_rows=leave_out",
        )
    content = turn.get("content")
    if (
        isinstance(content, list)
        and len(content) == 1
        and isinstance(content[0], dict)
        and content[0].get("type") == "text"
    ):
        content = content[0].get("text")  # OpenAI's long form of one text
    if not isinstance(content, str):
        raise _wrong_type(f"{at}.content", content, "a text")
    if not content.strip() and role != "system":
        reason = "no_label" if role == "assistant" else "no_text"
        raise _fault(reason, f"{at}.content", "is empty", "write it, or remove the row")
    return Message(role=role, content=content)


def _text(fields: dict[str, Any], key: str, reason: str) -> str:
    value = fields.get(key)
    if value is None:
        raise _fault(reason, key, "is missing", "add it, or remove the row")
    if not isinstance(value, str):
        raise _wrong_type(key, value)
    if not value.strip():
        raise _fault(reason, key, "is empty", "fill it in, or remove the row")
    return value


def _label(fields: dict[str, Any], key: str) -> str:
    """A whole number is a class name like any other: `0` is read as the text "0"."""
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(fields, key, "no_label")


def _group(fields: dict[str, Any], key: str | None) -> str | None:
    if key is None:
        return None
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(fields, key, "no_group")


def _wrong_type(key: str, value: Any, wanted: str = "a text") -> Unusable:
    kinds = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
    }
    got = "missing" if value is None else kinds.get(type(value), type(value).__name__)
    return _fault("wrong_type", key, f"is {got}, not {wanted}", f"write {wanted}")


def _fault(reason: str, field: str, what: str, fix: str) -> Unusable:
    return Unusable(Fault(reason=reason, field=field, what=what, fix=fix))
