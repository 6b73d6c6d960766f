"""Libraries that only some users need: imported where used, with an error that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from tunesmith.core.errors import MissingExtra


def need(module: str, *, extra: str, why: str = "") -> Any:
    """The module. Raises MissingExtra naming the extra that brings it; `why`: what it is wanted for."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        if e.name is not None and e.name.split(".")[0] != module.split(".")[0]:
            raise  # it is there, and something in it is broken
        raise MissingExtra(
            f"{module.split('.')[0]} is not installed, and {why or 'this'} needs it",
            fix=f'pip install "tunesmith[{extra}]"',
        ) from e
