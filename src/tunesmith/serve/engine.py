"""One thread owns the model and decodes every running answer one token a step.

The loop: answers that were cancelled leave, label jobs that wait are scored together, new prompts are
computed and join the block, one step is taken. So a short answer never waits for a long one, and a
client that leaves gives its place back at the next step. What a row gets depends on its own prompt,
parameters and seed alone; start() proves it for the model at hand, and where it fails, rows run alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.core.nouns import Message
from tunesmith.http.log import error_line, log
from tunesmith.model.forward import Network
from tunesmith.model.sampling import sample, top_logprobs
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.detokenize import TextStream
from tunesmith.serve.labels import LabelScorer
from tunesmith.serve.scheduler import Event, Failed, Finished, Job, Scheduler, TokenLogprob
from tunesmith.serve.slots import Prefix, Slots

PREFILL_TOKENS = 2048  # prompt tokens computed between two steps: bounds how long running answers stand still
PROBE_TOLERANCE = 0.02  # of the largest logit: far above rounding, far below a wrong mask or position


@dataclass(slots=True, eq=False)
class _Row:
    """A running answer."""

    job: Job
    stream: TextStream
    generator: Any
    tokens: int = 0  # sampled so far, the stop token included
    logprob: float = 0.0  # of all of them, nats
    last: int = 0


class Engine:
    """Decodes for one bundle. Jobs come through `scheduler`; events arrive at each job's `emit`.

    `cache_columns` bounds the block's memory: rows times columns. `batch_tokens` is for label scoring.
    """

    def __init__(
        self, bundle: LoadedBundle, *, max_batch: int, max_queue: int, cache_columns: int, batch_tokens: int
    ) -> None:
        self.bundle = bundle
        self.scheduler = Scheduler(max_queue=max_queue, max_batch=max_batch)
        self._max_batch = max_batch
        self._cache_columns = cache_columns
        self._rows: list[_Row] = []
        self._network = Network(bundle.model)
        self._slots: Slots
        self._labels = LabelScorer(bundle, self._network, batch_tokens=batch_tokens)
        self._thread = threading.Thread(target=self._run, name="tunesmith-engine", daemon=True)
        self._halt = threading.Event()

    def start(self) -> None:
        """Compute the common prefix, prove that batching changes nothing, begin to serve."""
        with torch.no_grad():
            prefix = Prefix(self._network, common_prefix(self.bundle))
            self._slots = Slots(self._network, prefix)
            if self._max_batch > 1 and not batching_is_exact(self._network, prefix):
                self._max_batch = 1
                log("batching_off", reason="this model's logits in a batch differ from those alone")
        self._thread.start()

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
            self._labels.answer([j for j in jobs if not j.cancelled], _tell)
        except Exception as e:
            error_line(e)
            for job in jobs:
                _tell(job, Failed("the model failed on this request"))
        finally:
            self.scheduler.left(jobs)

    def _join(self) -> None:
        rows, widest, fresh = len(self._rows), max((r.job.columns for r in self._rows), default=0), 0

        def admit(job: Job) -> bool:
            nonlocal rows, widest, fresh
            wide = max(widest, job.columns)
            tokens = fresh + len(job.prompt)
            fits = rows < self._max_batch and (rows + 1) * wide <= self._cache_columns
            if rows and not (fits and (tokens <= PREFILL_TOKENS or not fresh)):
                return False  # a lone job always gets in, however wide
            rows, widest, fresh = rows + 1, wide, tokens
            return True

        jobs = self.scheduler.take("generate", admit)
        if not jobs:
            return
        renderer = self.bundle.renderer
        new = [
            _Row(
                job,
                TextStream(renderer.decode, job.sampling.stop, tail=renderer.layout.tail),
                torch.Generator().manual_seed(job.sampling.seed),
            )
            for job in jobs
        ]
        self._rows.extend(new)  # before the work, so that a failure finds them
        logits = self._slots.join([j.prompt for j in jobs])
        self._advance(new, logits)

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
        asked, renderer = row.job.sampling, self.bundle.renderer
        token = sample(logprobs_V, temperature=asked.temperature, top_p=asked.top_p, generator=row.generator)
        value = float(logprobs_V[token])
        row.tokens, row.logprob, row.last = row.tokens + 1, row.logprob + value, token
        if token not in renderer.stop_ids:
            piece = row.stream.push(token, self._logprob_of(token, value, logprobs_V, asked.top_logprobs))
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

    def _logprob_of(self, token: int, value: float, logprobs_V: Any, top: int | None) -> TokenLogprob | None:
        if top is None:
            return None
        decode = self.bundle.renderer.decode
        others = tuple((decode([i]), v) for i, v in top_logprobs(logprobs_V, top)) if top else ()
        return TokenLogprob(decode([token]), value, others)

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


def common_prefix(bundle: LoadedBundle) -> list[int]:
    """The tokens every prompt with the bundle's own system prompt begins with."""
    first, second = (bundle.renderer.prompt([Message(role="user", content=text)]) for text in ("a", "7"))
    n = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    return first[:n]


def batching_is_exact(network: Network, prefix: Prefix) -> bool:
    """Whether ragged rows in one block get the logits that each gets alone, over a join, two steps and a leave.

    An architecture whose masks or positions don't follow ours fails here, not in front of a user.
    """
    seed = [t for t in range(3, 40)]
    prompts = [[*prefix.ids, *seed[:9]], seed[:3], seed[5:30]]
    together = Slots(network, prefix)
    got = [together.join(prompts[:2])]
    got[0] = torch.cat([got[0], together.join(prompts[2:])])
    got.append(together.step([7, 8, 9]))
    together.keep([0, 2])
    got.append(together.step([10, 11]))
    for i, (prompt, steps) in enumerate(zip(prompts, ([7, 10], [8], [9, 11]), strict=True)):
        alone = Slots(network, Prefix(network, ()))
        want = [alone.join([prompt]), *(alone.step([t]) for t in steps)]
        for at, logits in enumerate(want):
            row = got[at][i if at < 2 else i // 2]
            if float((row - logits[0]).abs().max()) > PROBE_TOLERANCE * max(1.0, float(logits.abs().max())):
                return False
    return True
