"""One record to its meaning, by the shape of its file; nothing is coerced into another shape."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.canonical import canonical_json
from tunesmith.core.nouns import Message
from tunesmith.data.lines import excerpt
from tunesmith.data.shapes.known import Shape, fault, fitting, wrong_type
from tunesmith.data.shapes.turns import answer_weight, conversation, openai_turns, sharegpt_turns, tools_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A record's meaning, not yet judged."""

    messages: tuple[Message, ...]
    target: str
    group: str | None = None
    rejected: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0  # in the loss


def convert(shape: Shape, fields: dict[str, Any]) -> Parts:
    """What the record says. Raises Unusable."""
    if not shape.declared:
        found = fitting(shape.kind, fields)
        if len(found) > 1:
            raise fault("two_shapes", "", f"fits {' and '.join(found)} at once", "keep the keys of one shape")
        if found and found[0] != shape.name:
            raise fault(
                "other_shape",
                "",
                f"is of shape {found[0]}, the file is {shape.name} ({shape.why})",
                "put rows of another shape into a file of their own",
            )
    parts = READ[shape.name](shape, fields)
    group = _group(fields, shape.group)
    if group is None and not shape.keep and shape.weight is None:
        return parts
    weight = parts.weight * _weight(fields, shape.weight)
    return replace(parts, group=group, fields=_kept(fields, shape.keep), weight=weight)


def start_of(fields: dict[str, Any], shape: Shape) -> str:
    """What a person would recognise the row by, short."""
    for key in shape.used:
        value = fields.get(key)
        if isinstance(value, dict):
            value = value.get("messages")
        if isinstance(value, str) and value.strip():
            return excerpt(value)
        if isinstance(value, list):
            said = (
                turn.get("content", turn.get("value"))
                for turn in value
                if isinstance(turn, dict) and (turn.get("role") == "user" or turn.get("from") in ("human", "user"))
            )
            return excerpt(next((text for text in said if isinstance(text, str)), ""))
    return ""


def _chat(shape: Shape, fields: dict[str, Any]) -> Parts:
    turns = openai_turns(fields.get("messages"))
    messages, target = conversation(turns)
    return Parts(messages=messages, target=target, tools=tools_of(fields.get("tools")), weight=answer_weight(turns))


def _sharegpt(shape: Shape, fields: dict[str, Any]) -> Parts:
    turns = sharegpt_turns(fields.get("conversations"))
    system = _optional(fields, "system")
    if system.strip():
        if turns and turns[0].role == "system":
            what = "stands beside a turn of the system: which one is meant is unknown"
            raise fault("turns", "system", what, "keep one of them")
        turns.insert(0, Message(role="system", content=system))
    messages, target = conversation(turns, "conversations")
    return Parts(messages=messages, target=target, tools=tools_of(fields.get("tools")))


def _preference(shape: Shape, fields: dict[str, Any]) -> Parts:
    """OpenAI's: one turn that is preferred and one that is not, to the same input."""
    given = fields.get("input")
    if not isinstance(given, dict):
        raise wrong_type("input", given, "an object with messages")
    before = openai_turns(given.get("messages"), "input.messages")
    preferred = _only_text(openai_turns(fields.get("preferred_output"), "preferred_output"), "preferred_output")
    other = _only_text(openai_turns(fields.get("non_preferred_output"), "non_preferred_output"), "non_preferred_output")
    messages, target = conversation([*before, preferred], "input.messages")
    tools = tools_of(given.get("tools"), "input.tools")
    return Parts(messages=messages, target=target, rejected=_differs(other.content, target), tools=tools)


def _only_text(turns: list[Message], at: str) -> Message:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise fault(
            "turns", at, f"holds {len(turns)} turn(s), not one of the assistant", "write one turn of the assistant"
        )
    if turns[0].tool_calls:
        what = "calls tools: answers that are compared must be texts"
        raise fault("tool_calls", f"{at}[0].tool_calls", what, "leave such rows out: --set data.bad_rows=leave_out")
    return turns[0]


def _chosen_rejected(shape: Shape, fields: dict[str, Any]) -> Parts:
    """TRL's: texts with a prompt, turns with a prompt, or two whole conversations that part at their last turn."""
    prompt, chosen, rejected = fields.get("prompt"), fields.get("chosen"), fields.get("rejected")
    tools = tools_of(fields.get("tools"))
    if isinstance(chosen, str):
        if prompt is None:
            what = "is missing, and where a prompt ends within the texts is not said"
            raise fault("no_text", "prompt", what, "divide the texts into prompt, chosen and rejected")
        before = openai_turns(prompt, "prompt") if isinstance(prompt, list) else None
        if before is None:
            before = [Message(role="user", content=_text(fields, "prompt", "no_text"))]
        answer = Message(role="assistant", content=_text(fields, "chosen", "no_label"))
        messages, target = conversation([*before, answer], "prompt")
        other = _text(fields, "rejected", "no_label")
        return Parts(messages=messages, target=target, rejected=_differs(other, target), tools=tools)
    good, bad = openai_turns(chosen, "chosen"), openai_turns(rejected, "rejected")
    if prompt is None:
        if len(good) < 2 or good[:-1] != bad[:-1]:
            what = "the two conversations differ before their last turn: what they answer is not one prompt"
            raise fault("turns", "rejected", what, "write the common turns as prompt")
        before, good, bad = good[:-1], good[-1:], bad[-1:]
    else:
        before = openai_turns(prompt, "prompt") if not isinstance(prompt, str) else []
        if isinstance(prompt, str):
            before = [Message(role="user", content=_text(fields, "prompt", "no_text"))]
    messages, target = conversation([*before, _only_text(good, "chosen")], "prompt" if prompt else "chosen")
    other = _only_text(bad, "rejected").content
    return Parts(messages=messages, target=target, rejected=_differs(other, target), tools=tools)


def _differs(rejected: str, target: str) -> str:
    if rejected == target:
        raise fault("same_answers", "", "both answers are the same: nothing is preferred", "remove the row")
    return rejected


def _instruction(shape: Shape, fields: dict[str, Any]) -> Parts:
    """Alpaca: the input, where there is one, follows the instruction after an empty line."""
    if fields.get("history"):
        raise fault("history", "history", "earlier turns cannot be said in this shape", "write such rows as messages")
    said = _text(fields, "instruction", "no_text")
    given = _optional(fields, "input")
    if given.strip():
        said = f"{said}\n\n{given}"
    system = _optional(fields, "system")
    head = (Message(role="system", content=system),) if system.strip() else ()
    return Parts(messages=(*head, Message(role="user", content=said)), target=_text(fields, "output", "no_label"))


def _flan(shape: Shape, fields: dict[str, Any]) -> Parts:
    """The template is already in `inputs`; task and template_type say which one it was, and data.keep keeps them."""
    return _asked(_text(fields, "inputs", "no_text"), _text(fields, "targets", "no_label"))


def _prompt_completion(shape: Shape, fields: dict[str, Any]) -> Parts:
    if isinstance(fields.get("label"), bool):
        raise fault(
            "preference",
            "label",
            "prompt, completion and a true-or-false label is preference data: half of it shows what not to say",
            "keep the rows with label true, without the label",
        )
    return _asked(_text(fields, "prompt", "no_text"), _text(fields, "completion", "no_label"))


def _trace(shape: Shape, fields: dict[str, Any]) -> Parts:
    """A served request whose content was kept; its messages may be the JSON text that the trace store holds."""
    turns = fields.get("messages")
    if turns is None or fields.get("answer") is None:
        what = "the content of this request was not kept"
        raise fault("no_content", "messages", what, "serve.store_content: true keeps it from now on")
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            raise fault("not_json", "messages", "is not JSON", "export the traces again") from None
    status = fields.get("status")
    if isinstance(status, int) and status >= 400:
        raise fault("failed_request", "status", f"is {status}: the request failed", "leave it out")
    answer = Message(role="assistant", content=_text(fields, "answer", "no_label"))
    messages, target = conversation([*openai_turns(turns), answer])
    return Parts(messages=messages, target=target)


def _text_label(shape: Shape, fields: dict[str, Any]) -> Parts:
    return _asked(_text(fields, shape.text, "no_text"), _label(fields, shape.label))


def _domain(shape: Shape, fields: dict[str, Any]) -> Parts:
    return Parts(messages=(), target=_text(fields, shape.text, "no_text"))


def _asked(text: str, answer: str) -> Parts:
    return Parts(messages=(Message(role="user", content=text),), target=answer)


READ = {
    "messages": _chat,
    "preference": _preference,
    "sharegpt": _sharegpt,
    "instruction": _instruction,
    "flan": _flan,
    "prompt_completion": _prompt_completion,
    "chosen_rejected": _chosen_rejected,
    "traces": _trace,
    "text_label": _text_label,
    "text": _domain,
}


def _text(fields: dict[str, Any], key: str, reason: str) -> str:
    value = fields.get(key)
    if value is None:
        raise fault(reason, key, "is missing", "add it, or remove the row")
    if not isinstance(value, str):
        raise wrong_type(key, value)
    if not value.strip():
        raise fault(reason, key, "is empty", "fill it in, or remove the row")
    return value


def _optional(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise wrong_type(key, value)
    return value or ""


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


def _weight(fields: dict[str, Any], key: str | None) -> float:
    """What a row says it counts in the loss: a positive number."""
    if key is None:
        return 1.0
    value = fields.get(key)
    try:
        weight = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        fix = "a number above 0; leave rows out that should not count"
        raise fault("weight", key, f"is {value!r}, which is no weight", fix)
    return weight


def _kept(fields: dict[str, Any], keep: tuple[str, ...]) -> dict[str, Any]:
    """The columns that data.keep names, where the row has them."""
    kept = {key: fields[key] for key in keep if fields.get(key) is not None}
    for key, value in kept.items():
        try:
            canonical_json(value)
        except (ValueError, TypeError, RecursionError):
            raise fault(
                "wrong_type", key, "has no JSON form (binary, NaN or infinity)", "leave it out of data.keep"
            ) from None
        if isinstance(value, bytes):
            raise wrong_type(key, value)
    return kept
