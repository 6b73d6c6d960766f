"""Pydantic's complaints about the settings, as sentences with a place and the nearest valid key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunesmith.core.errors import Problem
from tunesmith.core.goals import LONGEST_NAME, clipped, nearest
from tunesmith.core.settings import GoalSettings, Settings
from tunesmith.core.strict_yaml import Node, Place

KeyPath = tuple[str | int, ...]

# what other tools call it, so that a habit finds its key here
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "task.kind": ("type", "task_type"),
    "task.text": ("input", "prompt", "text_column", "source", "document", "question", "instruction"),
    "task.label": ("target", "output", "completion", "answer", "label_column", "summary", "class", "response"),
    "task.group": ("groups", "group_by", "group_column"),
    "task.system": ("system_prompt",),
    "task.labels": ("classes", "categories", "label_names"),
    "data.files": ("file", "path", "paths", "train_file", "data_files", "dataset"),
    "data.split.validation": ("valid", "val", "dev", "eval"),
    "data.bad_rows": ("on_error", "invalid_rows"),
    "data.limit": ("max_samples", "max_rows", "subset"),
    "model": ("base", "base_model", "model_name", "model_name_or_path", "model_id"),
    "train.lr": ("learning_rate", "rate"),
    "train.epochs": ("num_train_epochs", "num_epochs", "n_epochs"),
    "train.global_batch": ("batch_size", "per_device_train_batch_size", "gradient_accumulation_steps", "batch"),
    "train.max_tokens": ("max_length", "max_seq_length", "max_seq_len", "cutoff_len", "sequence_len"),
    "train.schedule": ("lr_scheduler_type", "lr_scheduler", "scheduler"),
    "train.warmup": ("warmup_ratio", "warmup_steps"),
    "train.max_grad_norm": ("clip", "gradient_clipping", "grad_clip"),
    "train.precision": ("bf16", "fp16", "dtype"),
    "train.patience": ("early_stopping_patience", "early_stopping"),
    "train.method": ("peft", "adapter", "lora"),
    "train.method.rank": ("r", "lora_r", "lora_rank"),
    "train.method.alpha": ("lora_alpha",),
    "train.method.dropout": ("lora_dropout",),
    "train.method.targets": ("target_modules", "lora_target", "lora_target_modules"),
    "train": ("training", "trainer", "hyperparameters", "sft"),
    "evaluate": ("eval", "evaluation"),
    "evaluate.arms": ("baselines",),
    "goals": ("goal", "targets", "gate"),
    "exec.micro_batch_tokens": ("micro_batch", "micro_batch_size"),
    "exec.threads": ("num_threads", "num_workers"),
    "serve": ("server", "serving"),
}

BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a section of `key: value` lines",
    "model_attributes_type": "a section of `key: value` lines",
    "dict_type": "a section of `key: value` lines",
}


@cache
def setting_keys() -> tuple[str, ...]:
    """Every dotted key, sections before what is in them: "train", "train.method", "train.method.kind"."""
    return tuple(_keys(Settings))


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def nearest_key(dotted: str) -> str:
    """The setting that `dotted` most likely means, or "": by spelling, section and other tools' names."""
    if len(dotted) > LONGEST_NAME:
        return ""
    section, _, wanted = dotted.lower().rpartition(".")
    best, best_score = "", 0.0
    for key in setting_keys():
        home, _, name = key.rpartition(".")
        score = max(_likeness(wanted, n) for n in (name, *OTHER_NAMES.get(key, ())))
        score += 0.2 if home == section else 0.05 if home.startswith(section) and section else 0.0
        if "." in dotted:
            score = max(score, _likeness(dotted.lower(), key))
        if score > best_score:
            best, best_score = key, score
    return best if best_score >= 0.75 else ""


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def explain(error: ValidationError, tree: Node) -> list[tuple[KeyPath, Problem]]:
    """One problem for each value that is wrong, with the path of the value in the tree."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        path, rest = _split(details["loc"], tree, missing=details["type"] in ("missing", "extra_forbidden"))
        if _is_other_branch(path, rest, tree):
            continue
        by_path.setdefault(path, []).append(details)
    return [(path, _problem(path, errors, tree)) for path, errors in by_path.items()]


def _split(loc: KeyPath, tree: Node, *, missing: bool) -> tuple[KeyPath, KeyPath]:
    """`loc` without the names of union branches that pydantic puts into it, and what was cut off."""
    path: list[str | int] = []
    rest: list[str | int] = []
    node: Node | None = tree
    for i, part in enumerate(loc):
        value = node.value if node else None
        inside = isinstance(part, int) if isinstance(value, list) else isinstance(value, dict) and part in value
        if inside and node is not None:
            node = node.value[part]
            path.append(part)
        elif missing and i == len(loc) - 1:
            path.append(part)
        else:
            rest.append(part)
    return tuple(path), tuple(rest)


def _is_other_branch(path: KeyPath, rest: KeyPath, tree: Node) -> bool:
    """Whether the complaint is only that a goal written as a mapping is not text."""
    if len(path) != 2 or path[0] != "goals" or not rest:
        return False
    return (rest[-1] == "str") == isinstance(node_at(tree, path).value, dict)


def node_at(tree: Node, path: KeyPath) -> Node:
    """The node at `path`, or the nearest one above it that exists."""
    node = tree
    for part in path:
        try:
            node = node.value[part]
        except (KeyError, IndexError, TypeError):
            break
    return node


def dotted(path: KeyPath) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def _problem(path: KeyPath, errors: list[ErrorDetails], tree: Node) -> Problem:
    name = dotted(path)
    node = node_at(tree, path)
    kind = errors[0]["type"]
    if kind == "extra_forbidden":
        return _unknown(path, node)
    if kind == "missing":
        place = node.place if len(path) < 2 else (node.key or node.place)
        return Problem(where=str(place), what=f"{name} is missing", fix=_how_to_say(name))
    value = node.plain()
    if path[:1] == ("goals",) and len(path) == 2:
        what = f"{name} is {shown(value)}; a goal is text or a mapping"
        return Problem(where=str(node.place), what=what, fix="write macro_f1 >= 0.70")
    expected = " or ".join(dict.fromkeys(_expected(e) for e in errors))
    what = f"{name} is {shown(value)}; it must be {expected}"
    place = node.key if value is None and node.key else node.place
    return Problem(where=str(place), what=what, fix=_hint(value, kind, errors[0]))


def _unknown(path: KeyPath, node: Node) -> Problem:
    name = dotted(path)
    place = node.key or node.place
    if path[0] == "goals":
        found = nearest(str(path[-1]), GoalSettings.model_fields)
        found = found and f"{dotted(path[:-1])}.{found}"
    elif path[:2] == ("matrix", "cells") and len(path) > 3:  # a cell has the keys of `train`
        found = nearest_key(dotted(("train", *path[3:])))
        found = found and f"{dotted(path[:3])}.{found.removeprefix('train.')}" if found.startswith("train.") else ""
    else:
        found = nearest_key(name)
    what = f"{clipped(name)} is not a setting." + (f" Did you mean {found}?" if found else "")
    fix = "" if found else "`tunesmith config` lists every setting"
    return Problem(where=str(place), what=what, fix="use extends: BASE.yaml" if path[-1] == "<<" else fix)


def _expected(error: ErrorDetails) -> str:
    kind, ctx = error["type"], error.get("ctx", {})
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"{words} {ctx[bound]:g}"
    if kind == "literal_error":
        expected: str = ctx["expected"]
        return expected.replace("'", "") if " " not in expected else f"one of {expected.replace(chr(39), '')}"
    if kind == "too_short":
        return "a list that names at least one"
    return TYPES.get(kind) or error["msg"]


def _hint(value: Any, kind: str, error: ErrorDetails) -> str:
    if kind == "literal_error" and isinstance(value, str):
        known = [w.strip(" '") for w in error.get("ctx", {})["expected"].replace(" or ", ",").split(",")]
        found = nearest(value, known)
        return f"did you mean {found}?" if found else ""
    if kind == "string_type" and isinstance(value, int | float):
        return f'quote it: "{shown(value)}"'
    if kind == "list_type" and not isinstance(value, list | dict) and value is not None:
        return f"write [{value}]"
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"write {'true' if str(value).lower() in ('yes', 'on', 'y') else 'false'}"
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return "write the number without quotes, with a point: 0.001 or 1e-3"
    if kind == "model_type" and value is None:
        return "put its keys below it, indented, or remove the line"
    if value is None:
        return "give it a value, or remove the line"
    return ""


def shown(value: Any) -> str:
    """A value as the reader of the message would write it; long ones shortened."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + '..."'


def _how_to_say(name: str) -> str:
    return {
        "task": "add task: {kind: classify, text: COLUMN, label: COLUMN}",
        "task.kind": "kind: classify, extract, summarize, instruct, chat or domain",
        "data": "add data: {files: [FILE]}",
        "data.files": "files: [FILE]",
    }.get(name, "")


__all__ = ["KeyPath", "Place", "dotted", "explain", "nearest_key", "node_at", "setting_keys", "shown"]
