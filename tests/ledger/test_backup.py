"""A backup is whole, consistent while others write, and opens as a ledger."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, in_child, read_all, run_repeat
from tunesmith.core.errors import InputError, StorageError
from tunesmith.core.nouns import Artifact
from tunesmith.ledger.backup import backup
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import copy_hashed


def test_a_backup_opens_as_a_ledger_with_everything_in_it(ledger: Ledger, tmp_path: Path) -> None:
    run = run_repeat(ledger, add_source(ledger))
    ledger.note("look", {"n": 1})
    done = backup(ledger, tmp_path / "copy")
    with Ledger.open(tmp_path / "copy") as restored:
        assert doctor(restored).findings == ()
        assert restored.runs() == [run]
        assert restored.notes("look") == ledger.notes("look")
        assert (restored.path(run.outputs["rows"]) / "two.txt").read_text(encoding="utf-8") == "x"
        assert run_repeat(restored, run.inputs["source"]).reused
        assert done.objects == len(list(restored.objects.hashes()))
    assert done.facts == ledger.records.database.read("SELECT count(*) FROM facts")[0][0]
    assert done.folder == tmp_path / "copy"


def test_a_backup_shares_no_file_with_the_original(ledger: Ledger, tmp_path: Path) -> None:
    add_source(ledger)
    backup(ledger, tmp_path / "copy")
    copies = [p for p in (tmp_path / "copy" / "objects").rglob("*") if p.is_file()]
    assert copies
    assert all(p.stat().st_nlink == 1 and p.stat().st_mode & 0o777 == 0o444 for p in copies)


def test_a_model_in_the_cache_is_named_as_left_out(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"weights")
    (tmp_path / "cache").mkdir()
    entry = copy_hashed(tmp_path / "w", tmp_path / "cache" / "m")
    ledger.add_external(Artifact(kind="model", files={"m": entry}), tmp_path / "cache")
    done = backup(ledger, tmp_path / "copy")
    assert (done.left_out, done.objects) == ((str(tmp_path / "cache"),), 0)


def test_an_existing_destination_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError, match="the destination exists"):
        backup(ledger, tmp_path / "copy")


def test_a_damaged_object_stops_the_backup_and_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    add_source(ledger)
    (object_,) = [ledger.objects.file(h) for h in ledger.objects.hashes()]
    object_.chmod(0o644)
    object_.write_bytes(b"rot")
    with pytest.raises(StorageError, match="nothing was backed up"):
        backup(ledger, tmp_path / "copy")
    assert not [p for p in tmp_path.iterdir() if "copy" in p.name]


def test_what_a_killed_backup_left_is_no_backup_and_no_hindrance(ledger: Ledger, tmp_path: Path) -> None:
    add_source(ledger)
    (tmp_path / ".copy.partial" / "objects").mkdir(parents=True)
    (tmp_path / ".copy.partial" / "ledger.db").write_bytes(b"half")
    backup(ledger, tmp_path / "copy")
    assert not (tmp_path / ".copy.partial").exists()
    with Ledger.open(tmp_path / "copy") as restored:
        assert doctor(restored).findings == ()


def test_a_backup_is_consistent_while_another_process_writes(ledger: Ledger, tmp_path: Path) -> None:
    source = add_source(ledger)

    def child(pipe: int) -> None:
        with Ledger.open(ledger.state) as own:
            for n in range(10_000):
                run = run_repeat(own, source, text=str(n), times=1)
                os.write(pipe, f"{run.id}\n".encode())

    pid, reading = in_child(child)
    os.read(reading, 1)  # it has begun
    try:
        sizes = []
        for n in range(4):
            done = backup(ledger, tmp_path / f"copy{n}")
            sizes.append(done.facts)
            with Ledger.open(done.folder) as restored:
                assert doctor(restored).findings == ()
            time.sleep(0.05)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    read_all(reading)
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]  # it was writing meanwhile
