"""What only some users need is imported where it is used, and its absence says what to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import MissingExtra
from tunesmith.core.extras import need


def test_a_library_that_is_there_is_given() -> None:
    assert need("json", extra="tables").loads("[1]") == [1]


def test_a_missing_one_names_the_extra_and_what_it_is_for() -> None:
    with pytest.raises(MissingExtra) as e:
        need("no_such_library.part", extra="tables", why="reading Parquet")
    assert "no_such_library is not installed, and reading Parquet needs it" in str(e.value)
    assert 'pip install "tunesmith[tables]"' in str(e.value)


def test_one_that_is_broken_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("raise ImportError('its other half is a package of its own')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"half_there cannot be imported \(its other half"):
        need("half_there", extra="documents")
