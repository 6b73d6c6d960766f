"""Everything that can go wrong and is not our bug. A traceback is only for our own mistakes.

TunesmithError               exit code 2
├── InputError               the user's files, settings or arguments; carries every problem found
│   ├── ProjectFileError     tunesmith.yaml
│   ├── DataError            rows and columns
│   └── ModelError           a model folder, a bundle, a weight file
├── StorageError             disk full, folder read-only, an object that no longer matches its hash
├── ReceiptError             a prompt no longer becomes the tokens the model was trained on
├── MissingExtra             an optional dependency is not installed
└── Busy                     a port in use, a lock held elsewhere
Stopped                      Ctrl-C or SIGTERM, after saving state; exit code 130
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong, in a form a person can act on."""

    where: str  # "tunesmith.yaml:9:3", "rows.csv:214: label", "--port"; "" if nowhere in particular
    what: str  # what is wrong and why it matters
    fix: str = ""  # what to do; a command where one exists

    def __str__(self) -> str:
        first = f"{self.where}: {self.what}" if self.where else self.what
        return f"{first}\n  fix:   {self.fix}" if self.fix else first


class TunesmithError(Exception):
    """Root of every error a user can cause or meet. `str()` is the message to print."""

    exit_code = 2

    def __init__(self, problems: Problem | Iterable[Problem] | str, *, fix: str = "", where: str = ""):
        if isinstance(problems, str):
            problems = Problem(where=where, what=problems, fix=fix)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class InputError(TunesmithError):
    """The user's files, settings or arguments."""


class ProjectFileError(InputError):
    """The project file, with line and column."""


class DataError(InputError):
    """Rows, columns or labels."""


class ModelError(InputError):
    """A model folder, a bundle or a weight file."""


class StorageError(TunesmithError):
    """The disk is full or read-only, or a stored object no longer matches its hash."""


class ReceiptError(TunesmithError):
    """A prompt no longer becomes the tokens the model was trained on."""


class MissingExtra(TunesmithError):
    """An optional dependency is needed and not installed."""


class Busy(TunesmithError):
    """A port or a lock is held by somebody else."""


class Stopped(TunesmithError):
    """Work was interrupted after its state was saved; running the same command resumes it."""

    exit_code = 130


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Refuse a value where it is first known: `require(0 < rank, "rank", rank, "a positive integer")`."""
    if not condition:
        raise InputError(Problem(where=field, what=f"{value!r} is not {expected}"))
