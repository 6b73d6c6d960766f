"""Spans: overlaps, masking, and that hostile texts cost little."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audit.bias import swap
from tunesmith.data.audit.look import LookChecks, find_risks
from tunesmith.data.audit.scan import surest
from tunesmith.data.audit.spans import Span, masked, masked_excerpt, replace_spans, resolve

TEXT = "abcdefghijklmnopqrstuvwxyz" * 4
SPANS = st.lists(
    st.builds(
        lambda start, length, kind, score: Span(start, min(start + length, len(TEXT)), kind, kind, score),
        st.integers(0, len(TEXT) - 1),
        st.integers(1, 20),
        st.sampled_from(["email", "phone", "iban", "name"]),
        st.sampled_from([0.5, 0.9]),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(SPANS, st.randoms(use_true_random=False))
def test_resolved_spans_are_apart_cover_all_and_do_not_depend_on_order(spans: list[Span], rng) -> None:  # type: ignore[no-untyped-def]
    resolved = resolve(spans, surest)
    assert all(a.end <= b.start for a, b in itertools.pairwise(resolved))
    assert {i for s in resolved for i in range(s.start, s.end)} == {i for s in spans for i in range(s.start, s.end)}
    shuffled = list(spans)
    rng.shuffle(shuffled)
    assert resolve(shuffled, surest) == resolved
    assert all(s.value(TEXT) in {x.value(TEXT) for x in spans} for s in resolved)


@settings(max_examples=200, deadline=None)
@given(SPANS, st.integers(0, len(TEXT) - 2), st.integers(1, 30))
def test_an_excerpt_shows_nothing_hidden(spans: list[Span], start: int, length: int) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(len(TEXT)))  # every character once
    hidden = resolve(spans, surest)
    shown = masked_excerpt(text, start, min(start + length, len(text)), hidden)
    assert not set(shown) & {text[i] for s in hidden for i in range(s.start, s.end)}
    assert masked(text, hidden) == replace_spans(text, hidden, lambda s: s.tag)


def test_an_excerpt_is_one_line_without_control_characters() -> None:
    assert masked_excerpt("a\n\tb\x07 c", 0, 7, []) == "a b\ufffd c"
    assert masked_excerpt("x" * 100, 50, 51, []) == "…" + "x" * 49 + "…"


HOSTILE = ["1 ", "1-", "@", "a@b.de ", "password ", "-----BEGIN PRIVATE KEY-----\n", "eyJhbGciOi.", "12 Main Street, ", "(",
           "<|", "ignore all ", "act without ", "you ai with ", "GB82 ", "AB12", "1 Aa Aa Aa ", "\n \n", "her ", "Â"]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_cost_little(piece: str) -> None:
    text = (piece * (50_000 // len(piece) + 1))[:50_000]
    start = time.process_time()
    find_risks(text, LookChecks(languages=False))
    swap(text)
    assert time.process_time() - start < 5  # seconds; a quarter of one on a quiet machine
