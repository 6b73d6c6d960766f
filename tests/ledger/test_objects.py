"""The store keeps content, once, read-only, and takes nothing it does not own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tunesmith.core.errors import InputError, StorageError
from tunesmith.ledger import objects
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import copy_hashed, files_of
from tunesmith.ledger.verify import Placed, problem_with


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def stored(ledger: Ledger, text: str) -> Path:
    return ledger.objects.file(hashlib.sha256(text.encode()).hexdigest())


def test_a_moved_file_is_renamed_into_the_store_and_read_once(ledger: Ledger, tmp_path: Path, monkeypatch) -> None:
    folder = put(tmp_path / "out", weights="w" * 3_000_000)
    inode, reads = (folder / "weights").stat().st_ino, []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, n: reads.append(len(data := real(fd, n))) or data)
    artifact = ledger.add("checkpoint", folder, move=True)
    assert stored(ledger, "w" * 3_000_000).stat().st_ino == inode
    assert sum(reads) == 3_000_000
    assert not (folder / "weights").exists()
    assert artifact.files["weights"].bytes == 3_000_000


def test_the_users_own_file_is_copied_and_never_linked(ledger: Ledger, tmp_path: Path) -> None:
    folder = put(tmp_path / "data", rows="1,2")
    ledger.add("source", folder, move=False)
    (folder / "rows").write_text("3,4", encoding="utf-8")  # the user goes on editing
    kept = stored(ledger, "1,2")
    assert kept.read_text(encoding="utf-8") == "1,2"
    assert kept.stat().st_nlink == 1


@pytest.mark.parametrize("kind", ["symbolic link", "hard link"])
def test_moving_a_link_takes_a_copy_and_leaves_its_target(ledger: Ledger, tmp_path: Path, kind: str) -> None:
    original = put(tmp_path / "elsewhere", a="kept") / "a"
    folder = tmp_path / "out"
    folder.mkdir()
    if kind == "hard link":
        os.link(original, folder / "a")
    else:
        (folder / "a").symlink_to(original)
    ledger.add("report", folder, move=True)
    original.write_text("edited later", encoding="utf-8")
    assert stored(ledger, "kept").read_text(encoding="utf-8") == "kept"
    assert not stored(ledger, "kept").is_symlink()


def test_stored_files_are_read_only(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add("report", put(tmp_path / "out", a="1"), move=True)
    ledger.add("source", put(tmp_path / "data", b="2"), move=False)
    assert [stored(ledger, t).stat().st_mode & 0o777 for t in "12"] == [0o444, 0o444]


def test_adding_the_same_content_again_writes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.add("report", put(tmp_path / "one", a="same"), move=True)
    before = stored(ledger, "same").stat()
    facts = ledger.records.database.read("SELECT count(*) FROM facts")
    again = ledger.add("report", put(tmp_path / "two", a="same"), move=True)
    after = stored(ledger, "same").stat()
    assert (first.id, before.st_ino, before.st_mtime_ns) == (again.id, after.st_ino, after.st_mtime_ns)
    assert ledger.records.database.read("SELECT count(*) FROM facts") == facts


def test_adding_good_content_heals_a_damaged_object(ledger: Ledger, tmp_path: Path) -> None:
    artifact = ledger.add("report", put(tmp_path / "one", a="same"), move=True)
    target = stored(ledger, "same")
    target.chmod(0o644)
    target.write_text("rot!", encoding="utf-8")
    ledger.add("report", put(tmp_path / "two", a="same"), move=True)
    assert (ledger.path(artifact.id) / "a").read_text(encoding="utf-8") == "same"


def test_a_file_from_another_file_system_is_copied_then_removed(ledger: Ledger, tmp_path: Path, monkeypatch) -> None:
    folder = put(tmp_path / "out", a="far")
    real = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        found = real(self, **options)
        if self == folder / "a":
            return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
        return found

    monkeypatch.setattr(Path, "stat", stat)
    ledger.add("report", folder, move=True)
    monkeypatch.undo()
    assert stored(ledger, "far").read_text(encoding="utf-8") == "far"
    assert not (folder / "a").exists()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch) -> None:
    source = put(tmp_path, a="0123456789" * 1000) / "a"
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: max(1, len(data) // 3)]))
    entry = copy_hashed(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert entry.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_opening_sweeps_what_a_killed_writer_left(ledger: Ledger, tmp_path: Path) -> None:
    lost = hashlib.sha256(b"lost").hexdigest()
    kept = ledger.add("report", put(tmp_path / "out", a="kept"), move=True).files["a"].sha256
    ledger.objects.file(lost).parent.mkdir(exist_ok=True)
    ledger.objects.file(lost).write_bytes(b"lost")
    (ledger.objects.temporary / "1.intent").write_text(f"{lost}\n{kept}\n", encoding="ascii")
    (ledger.objects.temporary / "2.tmp").write_bytes(b"half")
    (ledger.objects.temporary / "3.view").mkdir()
    Ledger.open(ledger.state).close()
    assert list(ledger.objects.hashes()) == [kept]  # the acknowledged one stays, though the intent names it
    assert list(ledger.objects.temporary.iterdir()) == []


def test_a_live_writer_is_not_swept(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.objects.session() as session:
        session.take({"a": put(tmp_path / "out", a="busy") / "a"}, move=True)
        Ledger.open(ledger.state).close()  # another process starts meanwhile
        assert stored(ledger, "busy").exists()


def test_verification_names_file_expected_found_and_remedy(ledger: Ledger, tmp_path: Path) -> None:
    artifact = ledger.add("report", put(tmp_path / "out", a="good"), move=True)
    target = stored(ledger, "good")
    target.chmod(0o644)
    target.write_text("evil", encoding="utf-8")
    with pytest.raises(StorageError) as caught:
        ledger.path(artifact.id)
    message = str(caught.value)
    assert str(target) in message
    assert f"expected SHA-256 {artifact.files['a'].sha256}" in message
    assert f"found {hashlib.sha256(b'evil').hexdigest()}" in message
    assert "remove the file and run the same command again" in message
    target.unlink()
    with pytest.raises(StorageError, match="the file is missing"):
        ledger.path(artifact.id)


def test_problem_with_finds_nothing_wrong_with_a_right_file(tmp_path: Path) -> None:
    entry = copy_hashed(put(tmp_path, a="1") / "a", tmp_path / "b")
    assert problem_with(Placed(path=tmp_path / "b", entry=entry, remedy="")) is None


def test_folders_with_nothing_to_keep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        files_of(tmp_path / "absent")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="broken link"):
        files_of(tmp_path)
    (tmp_path / "broken").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        files_of(tmp_path)
    (tmp_path / "pipe").unlink()
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    with pytest.raises(InputError, match="not UTF-8"):
        files_of(tmp_path)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b"])
def test_names_that_leave_the_folder_are_refused(ledger: Ledger, tmp_path: Path, name: str) -> None:
    file = put(tmp_path / "out", a="1") / "a"
    with pytest.raises(InputError, match="must be relative"):
        ledger.add_files("source", {name: file}, move=False)


def test_the_chunk_of_a_copy_is_bounded(tmp_path: Path, monkeypatch) -> None:
    """Weights are never held in memory whole."""
    asked: list[int] = []
    real = os.read
    monkeypatch.setattr(objects.os, "read", lambda fd, n: asked.append(n) or real(fd, n))
    copy_hashed(put(tmp_path, a="0" * 5_000_000) / "a", tmp_path / "b")
    assert max(asked) <= 1 << 20
