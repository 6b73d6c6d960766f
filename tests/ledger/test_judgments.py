"""Judgments: each kept once, on disk before it is acknowledged, and snapshots that depend on nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import InputError
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger


def judgment(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"j{n}", "queue": "labels", "item": f"item{n}", "annotator": "ann", "verb": "label", "value": "sports",
        "reason": "", "seconds": 1.5, "at": f"2026-11-25T03:00:{n:02d}+00:00",
    } | changes  # fmt: skip


def test_judgments_come_back_in_the_order_they_were_kept(ledger: Ledger) -> None:
    judgments = Judgments(ledger)
    for n in (3, 1, 2):
        judgments.append(judgment(n))
    judgments.append(judgment(4, queue="pairs", value={"prompt": "ä", "completion": "b"}))
    assert [j["id"] for j in judgments.list()] == ["j3", "j1", "j2", "j4"]
    assert list(judgments.list("pairs")) == [judgment(4, queue="pairs", value={"prompt": "ä", "completion": "b"})]
    assert judgments.find("j1") == judgment(1) and judgments.find("j9") is None


def test_listing_turns_pages_without_losing_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.ledger.judgments.PAGE", 3)
    judgments = Judgments(ledger)
    for n in range(10):
        judgments.append(judgment(n, queue="ab"[n % 2]))
        ledger.note("look", {"n": n})
    assert [j["id"] for j in judgments.list()] == [f"j{n}" for n in range(10)]
    assert [j["id"] for j in judgments.list("b")] == [f"j{n}" for n in range(1, 10, 2)]


def test_the_same_judgment_sent_twice_is_kept_once(ledger: Ledger) -> None:
    judgments = Judgments(ledger)
    first = judgments.append(judgment(1))
    again = judgments.append(judgment(1, at="2026-11-25T09:00:00+00:00", seconds=99.0))
    assert again == first == judgment(1)
    assert len(list(judgments.list())) == 1


def test_an_id_used_for_another_judgment_is_refused(ledger: Ledger) -> None:
    judgments = Judgments(ledger)
    judgments.append(judgment(1))
    with pytest.raises(InputError, match="another judgment has the id j1"):
        judgments.append(judgment(1, value="politics"))
    assert [j["value"] for j in judgments.list()] == ["sports"]


@pytest.mark.parametrize("bad", [{"extra": 1}, {"value": float("nan")}, {"reason": "\ud800"}])
def test_a_judgment_that_cannot_be_kept_is_refused(ledger: Ledger, bad: dict[str, Any]) -> None:
    judgments = Judgments(ledger)
    with pytest.raises(InputError):
        judgments.append(judgment(1) | bad)
    incomplete = judgment(1)
    del incomplete["verb"]
    with pytest.raises(InputError, match="verb"):
        judgments.append(incomplete)
    assert list(judgments.list()) == []


def test_a_snapshot_depends_on_the_judgments_alone(ledger: Ledger, tmp_path: Path) -> None:
    judgments = Judgments(ledger)
    for n in range(3):
        ledger.note("look", {"n": n})
        judgments.append(judgment(n))
    artifact = judgments.snapshot()
    assert artifact.kind == "judgments" and judgments.snapshot().id == artifact.id
    assert list(read_lines(ledger.path(artifact.id) / "judgments.jsonl")) == [judgment(n) for n in range(3)]
    with Ledger.open(tmp_path / "other") as other:
        for n in range(3):
            Judgments(other).append(judgment(n))
        assert Judgments(other).snapshot().id == artifact.id
    judgments.append(judgment(3))
    assert judgments.snapshot().id != artifact.id
    assert judgments.snapshot("nothing").bytes == 0
    assert not list(ledger.objects.temporary.iterdir())
    assert not doctor(ledger).findings


def test_two_openings_of_one_ledger_see_each_others_judgments(ledger: Ledger) -> None:
    with Ledger.open(ledger.state) as second:
        Judgments(second).append(judgment(1))
        assert Judgments(ledger).append(judgment(1, seconds=7.0)) == judgment(1)
        assert len(list(Judgments(second).list())) == 1


def test_annotators_are_kept_with_the_hash_of_their_token(ledger: Ledger) -> None:
    judgments = Judgments(ledger)
    judgments.add_annotator({"name": "ann", "role": "annotator", "token_sha256": "0" * 64})
    assert judgments.annotators() == [{"name": "ann", "role": "annotator", "token_sha256": "0" * 64}]


WRITER = """
import sys
from pathlib import Path
from tests.ledger.test_judgments import judgment
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger
judgments = Judgments(Ledger.open(Path(sys.argv[1])))
for n in range(10_000):
    judgments.append(judgment(n))
    print(f"j{n}", flush=True)
"""


def test_a_killed_writer_loses_no_acknowledged_judgment(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    with Ledger.open(tmp_path) as ledger:
        kept = [j["id"] for j in Judgments(ledger).list()]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1  # one may have been written and not yet said
        assert doctor(ledger).is_clean
