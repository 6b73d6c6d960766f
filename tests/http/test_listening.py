"""What every server of ours does with its port."""

from __future__ import annotations

import socket

import pytest

from tunesmith.core.errors import Busy
from tunesmith.http.listening import address, is_loopback, listen


def test_answers_are_not_held_back_for_the_clients_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each answer took 40 ms more."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_a_taken_port_names_the_setting_to_change() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(Busy) as caught:
        listen("127.0.0.1", taken.getsockname()[1], setting="label.port", verb="tunesmith data label")
    problem = caught.value.problems[0]
    assert problem.where == "label.port" and "tunesmith data label --set label.port=0" in problem.fix


def test_addresses_can_be_opened() -> None:
    assert address("0.0.0.0", 80) == address("::", 80) == "http://127.0.0.1:80"
    assert address("::1", 80) == address("[::1]", 80) == "http://[::1]:80"
    assert (
        is_loopback("localhost")
        and is_loopback("[::1]")
        and not is_loopback("0.0.0.0")
        and not is_loopback("x.example")
    )
