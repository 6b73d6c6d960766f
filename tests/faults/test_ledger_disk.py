"""Every call to the disk may fail: a clear message, nothing damaged, and the next try completes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.stages import journey
from tunesmith.core.errors import StorageError
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.environment import environment
from tunesmith.ledger.ledger import Ledger

ROOT = Path(__file__).parents[2]


@contextmanager
def failing(name: str, nth: int, fault: int | str) -> Iterator[list[int]]:
    """Let the n-th call of os.<name> fail; yields the list of calls made."""
    real: Callable[..., Any] = getattr(os, name)
    calls: list[int] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] != nth:
            return real(*args, **kwargs)
        if fault == "short":
            return real(args[0], args[1][: len(args[1]) // 2])
        path = args[0] if isinstance(args[0], str | Path) else None
        raise OSError(fault, os.strerror(int(fault)), path and str(path))

    setattr(os, name, call)
    try:
        yield calls
    finally:
        setattr(os, name, real)


def assert_whole(state: Path, outputs: dict[str, str]) -> None:
    run = journey(state)
    assert run.outputs == outputs
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()


FAULTS = [
    ("write", errno.ENOSPC),
    ("write", "short"),
    ("fsync", errno.EIO),
    ("rename", errno.ENOSPC),
    ("mkdir", errno.EACCES),
    ("symlink", errno.EROFS),
]
MORE_FAULTS = [
    ("write", errno.EIO),
    ("fsync", errno.ENOSPC),
    ("rename", errno.EIO),
    ("replace", errno.EIO),
    ("open", errno.EIO),
    ("open", errno.EACCES),
    ("open", errno.ENOSPC),
    ("mkdir", errno.ENOSPC),
    ("fchmod", errno.EPERM),
    ("read", errno.EIO),
    ("unlink", errno.EIO),
]


def fail_each(folder: Path, name: str, fault: int | str, grow: int) -> None:
    """Let the n-th call fail, n = 1, 2, ... until a run meets no fault; with `grow`, ever longer steps."""
    outputs = journey(folder / "sound" / ".tunesmith").outputs
    environment()  # asks git once for a process; not part of this
    nth, told, met = 1, 0, True
    while met:
        state = folder / str(nth) / ".tunesmith"
        (state.parent / "data").mkdir(parents=True)  # the user's, not the ledger's
        with failing(name, nth, fault) as calls:
            try:
                journey(state)
            except StorageError as e:
                told += 1
                assert all(p.where and p.fix for p in e.problems), e
                assert any(word in str(e) for word in ("the disk", "no permission", "read-only")), e
        met = len(calls) >= nth
        assert_whole(state, outputs)
        shutil.rmtree(state.parent)
        nth += 1 + (nth // grow if grow else 0)
    assert nth > 2
    assert told or fault == "short" or name == "unlink"  # a leftover is swept later and needs no message


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_failing_call_is_a_clear_message_and_the_rerun_completes(tmp_path: Path, name: str, fault: int | str) -> None:
    fail_each(tmp_path, name, fault, grow=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "fault"), FAULTS + MORE_FAULTS)
def test_every_nth_call_failing_is_a_clear_message_and_the_rerun_completes(
    tmp_path: Path, name: str, fault: int | str
) -> None:
    fail_each(tmp_path, name, fault, grow=0)


# Below Python: SQLite's own calls. strace makes the n-th of them fail.


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is not installed, or tracing is not allowed")
SCRIPT = """
import sys
from pathlib import Path
from tests.ledger.stages import journey
from tunesmith.core.errors import StorageError
try:
    print(journey(Path(sys.argv[1])).id)
except StorageError as e:
    print(e, file=sys.stderr)
    raise SystemExit(2)
"""


def traced_journey(state: Path, call: str, error: str, nth: int) -> tuple[subprocess.CompletedProcess[str], bool]:
    """The journey in a process whose n-th `call` fails; and whether that happened."""
    log = state.parent / "strace.log"
    inject = f"inject={call}:error={error}:when={nth}"
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={call}", "-e", inject, sys.executable, "-c", SCRIPT]
    done = subprocess.run([*command, str(state)], cwd=ROOT, capture_output=True, text=True)
    return done, "(INJECTED)" in log.read_text(encoding="utf-8", errors="replace")


def fail_in_sqlite(folder: Path, call: str, error: str, numbers: range | tuple[int, ...]) -> int:
    outputs = journey(folder / "sound" / ".tunesmith").outputs
    met = 0
    for nth in numbers:
        state = folder / f"{call}-{nth}" / ".tunesmith"
        state.parent.mkdir()
        done, injected = traced_journey(state, call, error, nth)
        if not injected:
            break
        met += 1
        assert done.returncode in (0, 2), done.stderr  # 0: SQLite could do without that call
        if done.returncode == 2:
            assert str(state.parent) in done.stderr
            assert "fix:" in done.stderr
        assert_whole(state, outputs)
        shutil.rmtree(state.parent)
    return met


@needs_strace
@pytest.mark.parametrize(("call", "error"), [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO")])
def test_a_fault_in_sqlite_is_a_clear_message_and_the_rerun_completes(tmp_path: Path, call: str, error: str) -> None:
    assert fail_in_sqlite(tmp_path, call, error, (2, 7, 20) if call == "pwrite64" else (1, 3))


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("call", "error"),
    [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO"), ("ftruncate", "EIO")],
)
def test_every_fault_in_sqlite_is_a_clear_message_and_the_rerun_completes(
    tmp_path: Path, call: str, error: str
) -> None:
    print(call, error, fail_in_sqlite(tmp_path, call, error, range(1, 400)))


def test_a_real_limit_on_file_size_is_a_clear_message(tmp_path: Path) -> None:
    """No injection: the kernel refuses to let any file grow past 8 KiB, as a full disk would."""
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n" + SCRIPT
    )
    state = tmp_path / "p" / ".tunesmith"
    state.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", limited, str(state)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "ledger.db" in done.stderr
    assert "fix:" in done.stderr
    assert_whole(state, journey(tmp_path / "sound" / ".tunesmith").outputs)
