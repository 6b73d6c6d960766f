"""What was trained is what is served: the command, the official client, the token, the trace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    project = Project.open(make_project(tmp_path_factory.mktemp("served") / "news", tiny_llama, n=90))
    project.bundle()
    return project


class Server:
    def __init__(self, project: Path, *arguments: str, token: str | None = None):
        env = dict(os.environ) | ({"TUNESMITH_TOKEN": token} if token else {})
        command = [
            sys.executable,
            "-m",
            "tunesmith",
            "serve",
            "--port",
            "0",
            "--model",
            "latest",
            "--project",
            str(project),
        ]
        self.process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        assert self.process.stdout and self.process.stderr
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            found = re.search(r"http://[\d.]+:(\d+)/v1", line)
            if found:
                self.url = found[0]
                break
        else:
            raise AssertionError(self.process.stderr.read())
        self.logs: list[str] = []
        self._reader = threading.Thread(target=lambda: self.logs.extend(self.process.stderr), daemon=True)  # type: ignore[arg-type]
        self._reader.start()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join(5)
        return code


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[Server]:
    server = Server(project.root)
    yield server
    assert server.stop() == 0


def test_the_official_client_gets_the_evaluated_answer(project: Project, server: Server) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key="none")
    assert "latest" in [m.id for m in client.models.list()]
    question = [{"role": "user", "content": "ball goal team match coach"}]
    answer = client.chat.completions.create(model="latest", messages=question, logprobs=True)  # type: ignore[arg-type]
    said = project.ask("ball goal team match coach", model="latest")
    assert answer.choices[0].message.content == said.text
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.content
    assert answer.choices[0].model_extra["tunesmith"]["confidence"] == pytest.approx(said.confidence, abs=1e-4)
    stream = client.chat.completions.create(model="latest", messages=question, stream=True)  # type: ignore[arg-type]
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == said.text


def test_two_clients_at_once(server: Server) -> None:
    from openai import OpenAI

    answers: dict[int, str | None] = {}

    def ask(i: int) -> None:
        client = OpenAI(base_url=server.url, api_key="none")
        made = client.chat.completions.create(model="latest", messages=[{"role": "user", "content": "rain storm snow"}])
        answers[i] = made.choices[0].message.content

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 2 and len(set(answers.values())) == 1


def test_each_request_leaves_a_trace_without_content(project: Project, server: Server) -> None:
    import time

    from openai import OpenAI

    from tunesmith.ledger.traces import Traces

    client = OpenAI(base_url=server.url, api_key="none")
    client.chat.completions.create(model="latest", messages=[{"role": "user", "content": "a secret canary"}])
    deadline = time.monotonic() + 10
    rows: list[dict[str, object]] = []
    while not rows and time.monotonic() < deadline:
        with Traces.open(project.root / ".tunesmith" / "traces.db") as traces:
            rows = traces.rows(5)
        time.sleep(0.2)
    assert rows and rows[0]["bundle"] == project._bundle_id("latest")
    assert "canary" not in str(rows)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


def test_another_host_needs_a_token(project: Project) -> None:
    server = Server(project.root, "--host", "0.0.0.0", token="right-token-of-good-length")
    try:
        url = f"{server.url}/models"
        assert status(url) == 401
        assert status(url, Authorization="Bearer wrong") == 401
        right = {"Authorization": "Bearer right-token-of-good-length"}
        assert status(url, **right) == 200
        assert status(url, **right, Host="evil.example") in (400, 403, 421)
        assert "right-token-of-good-length" not in server.said
    finally:
        server.stop()
    assert "right-token-of-good-length" not in "".join(server.logs)
