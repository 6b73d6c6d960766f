"""The endpoint: what is refused before anything is sent, what is tried again, and what the token is told to."""

from __future__ import annotations

import threading

import pytest

from tests.data.documents.making import completion, teacher
from tunesmith.core.errors import InputError, Stopped, TunesmithError
from tunesmith.data.documents.endpoint import TRIES, Refused, ask, endpoint

BODY = {"model": "m", "messages": []}
GO = threading.Event()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/v1", "in the clear"),
        ("http://127.0.0.1.example.org/v1", "in the clear"),
        ("ftp://example.org", "no http or https URL"),
        ("example.org/v1", "no http or https URL"),
        ("https://", "no http or https URL"),
        ("https://me:secret@example.org/v1", "a password"),
        ("https://example.org/v1?key=secret", "a query"),
        ("https://example.org:port/v1", "is no URL"),
    ],
)
def test_urls_that_could_leak_are_refused(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as e:
        endpoint(url, "")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://example.org/v1", "example.org", "/v1/chat/completions"),
        ("https://example.org/v1/chat/completions/", "example.org", "/v1/chat/completions"),
        ("http://[::1]:8000", "::1", "/chat/completions"),
        ("http://LOCALHOST/v1/", "localhost", "/v1/chat/completions"),
    ],
)
def test_urls_that_are_fine(url: str, host: str, path: str) -> None:
    to = endpoint(url, "")
    assert (to.host, to.path) == (host, path)


def test_the_token_is_read_where_it_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="A_TOKEN is not set"):
        endpoint("https://example.org", "A_TOKEN")
    monkeypatch.setenv("A_TOKEN", "sk-very\nsecret")
    with pytest.raises(InputError) as e:
        endpoint("https://example.org", "A_TOKEN")
    assert "secret" not in str(e.value)
    monkeypatch.setenv("A_TOKEN", "sk-very-secret")
    assert "secret" not in repr(endpoint("https://example.org", "A_TOKEN"))
    with teacher(lambda body, n: (200, {}, completion("hello"))) as heard:
        ask(endpoint(heard.url, "A_TOKEN"), BODY, GO)
        ask(endpoint(heard.url, ""), BODY, GO)
    assert [h.get("authorization") for h in heard.headers] == ["Bearer sk-very-secret", None]
    assert heard.headers[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_what_passes_is_tried_again(status: int) -> None:
    def behave(body: object, nth: int) -> tuple[int, dict[str, str], bytes]:
        return (status, {"Retry-After": "0"}, b"busy") if nth < 3 else (200, {}, completion("at last"))

    with teacher(behave) as heard:
        reply = ask(endpoint(heard.url, ""), BODY, GO, first_wait_s=0.01)
        assert heard.count == 3
    assert reply["choices"][0]["message"]["content"] == "at last"


def test_it_gives_up_in_the_end_and_says_how_to_go_on() -> None:
    with teacher(lambda body, n: (503, {}, b"secret passage")) as heard:
        with pytest.raises(TunesmithError, match="nothing is asked twice") as e:
            ask(endpoint(heard.url, ""), BODY, GO, first_wait_s=0.001)
        assert heard.count == TRIES
    assert "HTTP 503" in str(e.value)
    assert "secret" not in str(e.value)


def test_nobody_there() -> None:
    with teacher(lambda body, n: (200, {}, b"")) as heard:
        url = heard.url
    with pytest.raises(TunesmithError, match="did not answer"):
        ask(endpoint(url, ""), BODY, GO, first_wait_s=0.001)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "sk-secret")
    with teacher(lambda body, n: (200, {}, completion("stolen"))) as elsewhere:
        sent = {"Location": elsewhere.url}
        with teacher(lambda body, n: (status, sent, b"")) as heard, pytest.raises(InputError, match="no redirect is"):
            ask(endpoint(heard.url, "A_TOKEN"), BODY, GO)
        assert elsewhere.count == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refuses the token"), (403, "refuses the token"), (404, "no such model"), (418, "HTTP 418")],
)
def test_what_will_not_pass_is_not_tried_again(status: int, said: str) -> None:
    with teacher(lambda body, n: (status, {}, b'{"error": {"message": "secret passage"}}')) as heard:
        with pytest.raises(InputError, match=said) as e:
            ask(endpoint(heard.url, ""), BODY, GO)
        assert heard.count == 1
    assert "secret" not in str(e.value)


def test_a_request_that_is_refused_says_the_code_and_not_the_message() -> None:
    said = b'{"error": {"message": "secret passage", "code": "context_length_exceeded"}}'
    with teacher(lambda body, n: (400, {}, said)) as heard, pytest.raises(Refused) as e:
        ask(endpoint(heard.url, ""), BODY, GO)
    assert str(e.value) == "HTTP 400 (context_length_exceeded)"


def test_a_stop_is_heard_while_waiting() -> None:
    stop = threading.Event()

    def behave(body: object, nth: int) -> tuple[int, dict[str, str], bytes]:
        stop.set()
        return 429, {"Retry-After": "60"}, b""

    with teacher(behave) as heard, pytest.raises(Stopped):
        ask(endpoint(heard.url, ""), BODY, stop)
    assert heard.count == 1


def test_a_reply_that_is_no_json_is_none() -> None:
    with teacher(lambda body, n: (200, {}, b"<html>")) as heard:
        assert ask(endpoint(heard.url, ""), BODY, GO) is None


def test_a_reply_that_is_cut_off_is_asked_for_again() -> None:
    def behave(body: object, nth: int) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Length": "5000"} if nth == 1 else {}, completion("whole")

    with teacher(behave) as heard:
        reply = ask(endpoint(heard.url, ""), BODY, GO, first_wait_s=0.01)
        assert heard.count == 2
    assert reply["choices"][0]["message"]["content"] == "whole"
