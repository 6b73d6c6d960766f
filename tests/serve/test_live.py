"""A server under load, clients that leave, signals, and what is said about all of it."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.serve.conftest import Live, Start
from tests.serve.test_engine import texts
from tunesmith.core.errors import Busy, InputError
from tunesmith.core.settings import ServeSettings
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.server import listen, load_and_serve

USER = [{"role": "user", "content": "Fracture of shaft of left tibia"}]


def until(condition, seconds: float = 120.0) -> None:
    """Wait for something another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def metric(live: Live, name: str) -> float:
    page = urllib.request.urlopen(f"{live.base}/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


def test_sixteen_clients_at_once_each_get_the_answer_they_get_alone(live: Live) -> None:
    """Half of them streaming, lengths ragged, over both bundles."""

    def ask(i: int, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        wishes = {"model": "coder" if i % 4 == 3 else "prod", "messages": messages, "max_tokens": 4 + i}
        if i % 2:
            chunks = live.client().chat.completions.create(stream=True, **wishes)
            return "".join(c.choices[0].delta.content or "" for c in chunks)
        return live.client().chat.completions.create(**wishes).choices[0].message.content

    asked = list(enumerate(texts(16, seed=21)))
    alone = [ask(*a) for a in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda a: ask(*a), asked))
    assert together == alone and len(set(alone)) > 8


def test_more_than_the_queue_holds_is_told_when_to_come_back(start: Start, chat_bundle: LoadedBundle) -> None:
    live = start({"prod": chat_bundle}, max_batch=1, max_queue=1)

    def ask(_: int) -> int:
        try:
            live.client().chat.completions.create(model="prod", messages=USER, max_tokens=60, temperature=1.0)
            return 200
        except openai.RateLimitError as e:
            assert e.code == "queue_full" and 1 <= int(e.response.headers["retry-after"]) <= 60
            return 429

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(24)))
    assert sorted(t["status"] for t in live.traces) == sorted(statuses)  # a refusal leaves a trace too
    assert set(statuses) == {200, 429} and statuses.count(200) >= 2
    assert metric(live, 'tunesmith_requests_total{route="/v1/chat/completions",status="429"}') == statuses.count(429)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(start: Start, chat_bundle: LoadedBundle, stream: bool) -> None:
    live = start({"prod": chat_bundle}, max_batch=1, max_queue=4)
    host, port = live.base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    body = {"model": "prod", "messages": USER, "max_tokens": 400, "temperature": 2.0, "stream": stream, "seed": 3}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    if stream:
        connection.getresponse().read(50)
    until(lambda: metric(live, "tunesmith_running") == 1)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    until(lambda: metric(live, "tunesmith_running") == 0)
    until(lambda: bool(live.traces))
    assert live.traces[0]["finish"] == "aborted" and live.traces[0]["status"] == 499
    assert live.traces[0]["answer_tokens"] < 400


SERVER = """
import sys
from pathlib import Path
from tunesmith.core.settings import ServeSettings
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.server import load_and_serve
load_and_serve(lambda: {"prod": LoadedBundle.load(Path(sys.argv[1]), Path(sys.argv[2]))}, host="127.0.0.1", port=0,
               settings=ServeSettings(), trace=lambda t: None, say=lambda text: print(text, flush=True))
print("drained", flush=True)
"""


def run_server(folders: tuple[Path, Path], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, folders)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_sigterm_cuts_no_stream_and_ends_cleanly(bundle_folders: tuple[Path, Path]) -> None:
    process = run_server(bundle_folders)
    try:
        assert process.stdout is not None and process.stderr is not None
        base = process.stdout.readline().split()[2]
        client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
        wishes = {"model": "prod:generate", "messages": USER, "max_tokens": 300, "temperature": 2.0, "seed": 1}
        want = client.chat.completions.create(**wishes)
        stream = client.chat.completions.create(stream=True, **wishes)
        first = next(stream)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        chunks = [first, *stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == want.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == want.choices[0].finish_reason
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
        assert process.wait(120) == 0
        rest = process.stdout.read()
        assert "curl http://127.0.0.1:" in rest and rest.endswith("drained\n")
        for line in process.stderr.read().splitlines():
            if line.startswith("{"):
                assert json.loads(line)["event"] in ("request", "log")
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_said_before_a_model_is_loaded() -> None:
    taken = listen("127.0.0.1", 0)
    try:
        with pytest.raises(
            Busy, match=r"can't listen on 127\.0\.0\.1:\d+: Address already in use\n  fix: .*serve.port=0"
        ):
            listen("127.0.0.1", taken.getsockname()[1])
    finally:
        taken.close()


CANARIES = [
    f"canary{i:02d}-{kind}"
    for i in range(10)
    for kind in ("sk-live", "4111111111111111", "jane@doe.example", "\x1b[31m", "\r\nInjected: 1")
]


def test_planted_secrets_are_nowhere_but_in_the_answer_to_their_owner(
    start: Start, chat_bundle: LoadedBundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty strings through every field, good and bad requests, an internal error: in no log, metric, trace or error."""
    token = "canary-token-0123456789"
    live = start({"prod": chat_bundle}, token=token)
    caplog.set_level(logging.DEBUG)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    told: list[bytes] = []

    def send(path: str, body: object, **more: str) -> None:
        request = urllib.request.Request(
            live.base + path, json.dumps(body).encode(), {**headers, **more}, method="POST"
        )
        try:
            urllib.request.urlopen(request).read()
        except urllib.error.HTTPError as e:
            told.append(e.read())

    for i, secret in enumerate(CANARIES):
        chat = {"model": "prod", "messages": [{"role": "user", "content": secret}], "max_tokens": 2, "user": secret}
        send("/v1/chat/completions", chat | {"stop": secret, "stream": bool(i % 2)})
        send("/v1/chat/completions", chat | {"max_tokens": secret})
        send("/v1/chat/completions", chat | {"model": secret})
        send("/v1/chat/completions", chat | {"messages": [{"role": secret, "content": secret}]})
        send("/v1/chat/completions", chat | {"messages": [{"role": "user", "content": secret * 100}]})
        send(f"/v1/{urllib.parse.quote(secret)}?key={urllib.parse.quote(secret)}", chat)
        send("/v1/completions", {"model": "prod", "prompt": secret, "max_tokens": 2, "suffix": secret})
        send("/v1/chat/completions", chat, Authorization=f"Bearer {urllib.parse.quote(secret)}")
    monkeypatch.setattr("tunesmith.serve.exchange.usage_of", lambda *_: 1 / int(CANARIES[0]))
    send(
        "/v1/chat/completions",
        {"model": "prod", "messages": [{"role": "user", "content": CANARIES[0]}], "max_tokens": 2},
    )
    page = urllib.request.urlopen(urllib.request.Request(live.base + "/metrics", headers=headers)).read()
    logs = "\n".join(
        r.getMessage() + str(r.exc_text) + str(r.exc_info)
        for r in caplog.records
        if "tunesmith" in r.name or "uvicorn" in r.name
    )
    assert len(told) >= 5 * len(CANARIES) and '"event": "request"' in logs and '"kind": "ValueError"' in logs
    everything = b"\n".join([page, logs.encode(), json.dumps(live.traces).encode(), *told]).decode()
    assert not [s for s in (*CANARIES, token) if s in everything or json.dumps(s)[1:-1] in everything]
    assert "canary" not in everything


def test_content_is_kept_only_where_it_is_asked_for(start: Start, chat_bundle: LoadedBundle) -> None:
    live = start({"prod": chat_bundle}, store_content=True)
    answer = live.client().chat.completions.create(model="prod", messages=USER, max_tokens=3)
    assert live.traces[0]["messages"][0].content == USER[0]["content"]
    assert live.traces[0]["answer"] == answer.choices[0].message.content


def test_traces_fit_the_trace_store(start: Start, chat_bundle: LoadedBundle, tmp_path: Path) -> None:
    from tunesmith.ledger.traces import Traces

    live = start({"prod": chat_bundle}, store_content=True)
    live.client().chat.completions.create(model="prod", messages=USER, max_tokens=3)
    list(live.client().completions.create(model="prod", prompt="a", max_tokens=3, stream=True))
    with Traces.open(tmp_path / "traces.db", store_content=True) as store:
        for trace in live.traces:
            store.append(**trace)
        kept = store.rows()
    assert [r["route"] for r in kept] == ["/v1/completions", "/v1/chat/completions"]


def test_metrics_count_what_was_served(start: Start, chat_bundle: LoadedBundle) -> None:
    live = start({"prod": chat_bundle})
    for _ in range(3):
        answer = live.client().chat.completions.create(model="prod", messages=USER, max_tokens=4)
    assert metric(live, "gen_ai_server_request_duration_seconds_count") == 3
    assert metric(live, "gen_ai_server_time_to_first_token_seconds_count") == 3
    assert metric(live, "gen_ai_server_time_per_output_token_seconds_count") == 3
    assert metric(live, 'tunesmith_tokens_total{kind="answer"') == 3 * answer.usage.completion_tokens
    assert metric(live, "tunesmith_queue_length") == 0


def test_a_host_others_can_reach_gets_a_token_that_is_shown_once(
    chat_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    served: list[str | None] = []
    monkeypatch.setattr("tunesmith.serve.server.serve", lambda app, *_, **__: served.append(app.state.token))
    load_and_serve(
        lambda: {"prod": chat_bundle}, host="0.0.0.0", port=0, settings=ServeSettings(), trace=print,
        environment={}, say=said.append,
    )  # fmt: skip
    assert served[0] is not None and f"export TUNESMITH_TOKEN={served[0]}" in said[0]


def test_a_taken_port_and_a_weak_token_are_said_before_loading() -> None:
    def load() -> dict[str, LoadedBundle]:
        raise AssertionError("loaded")

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Busy):
        load_and_serve(load, host="127.0.0.1", port=taken.getsockname()[1], settings=ServeSettings(), trace=print)
    with pytest.raises(InputError, match="at least 16 visible"):
        load_and_serve(
            load, host="0.0.0.0", port=0, settings=ServeSettings(), trace=print, environment={"TUNESMITH_TOKEN": "x"}
        )
