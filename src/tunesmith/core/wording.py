"""How a user's turn is worded: a text with {text} where the user's own words stand, and other fields of the row.

    filled("Which chapter is {text}?", {"text": "Fracture of tibia"})
    problem_of("Which chapter is {txt}?", {"text"})       why it cannot be used, "" if it can

Placeholders are names alone; braces that are meant are doubled. What serves may only name {text}: a request has no
other fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any

PLAIN = "{text}"


def parts_of(wording: str) -> list[tuple[str, str | None]]:
    """(literal text, the field after it or None). Raises ValueError for what is no wording."""
    found = []
    for literal, field, spec, conversion in Formatter().parse(wording):
        if field is not None and (not field.isidentifier() or spec or conversion):
            raise ValueError(f"{{{field}}} is no name of a field (braces that are meant are doubled)")
        found.append((literal, field))
    return found


def problem_of(wording: str, fields: Collection[str]) -> str:
    """Why it cannot be used with these fields; "" if it can."""
    try:
        named = [field for _, field in parts_of(wording) if field is not None]
    except ValueError as e:
        return str(e)
    for field in named:
        if field not in fields:
            near = difflib.get_close_matches(field, sorted(fields), n=1)
            guess = f", did you mean {{{near[0]}}}?" if near else ""
            return f"{{{field}}} is not known{guess} (fields: {', '.join(sorted(fields))})"
    return "" if "text" in named else "does not hold {text}, so every row would ask the same"


def filled(wording: str, values: Mapping[str, Any]) -> str:
    """The turn. Raises KeyError for a field that the row lacks."""
    return "".join(literal + (str(values[field]) if field else "") for literal, field in parts_of(wording))
