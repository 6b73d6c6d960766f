"""The stage clean, without its code: what it takes, what it gives, what decides the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """A pattern of the user's own. Its changes are recorded as "clean.replace_1", "clean.replace_2", ... in order."""

    pattern: str  # in Python's syntax; it may not match the empty text
    by: str  # may name groups: \\1, \\g<name>


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanSpec:
    """Which steps, in which order, over what."""

    kind: Kind  # a label of classify is never touched, whatever `fields` says
    steps: tuple[str | Replace, ...]  # names in catalogue.STEPS, each once, and patterns
    fields: tuple[Literal["input", "target"], ...]  # a domain row's text is its input
    boilerplate_rows: int  # a line (or paragraph) in at least this many rows is boilerplate ...
    boilerplate_share: float  # ... if that is also at least this share of the rows that check kept
    boilerplate_unit: Literal["line", "paragraph"]
    restored: tuple[str, ...]  # keys of changes and rows that a person took back


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanInputs:
    examples: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanOutputs:
    examples: Path = field(metadata={"kind": "examples"})


CLEAN = Stage(
    name="clean",
    version=1,
    function="tunesmith.data.clean.clean:clean",
    spec=CleanSpec,
    inputs=CleanInputs,
    outputs=CleanOutputs,
)
