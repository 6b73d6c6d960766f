"""One thread owns the model and decodes every running answer one token a step.

The loop: answers that were cancelled leave, label jobs that wait are scored together, new prompts are
computed and join the block, one step is taken. So a short answer never waits for a long one, and a
client that leaves gives its place back at the next step. What a row gets depends on its own prompt,
parameters and seed alone; start() proves it for the model at hand, and where it fails, rows run alone.

Bundles whose adapters share a base are answered together, each row with its own adapter. An adapter that cannot
be in a batch with others has turns: nobody joins until the answers before it are done, and then it is swapped in.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.http.log import error_line, log
from tunesmith.model.sampling import sample, top_logprobs
from tunesmith.model.several import Held
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.detokenize import TextStream
from tunesmith.serve.labels import LabelScorer
from tunesmith.serve.scheduler import Event, Failed, Finished, Job, Scheduler, TokenLogprob
from tunesmith.serve.slots import Slots
from tunesmith.serve.voices import Voice, Voices
from tunesmith.text.render import Renderer

PREFILL_TOKENS = 2048  # prompt tokens computed between two steps: bounds how long running answers stand still


@dataclass(slots=True, eq=False)
class _Row:
    """A running answer."""

    job: Job
    voice: Voice
    stream: TextStream
    generator: Any
    tokens: int = 0  # sampled so far, the stop token included
    logprob: float = 0.0  # of all of them, nats
    last: int = 0


class Engine:
    """Decodes for one bundle, or for several whose adapters share a base. Jobs come through `scheduler`; events
    arrive at each job's `emit`.

    `cache_columns` bounds the block's memory: rows times columns. `batch_tokens` is for label scoring.
    """

    def __init__(
        self,
        bundles: LoadedBundle | Sequence[LoadedBundle],
        *,
        max_batch: int,
        max_queue: int,
        cache_columns: int,
        batch_tokens: int,
    ) -> None:
        self._bundles = [bundles] if isinstance(bundles, LoadedBundle) else list(bundles)
        self.scheduler = Scheduler(max_queue=max_queue, max_batch=max_batch)
        self._most_rows = max_batch
        self._cache_columns = cache_columns
        self._batch_tokens = batch_tokens
        self._rows: list[_Row] = []
        self._voices: Voices
        self._slots: Slots
        self._labels: LabelScorer
        self._thread = threading.Thread(target=self._run, name="tunesmith-engine", daemon=True)
        self._halt = threading.Event()

    def start(self) -> None:
        """Compute the common prefixes, prove that batching changes nothing, begin to serve."""
        with torch.no_grad():
            self._voices = Voices(self._bundles)
            first = self._voices[self._bundles[0]]
            self._slots = Slots(self._voices.network, first.bare, self._voices.under)
            self._labels = LabelScorer(self._voices, batch_tokens=self._batch_tokens)
            self._say_what_runs_apart()
        self._thread.start()

    def add(self, bundle: LoadedBundle, held: Held) -> Future[None]:
        """Put one more adapter on the base between two steps; done when it can be asked."""

        def do() -> None:
            assert self._voices.several is not None and bundle.adapter is not None
            self._voices.several.put(bundle.adapter, held)
            self._voices.add(bundle)
            self._say_what_runs_apart()

        return self.scheduler.call(do)

    def remove(self, bundle: LoadedBundle) -> Future[None]:
        """Take an adapter off the base. No job of it may wait or run any more."""
        return self.scheduler.call(lambda: self._voices.remove(bundle))

    def _say_what_runs_apart(self) -> None:
        if not self._voices.batches and self._most_rows > 1:
            log("batching_off", reason="this model's logits in a batch differ from those alone")
        if not self._voices.mixes:
            log("mixing_off", reason="logits in a batch of several adapters differ from those of each alone")

    @property
    def _max_batch(self) -> int:
        return self._most_rows if self._voices.batches else 1

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, *, drain_s: float) -> bool:
        """Take no more, finish what runs and waits, at most `drain_s` seconds; False if something was cut."""
        self.scheduler.close()
        self._thread.join(drain_s)
        finished = not self._thread.is_alive()
        self._halt.set()
        self._thread.join(5.0)
        return finished

    # everything below runs in the engine's own thread

    def _run(self) -> None:
        with torch.no_grad():
            while not self._halt.is_set():
                if not self._rows and not self.scheduler.wait_for_work():
                    return
                try:
                    self._answer_calls()
                    self._expire()
                    self._score_labels()
                    self._join()
                    self._step()
                except Exception as e:  # one bad batch must not end the server; its requests learn of it
                    error_line(e)
                    self._fail_running("the model failed on this request")
        self._fail_running("the server is shutting down", status=503)
        for job in self.scheduler.abandon():
            _tell(job, Failed("the server is shutting down", status=503))

    def _answer_calls(self) -> None:
        for function, done in self.scheduler.calls():
            try:
                done.set_result(function())
            except Exception as e:  # whoever asked learns of it
                done.set_exception(e)

    def _voice(self, job: Job) -> Voice:
        return self._voices[job.bundle or self._bundles[0]]

    def _expire(self) -> None:
        """Answers whose client left, or whose time is over, give their place back."""
        for job in self.scheduler.expired():
            _tell(job, Failed("the request took too long", status=504))
        now = time.monotonic()
        for row in self._rows:
            if row.job.deadline < now:
                _tell(row.job, Failed("the request took too long", status=504))
        self._keep([i for i, r in enumerate(self._rows) if r.job.deadline >= now and not r.job.cancelled])

    def _score_labels(self) -> None:
        """Every label job that waits, up to a batch of them, in one go."""
        places = iter(range(self._max_batch))
        jobs = self.scheduler.take("label", lambda _: next(places, None) is not None)
        if not jobs:
            return
        try:
            self._labels.answer([(self._voice(j), j) for j in jobs if not j.cancelled], _tell)
        except Exception as e:
            error_line(e)
            for job in jobs:
                _tell(job, Failed("the model failed on this request"))
        finally:
            self.scheduler.left(jobs)

    def _join(self) -> None:
        rows, widest, fresh = len(self._rows), max((r.job.columns for r in self._rows), default=0), 0

        there = [r.voice.bundle for r in self._rows[:1]]

        def admit(job: Job) -> bool:
            nonlocal rows, widest, fresh
            voice = self._voice(job)
            if there and not self._voices.together(there[0], voice.bundle):
                return False  # its turn comes when these are done
            wide = max(widest, job.columns + voice.prefix.virtual)
            tokens = fresh + len(job.prompt)
            fits = rows < self._max_batch and (rows + 1) * wide <= self._cache_columns
            if rows and not (fits and (tokens <= PREFILL_TOKENS or not fresh)):
                return False  # a lone job always gets in, however wide
            rows, widest, fresh = rows + 1, wide, tokens
            there.append(voice.bundle)
            return True

        jobs = self.scheduler.take("generate", admit)
        if not jobs:
            return
        new = [self._row(job) for job in jobs]
        self._rows.extend(new)  # before the work, so that a failure finds them
        logits = self._slots.join([j.prompt for j in jobs], [r.voice.prefix for r in new])
        self._advance(new, logits)

    def _row(self, job: Job) -> _Row:
        voice = self._voice(job)
        renderer = voice.bundle.renderer
        stream = TextStream(renderer.decode, job.sampling.stop, tail=renderer.layout.tail)
        return _Row(job, voice, stream, torch.Generator().manual_seed(job.sampling.seed))

    def _step(self) -> None:
        if self._rows:
            self._advance(list(self._rows), self._slots.step([r.last for r in self._rows]))

    def _advance(self, rows: Sequence[_Row], logits: Any) -> None:
        """Sample one token for each of `rows`; those that end leave the block."""
        logprobs = torch.log_softmax(logits, dim=-1)
        over = {id(row) for row, scores in zip(rows, logprobs, strict=True) if self._take_token(row, scores)}
        if over:
            self._keep([i for i, row in enumerate(self._rows) if id(row) not in over])

    def _take_token(self, row: _Row, logprobs_V: Any) -> bool:
        """One token of one answer; True when it was the last."""
        asked, renderer = row.job.sampling, row.voice.bundle.renderer
        token = sample(logprobs_V, temperature=asked.temperature, top_p=asked.top_p, generator=row.generator)
        value = float(logprobs_V[token])
        row.tokens, row.logprob, row.last = row.tokens + 1, row.logprob + value, token
        if token not in renderer.stop_ids:
            piece = row.stream.push(token, _logprob_of(renderer, token, value, logprobs_V, asked.top_logprobs))
            if piece:
                _tell(row.job, piece)
            if row.tokens < asked.max_new_tokens and not row.stream.stopped:
                return False
        stopped = row.stream.stopped or token in renderer.stop_ids
        rest = row.stream.finish(by_token=token in renderer.stop_ids)
        if rest:
            _tell(row.job, rest)
        confidence = math.exp(row.logprob / row.tokens)
        _tell(row.job, Finished("stop" if stopped else "length", row.tokens, confidence))
        return True

    def _keep(self, kept: list[int]) -> None:
        """Rows that are not kept leave: their place and their columns are free from here on."""
        if len(kept) < len(self._rows):
            gone = [r for i, r in enumerate(self._rows) if i not in set(kept)]
            self._slots.keep(kept)
            self._rows = [self._rows[i] for i in kept]
            self.scheduler.left([r.job for r in gone])

    def _fail_running(self, message: str, *, status: int = 500) -> None:
        rows, self._rows = self._rows, []
        self._slots.reset()
        for row in rows:
            _tell(row.job, Failed(message, status=status))
        self.scheduler.left([r.job for r in rows])


def _tell(job: Job, event: Event) -> None:
    """A client that is gone can't be told; that must not disturb the others."""
    if not job.cancelled:
        try:
            job.emit(event)
        except Exception as e:
            error_line(e)


def _logprob_of(renderer: Renderer, token: int, value: float, logprobs_V: Any, top: int | None) -> TokenLogprob | None:
    if top is None:
        return None
    others = tuple((renderer.decode([i]), v) for i, v in top_logprobs(logprobs_V, top)) if top else ()
    return TokenLogprob(renderer.decode([token]), value, others)
