"""The shapes that people's files have, and which one a file is."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.data.lines import Fault

LOOKED_AT = 20  # first records that the shape is found from
NEEDED = {
    "messages": ("messages",),
    "preference": ("input", "preferred_output", "non_preferred_output"),
    "sharegpt": ("conversations",),
    "instruction": ("instruction", "output"),
    "flan": ("inputs", "targets"),
    "prompt_completion": ("prompt", "completion"),
    "chosen_rejected": ("chosen", "rejected"),
    "traces": ("messages", "answer", "bundle"),
    "text_label": ("text", "label"),
}
SHAPES = (*NEEDED, "text")
OPTIONAL = {
    "messages": ("tools",),
    "sharegpt": ("system", "tools"),
    "instruction": ("input", "system"),
    "chosen_rejected": ("prompt", "tools"),
    "traces": ("status",),
}
ANSWERS = {
    "messages": "messages[-1].content",
    "preference": "preferred_output[0].content",
    "sharegpt": "conversations[-1].value",
    "instruction": "output",
    "flan": "targets",
    "prompt_completion": "completion",
    "chosen_rejected": "chosen",
    "traces": "answer",
}
KNOWN = (
    "messages; input, preferred_output, non_preferred_output; conversations; instruction, input, output; "
    "inputs, targets; prompt, completion; prompt, chosen, rejected; text, label"
)


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
    keep: tuple[str, ...] = ()  # further columns that go into Row.fields
    weight: str | None = None  # the column that says how much a row counts
    declared: bool = False  # the task named the columns: no other shape is looked for

    @property
    def answer_field(self) -> str:
        """Where a row of this shape says its answer."""
        return ANSWERS.get(self.name, self.label)

    @property
    def used(self) -> dict[str, str]:
        """Column -> what it is used as."""
        if self.name in ("text_label", "text"):
            roles = {self.text: "text"} if self.name == "text" else {self.text: "text", self.label: "label"}
        else:
            roles = {c: c for c in NEEDED[self.name] + OPTIONAL.get(self.name, ())}
        kept = {c: "kept" for c in self.keep if c not in roles and c not in (self.group, self.weight)}
        weighed = {self.weight: "weight"} if self.weight else {}
        return roles | ({self.group: "group"} if self.group else {}) | weighed | kept


def named_shape(kind: str, text: str, label: str | None, group: str | None, keep: tuple[str, ...] = ()) -> Shape:
    """The shape that the task's own column names make."""
    name = "text" if kind == "domain" else "text_label"
    named = f"task.text is {text!r}" + (f", task.label is {label!r}" if name == "text_label" else "")
    return Shape(
        name=name, why=named, text=text, label=label or "label", group=group, kind=kind, keep=keep, declared=True
    )


def stated_shape(name: str, kind: str, group: str | None, keep: tuple[str, ...] = ()) -> Shape | Problem:
    """The shape that data.shape says."""
    if name not in SHAPES:
        near = nearest(name, SHAPES)
        fix = f"--set data.shape={near}" if near else f"shapes: {', '.join(SHAPES)}"
        return Problem(where="data.shape", what=f"{name!r} is not a shape", fix=fix)
    if (name == "text") != (kind == "domain"):
        wanted = "text" if kind == "domain" else f"one of {', '.join(NEEDED)}"
        return Problem(
            where="data.shape", what=f"{name!r} says nothing that a {kind} task can learn from", fix=f"write {wanted}"
        )
    return Shape(name=name, why=f"data.shape is {name}", group=group, kind=kind, keep=keep)


def detect_shape(
    kind: str,
    first: Sequence[Iterable[str]],
    group: str | None,
    file: str,
    *,
    is_table: bool,
    keep: tuple[str, ...] = (),
) -> Shape | Problem:
    """The shape that most of the first records fit, or what was seen instead. `first` holds their keys."""
    fits = Counter(found[0] for keys in first if len(found := fitting(kind, keys)) == 1)
    if fits:
        name, n = fits.most_common(1)[0]
        keys = "text" if name == "text" else ", ".join(NEEDED[name])
        why = f"the header has {keys}" if is_table else f"{n} of the first {len(first)} rows have {keys}"
        return Shape(name=name, why=why, group=group, kind=kind, keep=keep)
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
    return list(_fitting(kind, frozenset(keys)))


@lru_cache(maxsize=1024)
def _fitting(kind: str, have: frozenset[str]) -> tuple[str, ...]:
    if kind == "domain":
        return ("text",) if "text" in have else ()
    found = [name for name, needed in NEEDED.items() if have.issuperset(needed)]
    if "traces" in found:
        found.remove("messages")  # a trace has them too; it is told by its bundle
    return tuple(found)


def missing_columns(shape: Shape, keys: Iterable[str], file: str) -> list[Problem]:
    """The columns that are asked for and that the file lacks, each with the nearest one it has."""
    have = list(dict.fromkeys(keys))
    wanted = [("task.group", shape.group)] if shape.group else []
    if shape.name in ("text_label", "text"):
        wanted.insert(0, ("task.text", shape.text))
    if shape.name == "text_label":
        wanted.insert(1, ("task.label", shape.label))
    wanted += [("data.weight", shape.weight)] if shape.weight else []
    wanted += [("data.keep", column) for column in shape.keep]
    problems = []
    for setting, column in wanted:
        if column in have:
            continue
        near = nearest(str(column), have)
        seen = ", ".join(map(repr, have[:12])) + (f" and {len(have) - 12} more" if len(have) > 12 else "")
        guess = f"did you mean {near!r}? " if near else ""
        fix = f"data.keep: [{near or 'NAME'}]" if setting == "data.keep" else f"--set {setting}={near or 'NAME'}"
        problems.append(
            Problem(
                where=f"{file}:1",
                what=f"there is no column {column!r} ({setting}); {guess}The file has: {seen}",
                fix=fix,
            )
        )
    return problems


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, by letters, without regard to case."""
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def fault(reason: str, field: str, what: str, fix: str) -> Unusable:
    return Unusable(Fault(reason=reason, field=field, what=what, fix=fix))


def wrong_type(key: str, value: Any, wanted: str = "a text") -> Unusable:
    kinds = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        bytes: "binary",
    }
    got = "missing" if value is None else kinds.get(type(value), type(value).__name__)
    return fault("wrong_type", key, f"is {got}, not {wanted}", f"write {wanted}")
