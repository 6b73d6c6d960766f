"""Several processes write one ledger: nobody is told that it is locked, and nothing is lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, in_child, read_all, run_repeat
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.ledger import Ledger


def write_for(state: Path, source: str, writer: int, seconds: float):
    def child(pipe: int) -> None:
        took: list[float] = []
        errors: list[str] = []
        runs = notes = 0
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                with Ledger.open(state) as ledger:  # opening and closing are part of it, as with commands
                    for n in range(20):
                        started = time.monotonic()
                        ledger.note("n", {"writer": writer, "n": n})
                        took.append(time.monotonic() - started)
                        notes += 1
                    run_repeat(ledger, source, text=f"{writer}-{runs}", times=1)
                    runs += 1
        except Exception as e:
            errors.append(f"{type(e).__name__}: {e}")
        os.write(pipe, json.dumps({"took": took, "errors": errors, "runs": runs, "notes": notes}).encode())

    return child


def load(state: Path, writers: int, seconds: float) -> list[float]:
    """Seconds each commit took, sorted."""
    with Ledger.open(state) as ledger:
        source = add_source(ledger)
    children = [in_child(write_for(state, source, w, seconds)) for w in range(writers)]
    told = [json.loads(read_all(reading)) for _, reading in children]
    for pid, _ in children:
        os.waitpid(pid, 0)
    assert [t["errors"] for t in told] == [[]] * writers
    with Ledger.open(state) as ledger:
        assert len(ledger.runs()) == sum(t["runs"] for t in told)
        assert len(ledger.notes("n")) == sum(t["notes"] for t in told)
        assert all(t["runs"] for t in told)  # nobody starved
        assert doctor(ledger).findings == ()
    return sorted(seconds for t in told for seconds in t["took"])


def test_four_writers_never_read_that_the_ledger_is_locked(tmp_path: Path) -> None:
    took = load(tmp_path / ".tunesmith", writers=4, seconds=3)
    print(f"{len(took)} commits, p99 {took[int(len(took) * 0.99)] * 1000:.1f} ms")
    assert len(took) > 100


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_writers_commit_within_a_quarter_of_a_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    took = load(tmp_path / ".tunesmith", writers=8, seconds=float(os.environ.get("TUNESMITH_LOAD_SECONDS", "60")))
    p99 = took[int(len(took) * 0.99)]
    with capsys.disabled():
        print(f"\n8 writers, {len(took)} commits: p50 {took[len(took) // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")
    assert p99 < 0.25
