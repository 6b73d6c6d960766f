"""What no single value of the project file can tell: values that must fit each other, and files.

Each check is a generator of problems; it is skipped where a value it rests on is already known to
be wrong, so that one mistake gives one message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import goals as goal_words
from tunesmith.core import matrix_cells
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Task
from tunesmith.core.setting_errors import KeyPath, dotted, node_at
from tunesmith.core.settings import Settings
from tunesmith.core.sources import expand, is_several
from tunesmith.core.strict_yaml import Node
from tunesmith.core.wording import problem_of

COLUMNAR = (".csv", ".tsv", ".tab")
NEEDS_COLUMNS = {"classify": ("text", "label"), "extract": ("text", "label"), "summarize": ("text", "label"),
                 "instruct": ("text", "label"), "domain": ("text",)}  # fmt: skip


def check(settings: Settings, tree: Node, folder: Path, wrong: set[KeyPath]) -> list[Problem]:
    """Every problem between values. `tree` gives places, `wrong` the paths already complained about."""
    project = _Checked(settings=settings, tree=tree, folder=folder, wrong=wrong)
    return [
        *_columns(project),
        *_labels(project),
        *_split(project),
        *_data_files(project),
        *_arms(project),
        *_metrics(project),
        *_goals(project),
        *_general(project),
        *_matrix(project),
        *_wordings(project),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    settings: Settings
    tree: Node
    folder: Path
    wrong: set[KeyPath]

    def sound(self, *paths: KeyPath) -> bool:
        """Whether none of these values, nor the sections they are in, is already known to be wrong."""
        return not any(w == path[: len(w)] or path == w[: len(path)] for path in paths for w in self.wrong)

    def kept(self, path: KeyPath) -> list[int]:
        """Positions in the file of the list items that were right and so are in the settings."""
        items = node_at(self.tree, path).value
        return [i for i in range(len(items)) if (*path, i) not in self.wrong] if isinstance(items, list) else []

    def problem(self, path: KeyPath, what: str, fix: str = "") -> Problem:
        node = node_at(self.tree, path)
        return Problem(where=str(node.place), what=what, fix=fix)


def _columns(project: _Checked) -> Iterator[Problem]:
    task, names = project.settings.task, project.settings.data.files
    columnar = [n for n in names if n.lower().endswith(COLUMNAR)]
    if not columnar or not project.sound(("task", "kind")):
        return
    for name in NEEDS_COLUMNS.get(task.kind, ()):
        if getattr(task, name) is None and project.sound(("task", name)):
            what = f"task.{name} is missing: {columnar[0]} has columns, and a {task.kind} task must know which one"
            yield project.problem(("task", name), what, f"{name}: COLUMN")
    said = {n: getattr(task, n) for n in ("text", "label", "group") if getattr(task, n) is not None}
    for name, column in said.items():
        twin = next((n for n in said if n != name and said[n] == column), None)
        if name != "text" and twin == "text":
            yield project.problem(("task", name), f"task.{name} and task.text name the same column, {column}")


def _labels(project: _Checked) -> Iterator[Problem]:
    labels, kind = project.settings.task.labels, project.settings.task.kind
    if not labels or not project.sound(("task", "labels"), ("task", "kind")):
        return
    if kind != "classify":
        yield project.problem(("task", "labels"), f"task.labels means nothing for a {kind} task", "remove it")
        return
    for i, label in enumerate(labels):
        if not label.strip():
            yield project.problem(("task", "labels", i), f"task.labels[{i}] is empty", "name the class or remove it")
        elif label in labels[:i]:
            yield project.problem(("task", "labels", i), f'task.labels names "{label}" twice', "remove one")
    if len(labels) == 1:
        yield project.problem(("task", "labels"), "task.labels names one class; telling apart takes two")


def _split(project: _Checked) -> Iterator[Problem]:
    split = project.settings.data.split
    shares = {"train": split.train, "validation": split.validation, "test": split.test}
    if not project.sound(*(("data", "split", name) for name in shares)):
        return
    for name, share in shares.items():
        if share == 0:
            what = f"data.split.{name} is 0; every split needs rows"
            yield project.problem(("data", "split", name), what, "give it a share such as 0.1")
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        said = " + ".join(f"{share:g}" for share in shares.values())
        what = f"the shares of data.split are {said} = {total:g}; they must sum to 1"
        yield project.problem(("data", "split"), what, "set train, validation and test together")


def _data_files(project: _Checked) -> Iterator[Problem]:
    path, names = ("data", "files"), project.settings.data.files
    if not names and not project.settings.documents.files and project.sound(("data",), ("documents",)):
        what = "data.files is missing: it names the files with the rows"
        yield project.problem(("data",), what, "files: [FILE]; or documents.files for manuals and glossaries")
    places = project.kept(path)
    seen: dict[str, str] = {}
    for i, name in zip(places, names, strict=False):
        same = os.path.normpath(project.folder / name)
        if same in seen:
            other = seen[same]
            what = f"{name} is named twice" if other == name else f"{other} and {name} have the same file name"
            yield project.problem((*path, i), what, "remove one")
        elif not is_several(project.folder, name):
            why, fix = _file_problem(project.folder / name, name)
            if why:
                yield project.problem((*path, i), why, fix)
        seen[same] = name
    found = expand(project.folder, list(dict.fromkeys(names)))
    for empty in found.empty:
        what = f"no file matches {names[empty]}" if "*" in names[empty] else f"the folder {names[empty]} has no files"
        yield project.problem((*path, places[empty]), what, f"looked in {project.folder}")
    for clash in found.clashes:
        first, second = (_shown(project.folder, p) for p in (clash.first, clash.second))
        what = f"{first} and {second} have the same file name"
        yield project.problem((*path, places[clash.entry]), what, "rename one, or name the folder they are in")


def _shown(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _file_problem(path: Path, name: str) -> tuple[str, str]:
    if not name.strip():
        return "a data file's name is empty", "name a file"
    try:
        if not path.exists():
            if os.path.lexists(path):
                return f"data file {name} is a link to nothing", "mend or replace the link"
            what = f"data file {name} does not exist"
            near = (
                goal_words.nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
            )
            return what, f"did you mean {near}?" if near else f"looked for {path}"
        if not path.is_file():
            return f"data file {name} is not a regular file", "name a file"
        if not os.access(path, os.R_OK):
            return f"data file {name} cannot be read", "check its permissions"
    except (OSError, ValueError) as e:  # a name longer than the system allows, a folder we may not enter
        return f"data file {name[:80]} cannot be opened: {getattr(e, 'strerror', None) or e}", "check the name"
    return "", ""


def _arms(project: _Checked) -> Iterator[Problem]:
    arms, kind = project.settings.evaluate.arms, project.settings.task.kind
    path = ("evaluate", "arms")
    if arms is None or not project.sound(("task", "kind")):
        return
    seen: set[str] = set()
    for i, arm in zip(project.kept(path), arms, strict=False):
        if arm in seen:
            yield project.problem((*path, i), f"evaluate.arms names {arm} twice", "remove one")
        seen.add(arm)
        if why := goal_words.arm_problem(arm, kind):
            yield project.problem((*path, i), f"evaluate.arms names {arm}: {why[0]}", why[1])
        seen.add(arm)
        if arm in goal_words.CLASSIFIERS and kind != "classify":
            usable = ", ".join(goal_words.usual_arms(kind))
            yield project.problem((*path, i), f"{arm} is a classifier; a {kind} task has no classes", f"use {usable}")


def _metrics(project: _Checked) -> Iterator[Problem]:
    path = ("evaluate", "metrics")
    if not project.sound(("task", "kind")):
        return
    for i, name in zip(project.kept(path), project.settings.evaluate.metrics, strict=False):
        if found := goal_words.metric_problem(name, project.settings.task.kind):
            yield project.problem((*path, i), *found)
        elif goal_words.METRIC_NAMES[name].of_one_class:
            what = f"{name} is of one class; the report's table by class shows it for each"
            yield project.problem((*path, i), what, "leave it out here, and use it in a goal with @ label=NAME")


def _goals(project: _Checked) -> Iterator[Problem]:
    """Goals are parsed one by one, so that each keeps its own place."""
    if not project.sound(("task", "kind"), ("evaluate", "arms")):
        return
    said = project.settings.task
    task = Task(kind=said.kind, group=said.group, labels=tuple(said.labels))
    arms = project.settings.evaluate.arms
    compared = goal_words.usual_arms(task.kind) if arms is None else arms
    try:
        goal_words.parse_goals(project.settings.goals, task, compared)
    except InputError as e:
        kept = project.kept(("goals",))
        for problem in e.problems:
            path = ("goals", kept[int(problem.where[6:-1])])
            yield project.problem(path, f"{dotted(path)}: {problem.what}", problem.fix)


def _general(project: _Checked) -> Iterator[Problem]:
    """Settings that speak of general data, where there is none."""
    train = project.settings.train
    if project.sound(("train", "refusals")):
        try:
            re.compile(train.refusals)
        except re.error as e:
            what = f"train.refusals is no pattern: {e}"
            yield project.problem(("train", "refusals"), what, "a regular expression such as (?i)cannot help")
    if train.general or not project.sound(("train", "general")):
        return
    fix = "name files: train.general: [FILE]"
    for key, said in (("max_loss_rise", train.max_loss_rise is not None), ("refusals", bool(train.refusals))):
        if said and project.sound(("train", key)):
            yield project.problem(("train", key), f"train.{key} needs general data to score, and there is none", fix)
    if "general" in train.mixture and project.sound(("train", "mixture")):
        what = "train.mixture has a share for general, and there is no general data to replay"
        yield project.problem(("train", "mixture"), what, fix)


def _matrix(project: _Checked) -> Iterator[Problem]:
    """Names that are no cells, cells that are the same training, a metric that cannot judge this kind."""
    said, path = project.settings.matrix, ("matrix",)
    if not project.sound(("train",), ("matrix", "cells")):
        return
    cells = matrix_cells.cells_of(project.settings)
    for name, twin in matrix_cells.twins({n: c.model_dump(exclude_unset=True) for n, c in said.cells.items()}).items():
        what = f"matrix.cells.{name} is the same training as {twin}"
        yield project.problem((*path, "cells", name), what, "remove one, or change a setting in it")
    for i, name in zip(project.kept((*path, "full")), said.full or [], strict=False):
        if name in (said.full or [])[:i]:
            yield project.problem((*path, "full", i), f"matrix.full names {name} twice", "remove one")
        elif name not in cells:
            what = f"matrix.full names {goal_words.clipped(name)}, which is not a cell"
            yield project.problem((*path, "full", i), what, goal_words.did_you_mean(name, list(cells)))
    if said.choose is not None and said.choose not in cells and project.sound((*path, "choose")):
        what = f"matrix.choose names {goal_words.clipped(said.choose)}, which is not a cell"
        yield project.problem((*path, "choose"), what, goal_words.did_you_mean(said.choose, list(cells)))
    if said.metric is not None and project.sound(("task", "kind"), (*path, "metric")):
        if found := goal_words.metric_problem(said.metric, project.settings.task.kind):
            yield project.problem((*path, "metric"), *found)
        elif goal_words.METRIC_NAMES[said.metric].of_one_class:
            what = f"{said.metric} is of one class, and a matrix compares the whole"
            yield project.problem((*path, "metric"), what, "name another metric")


def _wordings(project: _Checked) -> Iterator[Problem]:
    """Templates name fields that there are; the one that serves may only name the text."""
    task, train = project.settings.task, project.settings.train
    if not project.sound(("task", "kind"), ("task", "template"), ("train", "templates"), ("train", "systems")):
        return
    names = {"text", *project.settings.data.keep}
    given: list[tuple[KeyPath, str, set[str]]] = [(("task", "template"), task.template, {"text"})]
    given += [(("train", "templates", name), said, names) for name, said in train.templates.items()]
    for path, said, fields in given:
        if why := problem_of(said, fields):
            fix = "name columns that data.keep keeps" if path[0] == "train" else "a request has no field but {text}"
            yield project.problem(path, f"{dotted(path)}: {why}", fix)
    for path, value in ((("train", "templates"), train.templates), (("train", "systems"), train.systems)):
        if value and task.kind == "domain":
            yield project.problem(
                path, f"{dotted(path)} means nothing for a domain task: texts are no turns", "remove it"
            )
    for name, said in train.systems.items():
        if not said.strip():
            yield project.problem(
                ("train", "systems", name), f"train.systems.{name} is empty", "write it, or remove it"
            )
