"""One row for each served request, from several threads, with content only where the owner chose so."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import StorageError, TunesmithError
from tunesmith.ledger.traces import Traces


def trace(n: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{n}", "bundle": "b" * 64, "route": "/v1/chat/completions", "model": "prod", "status": 200,
        "streaming": n % 2 == 0, "prompt_tokens": 12, "answer_tokens": 3, "seconds": 0.25, "client": "c" * 16, **more,
    }  # fmt: skip


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    with Traces.open(tmp_path / "traces.db") as traces:
        traces.append(**trace(1, finish="stop", confidence=0.5, time_to_first_token=0.1))
        traces.append(**trace(2))
        newest, oldest = traces.rows()
        assert traces.rows(limit=1) == [newest]
    assert oldest | trace(1, finish="stop", confidence=0.5, time_to_first_token=0.1) == oldest
    assert newest["finish"] is None
    assert newest["at"] >= oldest["at"]


@pytest.mark.parametrize("kept", [False, True])
def test_content_is_kept_only_where_the_owner_chose_so(tmp_path: Path, kept: bool) -> None:
    with Traces.open(tmp_path / "traces.db", store_content=kept) as traces:
        traces.append(**trace(1, messages=[{"role": "user", "content": "Grüße, geheim"}], answer="geheimnis"))
        row = traces.rows()[0]
    assert (row["answer"] == "geheimnis") == kept
    stored = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert (b"geheim" in stored) == kept


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    with Traces.open(tmp_path / "traces.db") as traces:

        def serve(worker: int) -> None:
            for n in range(250):
                traces.append(**trace(worker * 1000 + n))

        threads = [threading.Thread(target=serve, args=(w,)) for w in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        rows = traces.rows()
    assert {r["id"] for r in rows} == {f"chatcmpl-{w * 1000 + n}" for w in range(8) for n in range(250)}


def test_rows_reach_the_disk_by_themselves_and_by_closing(tmp_path: Path) -> None:
    traces = Traces.open(tmp_path / "traces.db")
    traces.append(**trace(1))
    other = sqlite3.connect(tmp_path / "traces.db")
    deadline = time.monotonic() + 5
    while not other.execute("SELECT count(*) FROM traces").fetchone()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    traces.append(**trace(2))
    traces.close()
    assert other.execute("SELECT count(*) FROM traces").fetchone() == (2,)
    other.close()


def test_a_refusing_disk_fails_no_answer_and_nothing_is_lost(tmp_path: Path, monkeypatch) -> None:
    with Traces.open(tmp_path / "traces.db") as traces:

        def full() -> None:
            raise StorageError("the disk is full", where="traces.db", fix="free some space")

        monkeypatch.setattr(traces._database, "write", full)
        traces.append(**trace(1))
        traces.append(**trace(2))
        with pytest.raises(StorageError, match="the disk is full"):
            traces.flush()
        assert "the disk is full" in str(traces.problem)
        monkeypatch.undo()
        assert [r["id"] for r in traces.rows()] == ["chatcmpl-2", "chatcmpl-1"]
        assert (traces.problem, traces.lost) == (None, 0)


def test_what_is_given_up_is_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.ledger.traces.MOST_WAITING", 3)
    monkeypatch.setattr("tunesmith.ledger.traces.BATCH_S", 60)
    with Traces.open(tmp_path / "traces.db") as traces:
        for n in range(5):
            traces.append(**trace(n))
        assert (len(traces.rows()), traces.lost) == (3, 2)


def test_an_unknown_or_missing_column_is_a_mistake_at_the_call(tmp_path: Path) -> None:
    with Traces.open(tmp_path / "traces.db") as traces:
        with pytest.raises(TypeError, match="'ip'"):
            traces.append(**trace(1, ip="10.0.0.1"))
        with pytest.raises(TypeError, match="'seconds'"):
            traces.append(**{k: v for k, v in trace(1).items() if k != "seconds"})


def test_one_bad_row_takes_no_other_with_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.ledger.traces.BATCH_S", 60)
    with Traces.open(tmp_path / "traces.db") as traces:
        traces.append(**trace(1))
        traces.append(**trace(2, status="not a number"))
        traces.append(**trace(3))
        with pytest.raises(TunesmithError, match="a trace was refused"):
            traces.flush()
        assert {r["id"] for r in traces.rows()} == {"chatcmpl-1", "chatcmpl-3"}
        assert traces.lost == 1
