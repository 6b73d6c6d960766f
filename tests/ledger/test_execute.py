"""A stage runs once for each key; whatever ends it is recorded; what was saved is used again."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger import stages
from tests.ledger.stages import REPEAT, RepeatSpec, add_source, in_child, read_all, run_repeat
from tunesmith.core.errors import DataError, InputError, Problem, Stopped, StorageError
from tunesmith.core.stage import Exec, Workspace
from tunesmith.ledger.execute import execute, key_of
from tunesmith.ledger.ledger import Ledger


@pytest.fixture
def source(ledger: Ledger) -> str:
    return add_source(ledger)


@pytest.fixture
def calls(monkeypatch) -> list[Workspace]:
    """One workspace for each time the stage really ran."""
    seen: list[Workspace] = []
    monkeypatch.setattr(stages, "hook", lambda spec, inputs, work: seen.append(work))
    return seen


def fail(error: BaseException):
    def hook(spec: Any, inputs: Any, work: Workspace) -> None:
        raise error

    return hook


def test_a_second_time_is_answered_from_the_ledger(ledger: Ledger, source: str, calls) -> None:
    first = run_repeat(ledger, source)
    again = run_repeat(ledger, source, exec=Exec(micro_batch_tokens=1, threads=2))  # Exec is no part of the key
    assert len(calls) == 1
    assert (first.reused, again.reused) == (False, True)
    assert replace(again, reused=False) == first
    assert len(ledger.runs()) == 1


ids = st.sampled_from(["a" * 64, "b" * 64])
specs = st.builds(RepeatSpec, text=st.sampled_from(["", "x", "y"]), times=st.integers(0, 2), seed=st.integers(0, 1))
inputs = st.fixed_dictionaries({
    "source": ids, "hint": st.none() | ids, "family": st.dictionaries(st.sampled_from(["p", "q"]), ids, max_size=2),
})  # fmt: skip
work_items = st.tuples(st.sampled_from(["sft", "answer"]), st.integers(1, 2), specs, inputs)


@given(a=work_items, b=work_items)
@settings(max_examples=300, deadline=None)
def test_the_key_changes_exactly_when_stage_version_spec_or_input_changes(a: Any, b: Any) -> None:
    def key(item: Any) -> str:
        name, version, spec, inputs = item
        return key_of(replace(REPEAT, name=name, version=version), spec, inputs)

    assert (key(a) == key(b)) == (a == b)
    assert key(a) == key((*a[:3], dict(reversed(a[3].items()))))  # the order of inputs means nothing


def test_one_change_in_each_place_is_another_key() -> None:
    """The property above seldom draws pairs that differ in one place only."""
    spec = RepeatSpec(text="x", times=1, seed=0)
    given_inputs = {"source": "a" * 64, "hint": None, "family": {"p": "a" * 64}}
    keys = [
        key_of(REPEAT, spec, given_inputs),
        key_of(replace(REPEAT, name="other"), spec, given_inputs),
        key_of(replace(REPEAT, version=2), spec, given_inputs),
        *(
            key_of(REPEAT, replace(spec, **{n: v}), given_inputs)
            for n, v in {"text": "", "times": 2, "seed": 1}.items()
        ),
        key_of(REPEAT, spec, {**given_inputs, "source": "b" * 64}),
        key_of(REPEAT, spec, {**given_inputs, "hint": "a" * 64}),
        key_of(REPEAT, spec, {**given_inputs, "family": {"q": "a" * 64}}),
        key_of(REPEAT, spec, {**given_inputs, "family": {}}),
    ]
    assert len(set(keys)) == len(keys)


def test_a_run_records_what_it_took_and_made_and_where(ledger: Ledger, source: str) -> None:
    run = run_repeat(ledger, source, times=3, seed=7)
    assert run.status == "finished"
    assert run.spec == {"text": "x", "times": 3, "seed": 7}
    assert run.inputs == {"source": source, "hint": None, "family": {"again": source}}
    assert set(run.outputs) == {"rows", "report", "metrics"}
    assert ledger.artifact(run.outputs["rows"]).kind == "dataset"
    assert run.metrics == {"rows": 3}
    told = run.environment
    assert (told["seed"], told["resumed"]) == (7, False)
    assert told["libraries"]["torch"]
    assert all(told[name] for name in ("tunesmith", "python", "system", "cpu", "cores", "memory_bytes"))
    assert "commit" in told
    assert not (ledger.work / run.key).exists()
    assert not list(ledger.locks.glob(run.key))


def test_recording_the_environment_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys; from tunesmith.ledger import execute; execute.environment(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_metric_log_becomes_an_artifact(ledger: Ledger, source: str) -> None:
    run = run_repeat(ledger, source, times=2)
    lines = (ledger.path(run.outputs["metrics"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"step": 2}]
    assert "metrics" not in run_repeat(ledger, source, times=0).outputs  # nothing logged


def test_an_output_that_is_none_is_left_out(ledger: Ledger, source: str) -> None:
    assert set(run_repeat(ledger, source, seed=-1, times=1).outputs) == {"rows", "metrics"}


def test_a_failed_stage_is_recorded_and_can_be_tried_again(ledger: Ledger, source: str, monkeypatch) -> None:
    monkeypatch.setattr(stages, "hook", fail(RuntimeError("row 7 says: my secret diagnosis")))
    with pytest.raises(RuntimeError, match="secret"):
        run_repeat(ledger, source)
    (failed,) = ledger.runs()
    assert failed.status == "failed"
    assert failed.error.startswith("RuntimeError at test_execute.py:")
    monkeypatch.undo()
    assert run_repeat(ledger, source).status == "finished"
    assert [r.status for r in ledger.runs()] == ["finished", "failed"]


def test_no_word_of_the_users_data_gets_into_the_ledger_with_an_error(ledger: Ledger, source: str, monkeypatch) -> None:
    problems = [
        Problem(where=f"rows.csv:{n}: label", what=f"'secret {n}' is no label", fix="secret") for n in range(12)
    ]
    for error in (DataError(problems), KeyError("secret"), RuntimeError("secret")):
        monkeypatch.setattr(stages, "hook", fail(error))
        with pytest.raises(type(error)):
            run_repeat(ledger, source)
    assert "secret" not in json.dumps([r.error for r in ledger.runs()])
    assert "rows.csv:0: label" in ledger.runs()[-1].error
    assert "(+2 more)" in ledger.runs()[-1].error


def test_a_stopped_stage_is_recorded_and_goes_on_from_its_state(ledger: Ledger, source: str) -> None:
    stop = threading.Event()
    stages_seen: list[int] = []

    def hook(spec: Any, inputs: Any, work: Workspace) -> None:
        stages_seen.append(len(list(work.state.iterdir())))
        if len(stages_seen) == 1:
            work.log(step=1)
            stages.write(work.state / "steps.json", "1")
            stop.set()

    stages.hook, before = hook, stages.hook
    try:
        with pytest.raises(Stopped):
            run_repeat(ledger, source, times=4, stop=stop)
        assert ledger.runs()[0].status == "stopped"
        stop.clear()
        run = run_repeat(ledger, source, times=4, stop=stop)
    finally:
        stages.hook = before
    assert stages_seen == [0, 1]
    assert run.environment["resumed"] is True
    lines = (ledger.path(run.outputs["metrics"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_keyboard_interrupt_leaves_a_stopped_run(ledger: Ledger, source: str, monkeypatch) -> None:
    monkeypatch.setattr(stages, "hook", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_repeat(ledger, source)
    assert ledger.runs()[0].status == "stopped"


def test_a_fresh_start_sees_nothing_of_a_killed_one(ledger: Ledger, source: str) -> None:
    """Half-written outputs and, where no state was saved, log lines would end up in the artifact."""
    key = key_of(
        REPEAT, RepeatSpec(text="x", times=2, seed=0), {"source": source, "hint": None, "family": {"again": source}}
    )
    old = Workspace(root=ledger.work / key)
    (old.scratch / "rows").mkdir()
    (old.scratch / "rows" / "half.txt").write_text("ha", encoding="utf-8")
    old.log(step=99)
    run = run_repeat(ledger, source, times=2)
    assert set(ledger.artifact(run.outputs["rows"]).files) == {"parts/one.txt", "two.txt"}
    assert "99" not in (ledger.path(run.outputs["metrics"]) / "metrics.jsonl").read_text(encoding="utf-8")


def test_lost_outputs_are_made_again(ledger: Ledger, source: str, calls) -> None:
    first = run_repeat(ledger, source)
    (ledger.path(first.outputs["rows"]) / "two.txt").resolve().unlink()
    assert ledger.finished(first.key) is None
    again = run_repeat(ledger, source)
    assert len(calls) == 2
    assert again.outputs == first.outputs
    assert ledger.path(first.outputs["rows"]).is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_error_in_a_stage_is_a_storage_error(ledger: Ledger, source: str, monkeypatch, number: int) -> None:
    monkeypatch.setattr(stages, "hook", fail(OSError(number, os.strerror(number), "/data/big.bin")))
    with pytest.raises(StorageError) as caught:
        run_repeat(ledger, source)
    assert caught.value.problems[0].where == "/data/big.bin"
    assert "run the same command again" in caught.value.problems[0].fix
    assert ledger.runs()[0].status == "failed"


def test_another_os_error_in_a_stage_is_our_mistake_and_stays_itself(ledger: Ledger, source: str, monkeypatch) -> None:
    monkeypatch.setattr(stages, "hook", fail(FileNotFoundError(errno.ENOENT, "no such file")))
    with pytest.raises(FileNotFoundError):
        run_repeat(ledger, source)


def test_a_damaged_input_is_named_and_the_stage_not_run(ledger: Ledger, source: str, calls) -> None:
    file = (ledger.path(source) / "rows.csv").resolve()
    file.chmod(0o644)
    file.write_text("forged", encoding="utf-8")
    with pytest.raises(StorageError, match="the content has changed"):
        run_repeat(ledger, source)
    assert calls == []


def test_an_unknown_input_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="there is no artifact with the id"):
        run_repeat(ledger, "0" * 64)
    assert ledger.runs() == []


def test_misuse_is_a_type_error(ledger: Ledger, source: str) -> None:
    spec = RepeatSpec(text="x", times=1, seed=0)
    with pytest.raises(TypeError, match="repeat wants the inputs"):
        execute(ledger, REPEAT, spec, {"source": source})
    with pytest.raises(TypeError, match="repeat wants a RepeatSpec, not a dict"):
        execute(ledger, REPEAT, {}, {"source": source, "hint": None, "family": {}})


@dataclass(frozen=True, slots=True, kw_only=True)
class StrayOutputs:
    rows: Path = field(metadata={"kind": "dataset"})


def stray(spec: Any, inputs: Any, work: Workspace) -> StrayOutputs:
    return StrayOutputs(rows=inputs.source)


def test_an_output_outside_the_scratch_folder_is_refused(ledger: Ledger, source: str) -> None:
    """Moving it would take an input, or the user's own file, away."""
    stage = replace(REPEAT, function=f"{__name__}:stray", outputs=StrayOutputs)
    with pytest.raises(TypeError, match="not a folder of its own"):
        execute(ledger, stage, RepeatSpec(text="", times=0, seed=0), {"source": source, "hint": None, "family": {}})
    assert (ledger.path(source) / "rows.csv").exists()


# Two processes, one key


def holder_of_the_key(ledger: Ledger, source: str, go: Path) -> tuple[int, int]:
    """A forked process inside the stage, until `go` exists."""

    def child(pipe: int) -> None:
        def hook(spec: Any, inputs: Any, work: Workspace) -> None:
            os.write(pipe, b"in the stage\n")
            while not go.exists():
                time.sleep(0.01)

        stages.hook = hook
        with Ledger.open(ledger.state) as own:
            os.write(pipe, run_repeat(own, source).id.encode())

    pid, reading = in_child(child)
    assert os.read(reading, 13) == b"in the stage\n"
    return pid, reading


def test_the_second_waits_says_who_holds_it_and_reuses(ledger: Ledger, source: str, tmp_path: Path, calls) -> None:
    pid, reading = holder_of_the_key(ledger, source, tmp_path / "go")
    said: list[str] = []

    def progress(done: float, total: float, label: str, **facts: Any) -> None:
        said.append(label)
        assert facts["holder"]["pid"] == pid
        (tmp_path / "go").touch()

    run = run_repeat(ledger, source, progress=progress)
    os.waitpid(pid, 0)
    assert run.reused
    assert run.id == read_all(reading)
    assert calls == []
    assert len(said) == 1
    assert said[0].startswith(f"waiting for repeat: process {pid} on {os.uname().nodename} (")


def test_a_killed_holders_lock_is_free_at_once(ledger: Ledger, source: str, tmp_path: Path, calls) -> None:
    pid, reading = holder_of_the_key(ledger, source, tmp_path / "never")
    killed_at: list[float] = []

    def progress(*_: Any, **__: Any) -> None:
        if not killed_at:
            os.kill(pid, signal.SIGKILL)
            killed_at.append(time.monotonic())

    run = run_repeat(ledger, source, progress=progress)
    assert time.monotonic() - killed_at[0] < 1.0
    assert not run.reused
    assert len(calls) == 1
    os.waitpid(pid, 0)
    os.close(reading)


def test_a_lock_dies_with_its_process_though_a_child_of_it_lives_on(
    ledger: Ledger, source: str, tmp_path: Path
) -> None:
    """Data loaders fork; a worker that outlives a killed trainer must not keep its lock."""

    def child(pipe: int) -> None:
        def hook(spec: Any, inputs: Any, work: Workspace) -> None:
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(pipe, f"{worker}\n".encode())
            time.sleep(60)

        stages.hook = hook
        with Ledger.open(ledger.state) as own:
            run_repeat(own, source)

    pid, reading = in_child(child)
    worker = int(os.read(reading, 20))
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        started = time.monotonic()
        assert not run_repeat(ledger, source).reused
        assert time.monotonic() - started < 2.0
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reading)


def test_waiting_can_be_stopped(ledger: Ledger, source: str, tmp_path: Path) -> None:
    pid, reading = holder_of_the_key(ledger, source, tmp_path / "go")
    stop = threading.Event()
    with pytest.raises(Stopped, match="while waiting"):
        run_repeat(ledger, source, stop=stop, progress=lambda *a, **k: stop.set())
    (tmp_path / "go").touch()
    os.waitpid(pid, 0)
    os.close(reading)


def test_two_threads_wanting_the_same_key_run_it_once(ledger: Ledger, source: str, calls) -> None:
    runs: list[Any] = []
    threads = [threading.Thread(target=lambda: runs.append(run_repeat(ledger, source, times=30))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(r.reused for r in runs) == [False, True, True, True]


def test_work_killed_after_it_was_recorded_is_swept(ledger: Ledger, source: str) -> None:
    run = run_repeat(ledger, source)
    Workspace(root=ledger.work / run.key)  # the kill came before this was removed
    Ledger.open(ledger.state).close()
    assert list(ledger.work.iterdir()) == []
