"""Progress: plain lines now and then off a terminal, a bar on one, always on stderr."""

from __future__ import annotations

import io
import re

import pytest

from tunesmith.cli.progress import Progress, fact_words
from tunesmith.core.words import duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(steps: list[tuple[float, float, float, str, dict[str, object]]]) -> list[str]:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock) as progress:
        for at, done, total, label, facts in steps:
            clock.now = at
            progress(done, total, label, **facts)
    return stream.getvalue().splitlines()


def test_off_a_terminal_a_line_comes_when_a_stage_begins_every_ten_seconds_and_at_its_end() -> None:
    steps = [(float(t), t, 60, "train", {"loss": 1.0 - t / 100}) for t in range(0, 61)]
    assert lines_of(steps) == [
        "train · 0/60 (0%) · loss 1",
        "train · 10/60 (17%) · 1/s · 50 s left · loss 0.9",
        "train · 20/60 (33%) · 1/s · 40 s left · loss 0.8",
        "train · 30/60 (50%) · 1/s · 30 s left · loss 0.7",
        "train · 40/60 (67%) · 1/s · 20 s left · loss 0.6",
        "train · 50/60 (83%) · 1/s · 10 s left · loss 0.5",
        "train · 60/60 (100%) · done in 1 min 00 s · loss 0.4",
    ]


def test_a_resumed_stage_counts_its_rate_from_where_it_began() -> None:
    steps = [(0.0, 50, 100, "train", {}), (10.0, 60, 100, "train", {})]
    assert lines_of(steps)[1] == "train · 60/100 (60%) · 1/s · 40 s left"


def test_work_of_unknown_length_has_neither_rate_nor_time_left() -> None:
    assert lines_of([(0.0, 0, 1, "timing fp32", {}), (3.0, 0, 0, "evaluate", {}), (4.0, 1, 1, "evaluate", {})]) == [
        "timing fp32", "evaluate",
    ]  # fmt: skip


def test_a_new_label_closes_the_one_before() -> None:
    assert lines_of([(0.0, 0, 9, "check", {}), (2.0, 9, 9, "check", {"rows": 12}), (2.0, 0, 1, "prepare", {})]) == [
        "check", "check · 9/9 (100%) · done in 2.0 s · rows 12", "prepare",
    ]  # fmt: skip


def test_labels_and_facts_cannot_drive_a_terminal() -> None:
    assert lines_of([(0.0, 0, 5, "a\x1b[2J", {"said": "\x1b[31m"})]) == ["a\\x1b[2J · 0/5 (0%) · said \\x1b[31m"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    clock, stream = Clock(), Terminal()
    with Progress(stream, clock) as progress:
        for t in range(0, 11):
            clock.now = float(t)
            progress(t, 10, "train", loss=0.5, best=0.7)
    drawn = stream.getvalue()
    assert "loss 0.5 · best 0.7" in drawn
    assert "\x1b[38" in drawn or "\x1b[3" in drawn  # colours
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert "train · 10/10 (100%) · done in 10 s · loss 0.5 · best 0.7" in plain


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with Progress(stream, Clock()) as progress:
        progress(1, 10, "train")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(stream, Clock()) as progress:
        progress(0, 10, "train")
    assert stream.getvalue() == "train\n"


def test_durations_are_spoken() -> None:
    said = [duration(s) for s in (0.04, 8.44, 9.96, 59.6, 185, 7800)]
    assert said == ["0.0 s", "8.4 s", "10 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]


def test_facts_are_short() -> None:
    assert (
        fact_words({"loss": 0.123456, "best_so_far": 0.7, "rows": 12, "best": None})
        == "loss 0.1235 · best so far 0.7 · rows 12"
    )
