"""NAME=PLACE on the command line."""

from __future__ import annotations

from collections.abc import Sequence


def named_places(said: Sequence[str]) -> dict[str, str]:
    """Raises InputError for what is not NAME=PLACE, and for a name that is given twice."""
    from tunesmith.core.errors import InputError, Problem

    found: dict[str, str] = {}
    problems = []
    for text in said:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            problems.append(Problem(where=text, what="is not NAME=PLACE", fix="summaries=../summaries"))
        elif name in found:
            problems.append(Problem(where=text, what=f"{name} is given twice", fix="give each its own name"))
        found[name] = place
    if problems:
        raise InputError(problems)
    return found
