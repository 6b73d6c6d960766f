"""Forgetting that is killed at any moment: the ledger is never damaged, and the same command again finishes it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.remembering import NAME, fill, remains
from tests.ledger.stages import in_child
from tunesmith.ledger.database import Database
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.forget import Forget, Forgotten, forget, tombstones
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import Session
from tunesmith.ledger.records import Records
from tunesmith.ledger.scrub import Scrub


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("filled")
    return folder, fill(folder / ".tunesmith", small=True)


def again(filled: tuple[Path, dict[str, str]], place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(filled[0], place, symlinks=True)
    return place / ".tunesmith"


def ask(state: Path, ids: dict[str, str]) -> Forgotten:
    with Ledger.open(state) as ledger:
        return forget(ledger, Forget(rows=(ids["row"],), texts=(NAME,)))


def check_and_finish(state: Path, ids: dict[str, str]) -> str:
    """No damage after the kill, nothing left after the same command again. Returns how far the killed one had come."""
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()  # no damage, and no waste either
        was_recorded = bool(tombstones(ledger))
        if was_recorded:
            assert remains(state) == []  # opening it has finished what was begun
    ask(state, ids)
    assert remains(state) == []
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()
        assert len(tombstones(ledger)) == 4
        for name in ("source", "check", "audit", "dataset", "answers", "report", "bundle", "judgments"):
            ledger.path(ids[name])
    return "recorded" if was_recorded else "not recorded"


def test_twenty_kills_at_random_moments(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    ids, rng = filled[1], random.Random(7)
    state = again(filled, tmp_path / "calm")
    started = time.monotonic()
    ask(state, ids)
    longest = time.monotonic() - started
    killed = []
    for n in range(20):
        state = again(filled, tmp_path / "stormy")

        def child(pipe: int, state: Path = state) -> None:
            os.write(pipe, b"s")
            ask(state, ids)

        pid, reading = in_child(child)
        assert os.read(reading, 1) == b"s"
        time.sleep(rng.uniform(0.0, longest))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        killed.append(check_and_finish(state, ids) if n % 2 else resumed_twice(state, ids, rng, longest))
    assert "not recorded" in killed


def resumed_twice(state: Path, ids: dict[str, str], rng: random.Random, longest: float) -> str:
    """The one that would finish it is killed as well."""
    pid, reading = in_child(lambda pipe: (ask(state, ids), None)[1])
    time.sleep(rng.uniform(0.0, longest))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    return check_and_finish(state, ids)


POINTS: dict[str, tuple[Any, str, bool]] = {  # after what, or before, the process dies
    "before the new files are in the store": (Session, "take", False),
    "after the new files are in the store": (Session, "take", True),
    "before it is announced": (Scrub, "announce", False),
    "after it is announced": (Scrub, "announce", True),
    "before the facts": (Records, "append", False),
    "after the facts": (Records, "append", True),
    "before old checks are forgotten": (Scrub, "_forget_checks", False),
    "before the databases are rewritten": (Database, "scrub", False),
    "after a database is rewritten": (Database, "scrub", True),
    "before the traces are rewritten": (Scrub, "_scrub_traces", False),
    "after the traces are rewritten": (Scrub, "_scrub_traces", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_step(point: str, filled: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    owner, name, is_after = POINTS[point]
    state, ids = again(filled, tmp_path / "p"), filled[1]

    def child(pipe: int) -> None:
        setattr(owner, name, deadly(getattr(owner, name), is_after))
        ask(state, ids)

    pid, reading = in_child(child)
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    assert os.WIFSIGNALED(status), "the point was never reached"
    far = check_and_finish(state, ids)
    assert far == ("recorded" if list(POINTS).index(point) >= list(POINTS).index("after the facts") else "not recorded")


def deadly(real: Callable[..., Any], is_after: bool) -> Callable[..., Any]:
    def die(*values: Any, **named: Any) -> Any:
        if is_after:
            real(*values, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def test_a_kill_after_every_file_that_is_removed(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The old files go one by one; a kill between two of them leaves none for long."""
    ids = filled[1]
    for nth in (1, 4):
        state = again(filled, tmp_path / "p")

        def child(pipe: int, state: Path = state, nth: int = nth) -> None:
            left, real = nth, Path.unlink

            def unlink(path: Path, **options: Any) -> None:
                nonlocal left
                real(path, **options)
                if len(path.name) == 64 and path.parent.parent.name == "objects":
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)

            Path.unlink = unlink  # type: ignore[method-assign,assignment]
            ask(state, ids)

        pid, reading = in_child(child)
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        assert os.WIFSIGNALED(status)
        assert remains(state) != []
        assert check_and_finish(state, ids) == "recorded"


def test_a_full_disk_leaves_everything_as_it_was(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    state, ids = again(filled, tmp_path / "p"), filled[1]
    real = os.fsync

    def full(fd: int) -> None:
        import errno

        raise OSError(errno.ENOSPC, "No space left on device")

    from tunesmith.core.errors import StorageError

    with Ledger.open(state) as ledger:
        os.fsync = full
        try:
            with pytest.raises(StorageError, match="the disk is full"):
                forget(ledger, Forget(rows=(ids["row"],), texts=(NAME,)))
        finally:
            os.fsync = real
        assert doctor(ledger).is_clean and not tombstones(ledger)
    assert check_and_finish(state, ids) == "not recorded"
