"""Equal values have equal ids; a write is whole or not at all, and readable by those who should."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.core.canonical import canonical_json, content_id, file_id, read_lines, write_atomic, write_lines
from tunesmith.core.errors import StorageError
from tunesmith.core.nouns import Message


def test_order_of_keys_and_kind_of_sequence_do_not_matter() -> None:
    assert content_id({"b": 1, "a": (1, 2)}) == content_id({"a": [1, 2], "b": 1})
    assert canonical_json({"ü": 1.0, "a": None}) == '{"a":null,"ü":1.0}'.encode()
    assert content_id(Message(role="user", content="x")) == content_id({"role": "user", "content": "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_has_no_portable_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"(?i)json|surrogate"):
        canonical_json({"x": value})


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    said = [Message(role="user", content="line\nbreak \u2028"), Message(role="assistant", content="")]
    assert write_lines(tmp_path / "x.jsonl", said) == 2
    assert list(read_lines(tmp_path / "x.jsonl", Message)) == said
    assert len(file_id(tmp_path / "x.jsonl")) == 64


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    write_atomic(target, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_files_get_the_mode_that_the_user_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
