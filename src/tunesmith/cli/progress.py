"""Live progress on stderr: a bar on a terminal, plain lines now and then elsewhere.

`progress(done, total, label, **facts)` is called by stages as often as they like; it draws at most
ten times a second, and off a terminal it writes a line when a label is new, every ten seconds, and
at its end. NO_COLOR and TERM=dumb are honoured.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from tunesmith.cli.show import harmless
from tunesmith.core.words import duration

LINE_EVERY_S = 10.0
DRAW_EVERY_S = 0.1


def fact_words(facts: dict[str, Any]) -> str:
    """`loss 0.8421 · best 0.71`"""
    known = {k.replace("_", " "): v for k, v in facts.items() if v is not None}
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items())
    return harmless(" · ".join(shown))


def amount(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


class Task:
    """One label on its way from nothing to its total, with its rate and the time left."""

    def __init__(self, label: str, now: float):
        self.label = harmless(label)
        self.started = now
        self.first: float | None = None  # where it began: a resumed stage does not start at 0
        self.done = self.total = 0.0
        self.facts: dict[str, Any] = {}

    def update(self, done: float, total: float, facts: dict[str, Any]) -> None:
        if self.first is None:
            self.first = done
        self.done, self.total = done, total
        self.facts.update(facts)

    @property
    def is_finished(self) -> bool:
        return self.total > 0 and self.done >= self.total

    @property
    def is_countable(self) -> bool:
        """Stages say (0, 1) for work of unknown length: then there is no rate and no time left."""
        return self.total > 1

    def rate(self, now: float) -> float:
        """Per second since it began here."""
        passed = now - self.started
        return (self.done - (self.first or 0.0)) / passed if passed > 0 else 0.0

    def words(self, now: float) -> str:
        parts = []
        rate = self.rate(now)
        if self.is_countable:
            parts.append(f"{amount(self.done)}/{amount(self.total)} ({self.done / self.total:.0%})")
        if self.is_finished:
            parts.append(f"done in {duration(now - self.started)}")
        elif self.is_countable and rate > 0:
            parts.append(f"{rate:,.3g}/s · {duration((self.total - self.done) / rate)} left")
        if self.facts:
            parts.append(fact_words(self.facts))
        return " · ".join(parts)


class Progress:
    """The progress sink of a terminal session; a context manager."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream or sys.stderr
        self._clock = clock
        self._lock = threading.Lock()  # serving and loading report from several threads
        self._task: Task | None = None
        self._written = self._drawn = 0.0
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._close_task()
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def __call__(self, done: float, total: float, label: str, **facts: Any) -> None:
        with self._lock:
            now = self._clock()
            is_new = self._task is None or self._task.label != harmless(label)
            if is_new:
                self._close_task()
                self._task = Task(label, now)
            assert self._task is not None
            self._task.update(float(done), float(total or 0), facts)
            if self._live:
                self._draw(is_new, now)
            elif is_new or (now - self._written >= LINE_EVERY_S and not self._task.is_finished):
                self._line(now)

    def _close_task(self) -> None:
        """The last word on a label: what it came to and how long it took."""
        task, self._task = self._task, None
        if task is None or not task.is_finished or not task.is_countable:
            return
        text = f"{task.label} · {task.words(self._clock())}"
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self._live:
            print(text, file=self._stream, flush=True)

    def _line(self, now: float) -> None:
        assert self._task is not None
        self._written = now
        words = self._task.words(now) if self._task.done or self._task.facts else ""
        print(f"{self._task.label}{' · ' if words else ''}{words}", file=self._stream, flush=True)

    def _draw(self, is_new: bool, now: float) -> None:
        if not is_new and now - self._drawn < DRAW_EVERY_S:
            return
        self._drawn = now
        assert self._task is not None
        task = self._task
        if self._bar is None:
            self._bar = _bar(self._stream)
            self._bar.start()
        if not self._bar.task_ids:
            self._bar.add_task("", total=1, label="", words="")
        self._bar.update(
            self._bar.task_ids[0],
            completed=task.done if task.is_countable else 0,
            total=task.total if task.is_countable else None,
            label=task.label,
            words=task.words(now) or duration(now - task.started),
        )


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        SpinnerColumn(),
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
        console=Console(file=stream),  # reads NO_COLOR itself
        transient=True,
    )
