"""A kill costs no acknowledged fact, leaves no half object, and nothing lying about after the next start."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ledger import stages
from tests.ledger.stages import add_source, in_child, read_all, run_repeat
from tunesmith.core.stage import Workspace
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.ledger import Ledger


def write_on(state: Path, seed: int):
    """A writer that acknowledges each artifact, run and note once the ledger has said it is kept."""

    def child(pipe: int) -> None:
        rng = random.Random(seed)
        with Ledger.open(state) as ledger:
            source = add_source(ledger)
            for n in range(100_000):
                scratch = state.parent / f"scratch-{seed}-{n}"
                scratch.mkdir()
                for name in "ab":
                    (scratch / name).write_bytes(rng.randbytes(rng.randrange(1, 60_000)))
                artifact = ledger.add("checkpoint", scratch, move=rng.random() < 0.7)
                os.write(pipe, f"artifact {artifact.id}\n".encode())
                run = run_repeat(ledger, source, text=f"{seed}-{n}", times=3)
                os.write(pipe, f"run {run.id}\n".encode())
                ledger.note("n", {"id": f"{seed}-{n}"})
                os.write(pipe, f"note {seed}-{n}\n".encode())

    return child


def acknowledged(said: str) -> list[tuple[str, str]]:
    whole = said[: said.rfind("\n") + 1]
    return [(kind, id) for kind, id in (line.split() for line in whole.splitlines())]


def crash_loop(folder: Path, kills: int, seed: int, doctor_every: int) -> None:
    state, rng = folder / ".tunesmith", random.Random(seed)
    Ledger.open(state).close()
    kept: list[tuple[str, str]] = []
    for n in range(kills):
        pid, reading = in_child(write_on(state, n))
        first = os.read(reading, 1) if n % 2 else b""  # every second one gets as far as an acknowledgement
        time.sleep(rng.uniform(0.0, 0.3 if first else 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        new = acknowledged(first.decode() + read_all(reading))
        kept += new
        with Ledger.open(state) as ledger:
            notes = {note["id"] for note in ledger.notes("n")}
            for kind, id in new:
                if kind == "artifact":
                    ledger.path(id)  # verifies every file
                elif kind == "run":
                    assert ledger.run(id).status == "finished"
                else:
                    assert id in notes
            if n % doctor_every == 0 or n == kills - 1:
                assert doctor(ledger).findings == ()  # no damage, and no waste either
    with Ledger.open(state) as ledger:
        runs = {run.id for run in ledger.runs()}
        artifacts = {id for (id,) in ledger.records.database.read("SELECT id FROM artifacts")}
        notes = {note["id"] for note in ledger.notes("n")}
    assert {id for kind, id in kept if kind == "run"} <= runs
    assert {id for kind, id in kept if kind == "artifact"} <= artifacts
    assert {id for kind, id in kept if kind == "note"} <= notes
    assert len(kept) >= kills // 2
    print(f"{kills} kills, {len(kept)} facts acknowledged, 0 lost")


def test_fifteen_kills_lose_no_acknowledged_fact(tmp_path: Path) -> None:
    crash_loop(tmp_path, kills=15, seed=1, doctor_every=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_kills_lose_no_acknowledged_fact(tmp_path: Path) -> None:
    crash_loop(tmp_path, kills=500, seed=2, doctor_every=50)


def test_a_stage_killed_again_and_again_ends_with_the_same_outputs(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "calm" / ".tunesmith") as calm:
        want = run_repeat(calm, add_source(calm), times=60).outputs
    state, rng, started = tmp_path / "stormy" / ".tunesmith", random.Random(3), []
    with Ledger.open(state) as ledger:
        source = add_source(ledger)

    def child(pipe: int) -> None:
        def slowly(spec: Any, inputs: Any, work: Workspace) -> None:
            os.write(pipe, b"started\n")
            real = work.log
            work.log = lambda **values: (time.sleep(0.002), real(**values))  # type: ignore[method-assign]

        stages.hook = slowly
        with Ledger.open(state) as own:
            run_repeat(own, source, times=60)

    for _ in range(30):
        pid, reading = in_child(child)
        time.sleep(rng.uniform(0.01, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        started.append(read_all(reading))
    with Ledger.open(state) as ledger:
        assert run_repeat(ledger, source, times=60).outputs == want
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()
        assert list(ledger.work.iterdir()) == []
    assert sum("started" in s for s in started) >= 2
