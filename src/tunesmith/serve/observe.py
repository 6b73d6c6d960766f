"""What the server says about itself: metrics, one JSON log line a request, one trace an answer.

None of the three holds a prompt, an answer or a token: metrics and logs never, traces only where the
project asks for it (serve.store_content).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunesmith.http.log import error_line, log

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Observer:
    """Counts and times. Names follow OpenTelemetry's gen_ai.server.* in Prometheus' spelling."""

    def __init__(self, *, trace: Callable[[dict[str, Any]], None], store_content: bool) -> None:
        self._trace = trace
        self._store_content = store_content
        self._key = secrets.token_bytes(32)  # of this process: hashes of clients can't be looked up later
        self._registry = r = CollectorRegistry()
        answer = ["operation", "model"]
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "gen_ai.server.request.duration",
            answer,
            buckets=SECONDS,
            registry=r,
        )
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "gen_ai.server.time_to_first_token",
            answer,
            buckets=SECONDS,
            registry=r,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "gen_ai.server.time_per_output_token",
            answer,
            buckets=TOKEN_SECONDS,
            registry=r,
        )
        self._requests = Counter("tunesmith_requests", "requests by route and status", ["route", "status"], registry=r)
        self._tokens = Counter("tunesmith_tokens", "tokens by kind", ["kind", "model"], registry=r)
        self._lost = Counter("tunesmith_traces_lost", "traces that could not be written", registry=r)
        self._waiting = Gauge("tunesmith_queue_length", "answers waiting for a place in the batch", registry=r)
        self._running = Gauge("tunesmith_running", "answers being decoded", registry=r)

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._waiting.set_function(waiting)
        self._running.set_function(running)

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def request(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """One HTTP exchange is over: counted, and logged by its route, never by what the client wrote."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(route, str(status)).inc()
        log("request", method=method, route=route, status=status, seconds=round(seconds, 4))

    def answered(self, trace: dict[str, Any], *, messages: Any, answer: str) -> None:
        """One answer (or failure) left: counted, timed and traced."""
        labels = (trace["route"], trace["model"])
        self._duration.labels(*labels).observe(trace["seconds"])
        first = trace["time_to_first_token"]
        if first is not None:
            self._first.labels(*labels).observe(first)
            if trace["answer_tokens"] > 1:
                self._per_token.labels(*labels).observe((trace["seconds"] - first) / (trace["answer_tokens"] - 1))
        self._tokens.labels("prompt", trace["model"]).inc(trace["prompt_tokens"])
        self._tokens.labels("answer", trace["model"]).inc(trace["answer_tokens"])
        self.keep(trace, messages=messages, answer=answer)

    def keep(self, trace: dict[str, Any], *, messages: Any, answer: str) -> None:
        """Leave the trace, with content only where it is to be kept."""
        if self._store_content:
            trace = {**trace, "messages": messages, "answer": answer}
        try:
            self._trace(trace)
        except Exception as e:  # an answer is worth more than its trace; the loss is counted and said
            self._lost.inc()
            error_line(e)

    def client_hash(self, client: str) -> str:
        """The same client within this process gives the same 16 hexadecimal digits; nothing else can be told."""
        return hmac.new(self._key, client.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
