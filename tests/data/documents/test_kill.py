"""A teacher's replies survive SIGKILL: what was kept is not paid for again, and the result is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.data.documents.making import Paired, honest, run_documents, teacher
from tests.data.documents.test_pairs import MANUAL
from tunesmith.data.documents.teacher import WORKERS

SCRIPT = """
import sys
from pathlib import Path
from tests.data.documents.making import pairs_spec, teacher_spec
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.pairs import pairs
from tunesmith.data.documents.stages import PairsInputs

root, passages, url = sys.argv[1:]
spec = pairs_spec(kinds=(), teacher=teacher_spec(url))
pairs(spec, PairsInputs(passages=Path(passages)), Workspace(root=Path(root)))
"""


def run(root: Path, passages: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), str(passages), url], cwd=Path.cwd())


def test_a_kill_costs_at_most_the_requests_under_way(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", {"manual.md": MANUAL})
    process: list[subprocess.Popen[bytes]] = []
    started, killed = threading.Event(), threading.Event()

    def behave(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
        if nth == 7 and not killed.is_set():
            started.wait(30)
            os.kill(process[0].pid, signal.SIGKILL)
            killed.set()
        return honest(body)

    with teacher(behave) as heard:
        process.append(run(tmp_path / "p" / "k", read.folder, heard.url))
        started.set()
        assert process[0].wait(60) == -signal.SIGKILL
        kept = {json.loads(line)["request"] for line in _lines(tmp_path / "p" / "k" / "state" / "replies.jsonl")}
        cached = {p.stem for p in (tmp_path / "p" / "teacher-replies").rglob("*.json")}
        before = heard.count
        assert kept <= cached
        assert before - len(cached) <= WORKERS
        assert run(tmp_path / "p" / "k", read.folder, heard.url).wait(60) == 0
        assert heard.count - before == 12 - len(cached)
        again = Paired(tmp_path / "p" / "k" / "out" / "pairs")
        assert run(tmp_path / "q" / "k", read.folder, heard.url).wait(60) == 0
    assert again.bytes() == Paired(tmp_path / "q" / "k" / "out" / "pairs").bytes()


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


BYTES = """
import hashlib, sys
from pathlib import Path
from tests.data.documents.making import run_documents, run_pairs
from tests.data.documents.test_documents import FILES

read = run_documents(Path(sys.argv[1]), FILES)
made = run_pairs(Path(sys.argv[1]) / "pairs", read.folder)
print(hashlib.sha256(repr([read.bytes(), made.bytes()]).encode()).hexdigest())
"""


def test_the_hash_seed_changes_nothing(tmp_path: Path) -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", BYTES, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
