"""The project file that `tunesmith init` writes: ten lines, commented, that load back as they were said."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tunesmith.core.canonical import write_atomic
from tunesmith.core.goals import usual_arms
from tunesmith.core.nouns import Kind
from tunesmith.core.project_file import FILE_NAME
from tunesmith.core.settings import Settings, json_schema
from tunesmith.core.strict_yaml import resolve

STATE = ".tunesmith"
SCHEMA = f"{STATE}/schema.json"  # beside the project, so that an editor needs no network
GROUP = "rows of one group never straddle a split"
# text that no YAML reader takes for anything but text
PLAIN = re.compile(r"[^\W\d_](?:[\w./+-]| (?=[\w./+-]))*")
GOAL = re.compile(r"[\w.]+ [<>]= [0-9.]+")


def write_project(
    folder: Path,
    *,
    kind: Kind,
    files: Sequence[str],
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    model: str | None = None,
    goals: Sequence[str] = (),
    audience: str = "",
    tone: str = "",
    shape: str | None = None,
) -> Path:
    """Write tunesmith.yaml, and the schema that its first line names, into `folder`; returns the file.

    `files` are as the project file shall name them. No goals: beat every cheaper arm. Nothing is
    checked here: load() does that.
    """
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (folder / STATE).mkdir(exist_ok=True)
    write_atomic(folder / STATE / ".gitignore", b"*\n")
    write_atomic(folder / SCHEMA, schema.encode("utf-8"))
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        "# `tunesmith config` lists every setting with its default",
        "task:",
        f"  kind: {kind}",
        *(f"  {name}: {scalar(column)}" for name, column in (("text", text), ("label", label)) if column is not None),
        *([f"  group: {scalar(group)}  # {GROUP}"] if group is not None else []),
        *(f"  {name}: {scalar(words)}" for name, words in (("audience", audience), ("tone", tone)) if words),
        "data:",
        f"  files: [{', '.join(scalar(name) for name in files)}]",
        *([f"  shape: {shape}  # how a record is read"] if shape else []),
        f"model: {scalar(model or default_model())}",
        *_goal_lines(kind, goals),
    ]
    path = folder / FILE_NAME
    write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return path


def default_model() -> str:
    return str(Settings.model_fields["model"].default)


def _goal_lines(kind: Kind, goals: Sequence[str]) -> list[str]:
    if goals:
        return ["goals:", *(f"  - {goal if GOAL.fullmatch(goal) else quoted(goal)}" for goal in goals)]
    if kind == "domain":
        return ["goals:", "  - beats: [zero_shot]  # in bits per byte"]
    return ["goals:", f"  - beats: [{', '.join(usual_arms(kind))}]  # a bar of your own: METRIC >= 0.70"]


def scalar(text: str) -> str:
    """`text` as YAML that every reader, also an old one, takes for just that text."""
    if PLAIN.fullmatch(text) and resolve(text, plain=True)[0] == text and text.lower() not in OLD_WORDS:
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """Between double quotes; characters that YAML takes for line ends, or not at all, are escaped."""
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
        lambda m: f"\\u{ord(m[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )


OLD_WORDS = {"yes", "no", "on", "off", "y", "n", "true", "false", "null"}  # YAML 1.1 and its booleans
