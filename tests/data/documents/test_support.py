"""Support: what was added to a passage is found, what was said in other words is not held against an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.documents.support import support

PASSAGE = (
    "Uploading packages\n\nTo upload a package, Ada Lovelace sends 3 files to ftp.example.org within 1,500 seconds. "
    "The maintainers' checks run twice a day in Berlin; version 2.10 is refused."
)


@pytest.mark.parametrize(
    "answer",
    [
        "Ada Lovelace sends three files to ftp.example.org.",
        "The maintainer checks uploaded packages twice a day.",
        "Files are sent within 1500 seconds.",
        "In Berlin, checks run twice each day.",
        "BERLIN",
        "Refused is version 2.10.",
    ],
)
def test_supported(answer: str) -> None:
    found = support(answer, PASSAGE, at_least=0.8)
    assert found.reason == ""
    assert found.score >= 0.8


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Ada Lovelace sends four files.", "the passage lacks 4"),
        ("Checks run in Paris twice a day.", "the passage lacks Paris"),
        ("Version 2.11 is refused.", "the passage lacks 2.11"),
        ("The package is sent over NASA networks", "the passage lacks NASA"),
        ("Checks run on expensive rented computers.", "content words"),
        ("Packages are not refused in Berlin.", "says no or not"),
        ("It is.", "no content words"),
    ],
)
def test_unsupported(answer: str, reason: str) -> None:
    assert reason in support(answer, PASSAGE, at_least=0.8).reason


def test_a_copied_span_is_measured() -> None:
    assert support("checks run twice a day in Berlin", PASSAGE, at_least=0.8).copied == 7
    assert support("Berlin checks", PASSAGE, at_least=0.8).copied == 1


@given(start=st.integers(0, len(PASSAGE.split()) - 4), n=st.integers(3, 12))
def test_a_copied_sentence_is_always_supported(start: int, n: int) -> None:
    answer = "it " + " ".join(PASSAGE.split()[start : start + n])
    assert support(answer, PASSAGE, at_least=1.0).reason == ""


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_a_score_between_0_and_1(answer: str, source: str) -> None:
    found = support(answer, source, at_least=0.5)
    assert 0 <= found.score <= 1
    assert found.copied >= 0
