"""Who waits, who runs, who has left: the queue between the HTTP side and the one thread that owns the model.

No torch and no HTTP in here. The queue is bounded: what does not fit is refused at once with a time
to come back, because a request that waits for minutes is worth less than an honest 429.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.core.nouns import Message

Mode = Literal["generate", "label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one answer is drawn. Checked by the wire before it gets here."""

    max_new_tokens: int
    temperature: float = 0.0  # 0: the most probable token or label
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()  # strings that end the answer and are not part of it
    top_logprobs: int | None = None  # None: no log-probabilities; 0: the chosen token's alone


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer with its log-probability (nats) and the likeliest alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is ready to leave, and the log-probabilities of the tokens it came from."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    reason: Literal["stop", "length"]
    answer_tokens: int  # sampled tokens, the stop token included
    confidence: float | None = None
    label_probabilities: tuple[tuple[str, float], ...] = ()  # likeliest first


@dataclass(frozen=True, slots=True)
class Failed:
    message: str
    status: int = 500  # HTTP


Event = Piece | Finished | Failed


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One answer to be made. `emit` is called from the model's thread and must return at once."""

    mode: Mode
    prompt: tuple[int, ...]  # token ids, up to where the answer begins
    sampling: Sampling
    emit: Callable[[Event], None]
    messages: tuple[Message, ...] = ()  # what label scoring needs; the prompt as messages
    bundle: Any = None  # which of the engine's bundles answers; None: its only one
    deadline: float = math.inf  # time.monotonic()
    submitted: float = field(default_factory=time.monotonic)
    cancelled: bool = False  # set by the HTTP side, read between two steps

    @property
    def columns(self) -> int:
        """Cache columns this job may come to need."""
        return len(self.prompt) + self.sampling.max_new_tokens


class Overloaded(Exception):
    """The queue is full."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the queue is full; retry in {retry_after_s} s")


class Closed(Exception):
    """The server is shutting down and takes no new work."""


class Scheduler:
    """A bounded first-in first-out queue. All methods may be called from any thread."""

    def __init__(self, *, max_queue: int, max_batch: int) -> None:
        self.max_queue = max_queue
        self.max_batch = max_batch
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self._running = 0
        self._seconds = 1.0  # running mean of the time from submission to the end of a job

    def submit(self, jobs: Sequence[Job]) -> None:
        """All or none. Raises Overloaded when the queue has no room, Closed when draining.

        A free place in the batch counts as room, so that an idle server with a short queue takes a full batch.
        """
        with self._changed:
            if self._closed:
                raise Closed
            free = max(0, self.max_batch - self._running)
            if len(self._waiting) + len(jobs) > self.max_queue + free:
                raise Overloaded(self._retry_after())
            self._waiting.extend(jobs)
            self._changed.notify_all()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Waiting jobs leave at once, running ones before the next step."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._waiting = deque(j for j in self._waiting if not j.cancelled)
            self._changed.notify_all()

    def wait_for_work(self) -> bool:
        """Block until something waits; False when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._calls or self._closed)
            return bool(self._waiting or self._calls)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have the model's thread do something between two steps. Raises Closed when draining."""
        with self._changed:
            if self._closed:
                raise Closed
            done: Future[Any] = Future()
            self._calls.append((function, done))
            self._changed.notify_all()
            return done

    def calls(self) -> list[tuple[Callable[[], Any], Future[Any]]]:
        """What the model's thread is asked to do now; they are taken out."""
        with self._changed:
            found, self._calls = list(self._calls), deque()
            return found

    def first(self, mode: Mode) -> Job | None:
        """The head of the queue of one mode."""
        with self._changed:
            return next((j for j in self._waiting if j.mode == mode), None)

    def take(self, mode: Mode, admit: Callable[[Job], bool]) -> list[Job]:
        """Jobs of one mode from the head of the queue, until `admit` refuses one: nobody overtakes within a mode."""
        with self._changed:
            taken: list[Job] = []
            left: deque[Job] = deque()
            refused = False
            for job in self._waiting:
                if not refused and job.mode == mode and admit(job):
                    taken.append(job)
                else:
                    refused = refused or job.mode == mode
                    left.append(job)
            self._waiting = left
            self._running += len(taken)
            return taken

    def expired(self) -> list[Job]:
        """Waiting jobs whose time is over; they are taken out."""
        with self._changed:
            now = time.monotonic()
            late = [j for j in self._waiting if j.deadline < now]
            if late:
                self._waiting = deque(j for j in self._waiting if j.deadline >= now)
            return late

    def left(self, jobs: Sequence[Job]) -> None:
        """Jobs that were taken are done, failed or gone."""
        with self._changed:
            self._running -= len(jobs)
            for job in jobs:
                if not job.cancelled:
                    self._seconds += 0.2 * (time.monotonic() - job.submitted - self._seconds)

    def close(self) -> None:
        """Take no more; what waits is still done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Empty the queue; the caller tells the jobs."""
        with self._changed:
            jobs, self._waiting = list(self._waiting), deque()
            for _, done in self._calls:
                done.set_exception(Closed())
            self._calls.clear()
            return jobs

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._running

    def _retry_after(self) -> int:
        """Seconds until about one batch is through, in [1, 60]."""
        rounds = 1 + len(self._waiting) / self.max_batch
        return max(1, min(60, math.ceil(self._seconds * rounds / 2)))
