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
        name = module.split(".")[0]
        is_absent = isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] == name
        state = "is not installed" if is_absent else f"cannot be imported ({e})"
        raise MissingExtra(
            f"{name} {state}, and {why or 'this'} needs it", fix=f'pip install "tunesmith[{extra}]"'
        ) from e
