"""The pieces of a stream join to the text of the answer, whatever the tokens are cut into."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.detokenize import TextStream
from tunesmith.serve.scheduler import TokenLogprob


def spell(ids: list[int]) -> str:
    """A byte-level tokenizer in miniature: one token is one byte."""
    return bytes(ids).decode("utf-8", "replace")


def run(text: str, stop: tuple[str, ...] = (), *, tail: str = "", by_token: bool = True) -> tuple[list[str], bool]:
    stream = TextStream(spell, stop, tail=tail)
    pieces = []
    for byte in text.encode():
        piece = stream.push(byte, TokenLogprob("?", -1.0))
        if piece:
            pieces.append(piece.text)
        if stream.stopped:
            return pieces, True
    last = stream.finish(by_token=by_token)
    return pieces + ([last.text] if last else []), stream.stopped


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_character_is_torn_lost_or_doubled(text: str) -> None:
    pieces, _ = run(text)
    assert "".join(pieces) == text
    assert all("\ufffd" not in p for p in pieces) or "\ufffd" in text


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_a_stop_string_cuts_where_it_first_ends(text: str, stops: list[str]) -> None:
    pieces, stopped = run(text, tuple(stops))
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stopped == bool(ends)
    assert "".join(pieces) == (text[: min(at for end, at in ends if end == min(ends)[0])] if ends else text)


def test_text_that_may_begin_a_stop_string_is_held_back_and_no_longer() -> None:
    stream = TextStream(spell, ("END",))
    sent = [p.text if (p := stream.push(b)) else "" for b in b"aENd"]
    assert sent == ["a", "", "", "ENd"]


def test_what_the_template_writes_before_its_stop_token_is_not_text() -> None:
    assert run("answer\n", tail="\n") == (["a", "n", "s", "w", "e", "r"], False)
    assert "".join(run("answer\n", tail="\n", by_token=False)[0]) == "answer\n"
    assert "".join(run("a\nb\n\n", tail="\n")[0]) == "a\nb\n"


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    stream = TextStream(spell)
    assert stream.push(0xE2) is None and stream.push(0x82) is None
    last = stream.finish(by_token=False)
    assert last is not None and set(last.text) == {"\ufffd"}


def test_the_tokens_of_a_stop_string_have_no_logprobs() -> None:
    stream = TextStream(spell, ("xy",))
    pieces = [stream.push(b, TokenLogprob(chr(b), -0.5)) for b in b"abxy"]
    tokens = [t.token for p in pieces if p for t in p.logprobs]
    assert stream.stopped and tokens == ["a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_a_real_tokenizer_streams_what_it_decodes(chat_bundle: LoadedBundle, seed: int) -> None:
    renderer = chat_bundle.renderer
    ids = [t for t in random.Random(seed).choices(range(renderer.vocab_size), k=60) if t not in renderer.stop_ids]
    stream = TextStream(renderer.decode, tail=renderer.layout.tail)
    pieces = [stream.push(t) for t in ids] + [stream.finish(by_token=False)]
    assert "".join(p.text for p in pieces if p) == renderer.decode(ids)
