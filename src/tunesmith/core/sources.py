"""The user's data files by name: `data.files` may name files, folders (everything in them) and globs.

A file named outright is known by its own name, one found in a folder or by a glob by its path below it, so
that `mail/spam/1.eml` keeps its folder. Hidden files and our own are no data and are passed over.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = frozenset({"tunesmith.yaml", "report.html", "look.html"})
MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Two files that would be known by one name."""

    entry: int  # position in data.files
    name: str
    first: Path
    second: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    files: dict[str, Path]  # relative POSIX name -> absolute path, in the order of the names
    empty: tuple[int, ...]  # entries that name no file
    clashes: tuple[Clash, ...]


def expand(root: Path, entries: Sequence[str]) -> Sources:
    """Every file that `entries`, relative to `root`, stand for. A file that does not exist is kept: whoever
    reads it says so."""
    files: dict[str, Path] = {}
    empty: list[int] = []
    clashes: list[Clash] = []
    for i, entry in enumerate(entries):
        found = _files_of(root, entry)
        if not found:
            empty.append(i)
        for name, path in found.items():
            if name in files and files[name] != path:
                clashes.append(Clash(entry=i, name=name, first=files[name], second=path))
            files[name] = path
    return Sources(files=dict(sorted(files.items())), empty=tuple(empty), clashes=tuple(clashes))


def is_several(root: Path, entry: str) -> bool:
    """Whether the entry is a folder or a glob, and not one file."""
    path = root / entry  # os.path: a name longer than the system allows is no folder, and no error here
    return bool(entry.strip()) and (os.path.isdir(path) or (not os.path.exists(path) and not MAGIC.isdisjoint(entry)))  # noqa: PTH112, PTH110


def _files_of(root: Path, entry: str) -> dict[str, Path]:
    path = (root / entry).absolute()
    if not is_several(root, entry):
        return {path.name: path}
    if path.is_dir():
        top = Path(os.path.normpath(path)).name
        return {f"{top}/{name}": file for name, file in _below(path).items()}
    found: dict[str, Path] = {}
    base = root.absolute()
    for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 (Path.glob takes no absolute pattern)
        file = Path(match)
        name = file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name
        inside = _below(file) if file.is_dir() else {"": file}
        found |= {f"{name}/{rest}".rstrip("/"): inner for rest, inner in inside.items() if _is_data(file.name)}
    return found


def _below(folder: Path) -> dict[str, Path]:
    found = {}
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in sorted(names):
            if _is_data(name):
                file = Path(where) / name
                found[file.relative_to(folder).as_posix()] = file
    return found


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name not in OURS
