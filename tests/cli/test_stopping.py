"""The first Ctrl-C or SIGTERM lets the work save itself, the second ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
import tunesmith.api
from tunesmith.core.errors import Stopped

class Project:
    @classmethod
    def open(cls, path, overrides, *, progress, stop):
        self = cls()
        self.stop = stop
        return self

    def train(self, **kwargs):
        print("training", flush=True)
        for _ in range(5000):
            time.sleep(0.05)
            if self.stop.is_set() and {polite}:
                print("saved", flush=True)
                raise Stopped("stopped; what was done is saved", fix="run the same command again to go on")

    runs = train

tunesmith.api.Project = Project
from tunesmith.cli.app import run
sys.exit(run([{verb!r}]))
"""


def started(tmp_path: Path, verb: str = "train", polite: bool = True) -> subprocess.Popen[str]:
    program = PROGRAM.replace("{polite}", str(polite)).replace("{verb!r}", repr(verb))
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    process = started(tmp_path)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 130
    assert out == "saved\n"
    assert "stopping once the state is saved; again to end at once" in err
    assert "stopped; what was done is saved\n  fix:   run the same command again to go on" in err
    assert "Traceback" not in err


def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = started(tmp_path, polite=False)
    os.kill(process.pid, signal.SIGTERM)
    assert process.stderr is not None
    while "stopping once" not in process.stderr.readline():
        pass
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=280)
    assert process.returncode == -signal.SIGTERM


def test_a_verb_with_nothing_to_save_stops_at_the_first_ctrl_c(tmp_path: Path) -> None:
    process = started(tmp_path, verb="runs", polite=False)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 130
    assert err == "stopped\n"
