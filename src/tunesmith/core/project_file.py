"""`tunesmith.yaml`: found upwards, read strictly, with the place of every value and every problem.

`find_project` finds it, `load` reads it (with the parents that `extends:` names and `--set`
overrides) and refuses it with all problems at once, each with file, line, column and what to write
instead. The keys and defaults are in settings.py, the YAML in strict_yaml.py, what no single value
can tell in project_checks.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tunesmith.core import goals as goal_words
from tunesmith.core import project_checks
from tunesmith.core.errors import Problem, ProjectFileError, StorageError
from tunesmith.core.nouns import Goal, Task
from tunesmith.core.setting_errors import KeyPath, explain, nearest_key, setting_keys
from tunesmith.core.settings import Settings
from tunesmith.core.sources import expand
from tunesmith.core.strict_yaml import Node, Place, read, read_value

FILE_NAME = "tunesmith.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """A project file that holds: settings, and where each value was said."""

    path: Path  # of tunesmith.yaml, absolute
    settings: Settings
    origins: dict[str, str]  # "train.lr" -> "tunesmith.yaml:5", "base.yaml:3", "--set" or "default"

    @property
    def folder(self) -> Path:
        return self.path.parent

    def data_files(self) -> dict[str, Path]:
        """Every file that data.files stands for, by the name it is known by."""
        return expand(self.folder, self.settings.data.files).files

    def task(self) -> Task:
        return task_of(self.settings)

    def goals(self) -> tuple[Goal, ...]:
        return goal_words.parse_goals(self.settings.goals, self.task(), self.arms())

    def arms(self) -> tuple[str, ...]:
        """The arms that the tuned model is compared with."""
        return arms_of(self.settings)

    def warnings(self) -> tuple[str, ...]:
        return goal_words.warnings(self.task(), self.goals())

    def resolved(self) -> list[tuple[str, Any, str]]:
        """Every setting as (dotted key, value, origin), in the order of settings.py."""
        return [(key, value, self.origins[key]) for key, value in _leaves(self.settings)]


def find_project(start: Path) -> Path:
    """The nearest tunesmith.yaml in `start` or above it, as git finds its repository."""
    start = start.resolve()
    if start.is_file():
        return start
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise ProjectFileError(
        f"no {FILE_NAME} here or in any folder above" if start.is_dir() else "there is no such folder",
        where=str(start),
        fix="go into a project, name one with --project DIR, or make one: tunesmith init NAME --kind KIND --data FILE",
    )


def load(path: Path, overrides: Sequence[str] = ()) -> ProjectFile:
    """Read and check a project file. `overrides` are "train.lr=1e-4" and win over the file.

    Raises ProjectFileError with every problem found.
    """
    path = (path / FILE_NAME if path.is_dir() else path).absolute()
    problems: list[Problem] = []
    tree = _read_with_parents(path, problems)
    if tree is not None:
        for argument in overrides:
            _override(tree, argument, problems)
        if settings := _settings(tree, path.parent, problems):
            return ProjectFile(path=path, settings=settings, origins=_origins(tree, settings))
    raise ProjectFileError(_in_order(problems))


def task_of(settings: Settings) -> Task:
    said = settings.task
    return Task(
        kind=said.kind,
        text=said.text,
        label=said.label,
        group=said.group,
        audience=said.audience,
        tone=said.tone,
        system=said.system,
        labels=tuple(said.labels),
    )


def arms_of(settings: Settings) -> tuple[str, ...]:
    said = settings.evaluate.arms
    return goal_words.usual_arms(settings.task.kind) if said is None else tuple(said)


def _settings(tree: Node, folder: Path, problems: list[Problem]) -> Settings | None:
    """The settings, or None with `problems` extended by everything wrong.

    Wrong values are taken out and the rest is checked all the same, so that one look at the messages
    is enough to mend the file.
    """
    wrong = {path for path, node in tree.walk() if node.refused}
    given = _without(tree, wrong)
    try:
        settings = Settings.model_validate(given.plain())
    except ValidationError as e:
        found = explain(e, given)
        problems.extend(problem for _, problem in found)
        wrong |= {path for path, _ in found}
        try:
            settings = Settings.model_validate(_filled(_without(given, wrong)).plain())
        except ValidationError:
            return None  # what is left makes no project; the problems already say why
    problems.extend(project_checks.check(settings, tree, folder, wrong))
    return None if problems else settings


def _filled(tree: Node) -> Node:
    """With stand-ins for required values that are missing or wrong, so that the rest can be checked."""
    here = tree.place
    parts = dict(tree.value)
    stand_ins = {"task": ("kind", "classify"), "data": ("files", [Node(value="-", place=here)])}
    for section, (key, stand_in) in stand_ins.items():
        old = parts.get(section)
        inner = dict(old.value) if old is not None and isinstance(old.value, dict) else {}
        if key not in inner or inner[key].value == []:
            inner[key] = Node(value=stand_in, place=here)
        parts[section] = Node(value=inner, place=here)
    return Node(value=parts, place=here)


def _without(node: Node, wrong: set[KeyPath], path: KeyPath = ()) -> Node:
    """A copy without the values at `wrong` paths."""
    value = node.value
    if isinstance(value, dict):
        value = {k: _without(v, wrong, (*path, k)) for k, v in value.items() if (*path, k) not in wrong}
    elif isinstance(value, list):
        value = [_without(v, wrong, (*path, i)) for i, v in enumerate(value) if (*path, i) not in wrong]
    return Node(value=value, place=node.place, key=node.key)


def _read_with_parents(path: Path, problems: list[Problem]) -> Node | None:
    """The file's tree laid over its parent's, and so on; None if one of them cannot be read at all."""
    folder = path.parent.resolve()
    chain: list[Path] = []
    trees: list[Node] = []
    asked: Node | None = None  # the `extends:` value that named this file
    while True:
        tree = _read_file(path, folder, asked, problems)
        if tree is None:
            return None
        chain.append(path.resolve())
        trees.append(tree)
        asked = tree.value.get("extends")
        if asked is None or asked.value is None or asked.refused or not isinstance(asked.value, str):
            break  # a wrong type is reported with the other values
        path = path.parent / asked.value
        why, fix = _parent_problem(asked.value, path, folder, chain)
        if why:
            problems.append(Problem(where=str(asked.place), what=why, fix=fix))
            break
    merged = trees[-1]
    for tree in reversed(trees[:-1]):
        merged = _merge(merged, tree)
    return merged


def _parent_problem(name: str, path: Path, folder: Path, chain: list[Path]) -> tuple[str, str]:
    if Path(name).is_absolute():
        return f"extends: {name} is an absolute path", "name a file in the project folder, relative to this one"
    shown = goal_words.clipped(name)
    try:
        real = path.resolve()
        is_file, exists = real.is_file(), real.exists()
    except (OSError, RuntimeError, ValueError):  # a loop of symbolic links, a name that no file can have
        return f"extends: {shown} cannot be followed", "name a file in the project folder"
    if not real.is_relative_to(folder):
        return f"extends: {shown} leads out of the project folder", "copy that file into the project"
    if real in chain:
        way = " → ".join(p.name for p in (*chain[chain.index(real) :], real))
        return f"extends goes round in a circle: {way}", "remove one of these extends"
    if not is_file:
        return f"extends: {shown} is not a file" if exists else f"extends: {shown} does not exist", "check the path"
    return "", ""


def _read_file(path: Path, folder: Path, asked: Node | None, problems: list[Problem]) -> Node | None:
    try:
        shown = path.resolve().relative_to(folder).as_posix()
    except ValueError:
        shown = path.name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProjectFileError("does not exist", where=str(path), fix="make one: tunesmith init NAME") from None
    except OSError as e:
        where = str(asked.place) if asked else str(path)
        raise StorageError(f"{shown} cannot be read: {e.strerror}", where=where, fix="check its permissions") from e
    tree, found = read(data, shown)
    problems.extend(found)
    if tree is None:
        if not found:
            problems.append(Problem(where=shown, what="is empty", fix="it needs task: and data: at least"))
        return None
    if not isinstance(tree.value, dict):
        if not tree.refused:
            what = "the file must be `key: value` lines"
            problems.append(Problem(where=str(tree.place), what=what, fix="start with task: and data:"))
        return None
    return tree


def _merge(below: Node, above: Node) -> Node:
    """Mappings merge key by key; anything else replaces what is below it."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = _merge(merged[key], node) if key in merged else node
    return Node(value=merged, place=above.place, key=above.key, refused=above.refused)


def _override(tree: Node, argument: str, problems: list[Problem]) -> None:
    """Lay `train.lr=1e-4` over the tree, or say what is wrong with it."""
    where = f"--set {argument}"
    dotted, equals, text = argument.partition("=")
    dotted = dotted.strip()
    keys = setting_keys()
    if not equals:
        problems.append(Problem(where=where, what="has no value", fix=f"write --set {dotted or 'KEY'}=VALUE"))
        return
    if dotted not in keys:
        what = f"{goal_words.clipped(dotted) or 'an empty name'} is not a setting."
        if found := nearest_key(dotted):
            what += f" Did you mean {found}?"
        fix = "" if found else "`tunesmith config` lists every setting"
        if any(part.isdigit() or "[" in part for part in dotted.split(".")):
            fix = "lists are set whole: --set goals='[macro_f1 >= 0.7]'"
        problems.append(Problem(where=where, what=what, fix=fix))
        return
    if dotted == "extends":
        what = "extends belongs in the project file"
        problems.append(Problem(where=where, what=what, fix="set the values themselves"))
        return
    if not text.strip():
        fix = f"write --set {dotted}=null for no value, or --set {dotted}='\"\"' for empty text"
        problems.append(Problem(where=where, what="has no value", fix=fix))
        return
    node, found_problems = read_value(text, where)
    problems.extend(found_problems)
    if node is not None and not found_problems:
        _put(tree, dotted.split("."), node)


def _put(tree: Node, keys: list[str], node: Node) -> None:
    here = tree
    for key in keys[:-1]:
        child = here.value.get(key)
        if child is None or child.value is None:
            child = here.value[key] = Node(value={}, place=node.place)
        if not isinstance(child.value, dict):
            return  # a value where a section belongs: reported with the file's own problems
        here = child
    old = here.value.get(keys[-1])
    here.value[keys[-1]] = _merge(old, node) if old is not None else node


def _origins(tree: Node, settings: Settings) -> dict[str, str]:
    return {key: _origin(tree, key.split(".")) for key, _ in _leaves(settings)}


def _origin(tree: Node, keys: list[str]) -> str:
    node = tree
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return "default"
        node = node.value[key]
    return (node.key or node.place).origin


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            plain = [v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for v in value]
            yield prefix + name, plain
        elif isinstance(value, dict):
            yield (
                prefix + name,
                {k: v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for k, v in value.items()},
            )
        else:
            yield prefix + name, value


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """By file and line, as a person would go through them; each once."""

    def position(problem: Problem) -> tuple[bool, str, int, int]:
        file, *numbers = problem.where.split(":")[:3]
        line, column = ([int(n) for n in numbers if n.isdigit()] + [0, 0])[:2]
        return problem.where.startswith("--set"), file, line, column

    return sorted(dict.fromkeys(problems), key=position)


__all__ = ["FILE_NAME", "Place", "ProjectFile", "arms_of", "find_project", "load", "task_of"]
