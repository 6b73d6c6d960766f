"""The stage pairs: sources, duplicates, support, and a teacher that is paid once however often it is interrupted."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.data.documents.making import (
    Paired,
    Read,
    completion,
    honest,
    pairs_spec,
    passage_in,
    run_documents,
    run_pairs,
    teacher,
    teacher_spec,
)
from tunesmith.core.errors import DataError, InputError, Stopped, TunesmithError
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.pairs import pairs, question_key
from tunesmith.data.documents.stages import PairsInputs
from tunesmith.data.documents.teacher import parse, points_at_passage

MANUAL = "# Manual\n\n" + "".join(
    f"## Part {i}\n\nPart {i} explains thing{i} in detail. It has {i + 2} screws and a lid made of steel.\n\n"
    for i in range(12)
)
FILES: dict[str, bytes | str] = {
    "faq.md": "# FAQ\n\n## What is RAM?\n\nMemory, as the FAQ has it.\n\n## Is it free?\n\nYes.\n",
    "words.tsv": "RAM\tmemory that forgets\nrom\twhat does not forget\nRom\twhat does not forget\n",
}


@pytest.fixture
def manual(tmp_path: Path) -> Read:
    return run_documents(tmp_path / "documents", {"manual.md": MANUAL})


def test_pairs_carry_their_source_and_say_the_same_only_once(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", FILES, min_words=1)
    made = run_pairs(tmp_path / "p", read.folder)
    assert [(p.how, p.prompt, p.completion) for p in made.pairs] == [
        ("faq", "What is RAM?", "Memory, as the FAQ has it."),
        ("faq", "Is it free?", "Yes."),
        ("glossary", "What is rom?", "what does not forget"),
    ]
    assert [(g.reason, g.prompt, g.completion, g.line) for g in made.left_out] == [
        ("same_question", "What is RAM?", "memory that forgets", 3),
        ("duplicate", "What is Rom?", "what does not forget", 5),
    ]
    by_id = {p.id: p for p in read.passages}
    for pair in made.pairs:
        assert pair.completion in by_id[pair.source.passage].text
        assert pair.source.file == by_id[pair.source.passage].file
    assert made.facts["how"] == {"faq": 2, "glossary": 1}


def test_kinds_that_are_not_asked_for_are_not_made(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", FILES, min_words=1)
    assert {p.how for p in run_pairs(tmp_path / "p", read.folder, kinds=("glossary",)).pairs} == {"glossary"}
    with pytest.raises(DataError, match="no pair could be made"):
        run_pairs(tmp_path / "q", read.folder, kinds=("headings",))


def test_a_restored_pair_waits_with_the_others(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", FILES, min_words=1)
    gone = run_pairs(tmp_path / "p", read.folder).left_out[0]
    made = run_pairs(tmp_path / "q", read.folder, restored=(gone.key,))
    assert made.facts["restored"] == [gone.key]
    assert any(p.completion == gone.completion for p in made.pairs)


@pytest.mark.parametrize(
    "changes",
    [
        {"questions": ()},
        {"questions": ("What?",)},
        {"questions": ("What is {term} in {title}?",)},
        {"heading_questions": ("About {heading",)},
        {"heading_questions": ("About {heading} {0}",)},
    ],
)
def test_templates_that_cannot_be_filled_in_are_refused(manual: Read, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        run_pairs(tmp_path / "p", manual.folder, **changes)


def test_questions_that_differ_in_form_alone_have_one_key() -> None:
    assert question_key("What is a RAM?") == question_key("what is   the ram")
    assert question_key("What is C++?") != question_key("What is C?")
    assert question_key("What is C#?") != question_key("What is C?")


# -- a teacher ----------------------------------------------------------------------------------------------


def taught(
    root: Path,
    read: Read,
    url: str,
    *,
    stop: threading.Event | None = None,
    kinds: tuple[str, ...] = (),
    **changes: Any,
) -> Paired:
    spec = pairs_spec(kinds=kinds, min_support=changes.pop("min_support", 0.8), teacher=teacher_spec(url, **changes))
    work = Workspace(root=root, stop=stop or threading.Event())
    return Paired(pairs(spec, PairsInputs(passages=read.folder), work).pairs)


def test_a_teacher_s_pairs_are_checked_and_carry_their_passage(tmp_path: Path, manual: Read) -> None:
    with teacher(honest) as heard:
        made = taught(tmp_path / "p" / "k", manual, heard.url)
        assert heard.count == 12
    assert [p.prompt for p in made.pairs] == [f"What about Part {i} explains?" for i in range(12)]
    assert made.pairs[3].completion == "Part 3 explains thing3 in detail."
    assert made.pairs[3].source.heading == ("Manual", "Part 3")
    assert made.pairs[3].support["score"] == 1.0
    assert made.facts["teacher"] == {
        "model": "teacher-1",
        "asked": 12,
        "not_asked": 0,
        "unusable_replies": 0,
        "prompt_tokens": 1200,
        "answer_tokens": 240,
    }
    body = heard.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("teacher-1", 0.0, 256, 0)


def invents(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
    n = passage_in(body).split()[1]
    said = [
        {"question": f"How many screws has part {n}?", "answer": f"It has {int(n) + 2} screws."},
        {"question": f"Who made part {n}?", "answer": "It was made by Napoleon."},
        {"question": f"What does the passage say of part {n}?", "answer": f"Part {n} explains thing{n}."},
        {"question": f"HOW many screws has the part {n}", "answer": f"It has {int(n) + 2} screws."},
    ]
    return 200, {}, completion(json.dumps({"pairs": said}))


def test_what_a_teacher_invents_is_left_out_with_its_reason(tmp_path: Path, manual: Read) -> None:
    with teacher(invents) as heard:
        made = taught(tmp_path / "p" / "k", manual, heard.url, max_requests=5)
        assert heard.count == 5
    assert len(made.pairs) == 5
    assert made.facts["left_out"] == {"duplicate": 5, "not_self_contained": 5, "unsupported": 5}
    assert made.facts["teacher"]["not_asked"] == 7
    assert all(g.detail == "the passage lacks Napoleon" for g in made.left_out if g.reason == "unsupported")
    assert all(g.source is not None and g.completion for g in made.left_out)


BROKEN = [
    b"<html>",
    b"[]",
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}',
    b'{"choices": "no", "usage": "no"}',
    completion("I cannot do that."),
    completion('{"pairs": [{"question": "Cut off'),
    completion("[" * 100_000),
    completion('{"pairs": [{"question": 3, "answer": "x"}]}'),
    completion('{"pairs": [{"question": "Half \\ud800?", "answer": "thing"}]}'),
]


def test_malformed_replies_are_counted_and_never_crash(tmp_path: Path, manual: Read) -> None:
    def behave(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
        i = int(passage_in(body).split()[1])
        return (200, {}, BROKEN[i]) if i < len(BROKEN) else honest(body)

    with teacher(behave) as heard:
        made = taught(tmp_path / "p" / "k", manual, heard.url)
    gone = [g.reason for g in made.left_out]
    assert gone.count("malformed_reply") == 9
    assert len(made.pairs) + len(gone) == 12
    assert made.facts["teacher"]["unusable_replies"] == 9
    assert any("content_filter" in g.detail for g in made.left_out)


def test_an_interrupted_run_goes_on_and_pays_for_nothing_twice(tmp_path: Path, manual: Read) -> None:
    stop = threading.Event()

    def behave(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
        if nth == 5:
            stop.set()
        return honest(body)

    with teacher(behave) as heard:
        whole = taught(tmp_path / "whole" / "k", manual, heard.url)
    with teacher(behave) as heard:
        stop.clear()
        with pytest.raises(Stopped):
            taught(tmp_path / "p" / "k", manual, heard.url, stop=stop)
        first = heard.count
        assert 5 <= first < 12
        again = taught(tmp_path / "p" / "k", manual, heard.url)
        assert heard.count == 12
    assert len({json.dumps(body, sort_keys=True) for body in heard.bodies}) == 12
    assert again.bytes() == whole.bytes()


def test_a_line_torn_by_a_kill_is_asked_again(tmp_path: Path, manual: Read) -> None:
    root = tmp_path / "p" / "k"
    with teacher(honest) as heard:
        want = taught(root, manual, heard.url).bytes()
        state = root / "state" / "replies.jsonl"
        lines = state.read_bytes().splitlines(keepends=True)
        state.write_bytes(b"".join(lines[:7]) + lines[7][:30])
        for cached in (tmp_path / "p" / "teacher-replies").rglob("*.json"):
            cached.unlink()
        assert taught(root, manual, heard.url).bytes() == want
        assert heard.count == 12 + 5


def test_another_setting_that_leaves_a_request_as_it_was_pays_nothing(tmp_path: Path, manual: Read) -> None:
    with teacher(honest) as heard:
        taught(tmp_path / "p" / "key1", manual, heard.url, max_requests=6)
        assert heard.count == 6
        taught(tmp_path / "p" / "key2", manual, heard.url, min_support=0.1)
        assert heard.count == 12
        taught(tmp_path / "p" / "key3", manual, heard.url, temperature=0.5)
        assert heard.count == 24


def test_an_outage_stops_the_run_and_keeps_what_came(
    tmp_path: Path, manual: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.data.documents.endpoint.LONGEST_WAIT_S", 0.001)
    up = threading.Event()

    def behave(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
        return honest(body) if nth <= 4 or up.is_set() else (503, {}, b"down")

    with teacher(behave) as heard:
        with pytest.raises(TunesmithError, match="nothing is asked twice"):
            taught(tmp_path / "p" / "k", manual, heard.url)
        answered = len((tmp_path / "p" / "k" / "state" / "replies.jsonl").read_bytes().splitlines())
        assert answered == 4
        up.set()
        before = heard.count
        assert len(taught(tmp_path / "p" / "k", manual, heard.url).pairs) == 12
        assert heard.count == before + 8


def test_one_refused_request_is_a_reason_and_all_of_them_are_an_error(tmp_path: Path, manual: Read) -> None:
    def behave(body: dict[str, Any], nth: int) -> tuple[int, dict[str, str], bytes]:
        return (400, {}, b'{"error": {"code": "too_long"}}') if "thing4" in passage_in(body) else honest(body)

    with teacher(behave) as heard:
        made = taught(tmp_path / "p" / "k", manual, heard.url)
    assert [(g.reason, g.detail) for g in made.left_out] == [
        ("refused_by_teacher", "refuses the request: HTTP 400 (too_long)")
    ]
    with teacher(lambda body, n: (400, {}, b"")) as heard:
        with pytest.raises(InputError, match="each of the first 5 requests"):
            taught(tmp_path / "q" / "k", manual, heard.url)
        assert heard.count <= 5 + 2 * 4 + 1


def test_the_token_is_nowhere_on_disk(tmp_path: Path, manual: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_TOKEN", "sk-not-to-be-found")
    with teacher(honest) as heard:
        taught(tmp_path / "p" / "k", manual, heard.url, token_env="TEACHER_TOKEN")
    assert heard.headers[0]["authorization"] == "Bearer sk-not-to-be-found"
    written = [p for p in (tmp_path / "p").rglob("*") if p.is_file()]
    assert len(written) > 12
    assert not any(b"sk-not-to-be-found" in p.read_bytes() for p in written)


def test_what_the_document_asks_itself_is_not_asked_about(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", {**FILES, "m.md": "# M\n\nSome prose of its own here.\n"}, min_words=1)
    with teacher(honest) as heard:
        made = taught(tmp_path / "p" / "k", read, heard.url, kinds=("faq", "glossary"))
        assert [passage_in(b) for b in heard.bodies] == ["Some prose of its own here."]
    assert {p.how for p in made.pairs} == {"faq", "glossary", "teacher"}


def test_a_callable_may_teach(tmp_path: Path, manual: Read) -> None:
    asked: list[str] = []

    def ask(body: Any) -> Any:
        asked.append(passage_in(body))
        return json.loads(honest(body)[2])

    made = run_pairs(tmp_path / "p", manual.folder, ask=ask, kinds=(), teacher=teacher_spec())
    assert len(asked) == len(made.pairs) == 12
    run_pairs(tmp_path / "p", manual.folder, ask=ask, kinds=(), teacher=teacher_spec())
    assert len(asked) == 12
    assert not (tmp_path / "teacher-replies").exists()


def test_a_callable_without_a_spec_is_not_ignored(tmp_path: Path, manual: Read) -> None:
    with pytest.raises(InputError, match="how to ask it"):
        run_pairs(tmp_path / "p", manual.folder, ask=lambda body: None)


def test_a_teacher_that_cannot_be_asked_is_refused_at_once(tmp_path: Path, manual: Read) -> None:
    with pytest.raises(InputError, match="neither a URL nor a model"):
        taught(tmp_path / "p" / "k", manual, "")
    with pytest.raises(InputError, match="in the clear"):
        taught(tmp_path / "p" / "k", manual, "http://example.org")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"pairs": [{"question": "A?", "answer": "b"}]}', [("A?", "b")]),
        ('Sure!\n```json\n[{"question": "A?", "answer": "b"}]\n```\nDone.', [("A?", "b")]),
        ('Here: [{"instruction": "Do  A", "output": " b "}] .', [("Do A", "b")]),
        ('{"question": "A?", "answer": "b"}', [("A?", "b")]),
        ("Q: A?\nA: b\n\nQ: C?\nA: d\ne", [("A?", "b"), ("C?", "d\ne")]),
        ("1. **Question:** A?\n**Answer:** b\n2. **Question:** C?\n**Answer:** d", [("A?", "b"), ("C?", "d")]),
        ('{"pairs": [{"question": "A?", "answer": "b"}, {"question": "", "answer": "x"}, 3]}', [("A?", "b")]),
    ],
)
def test_replies_that_are_understood(text: str, found: list[tuple[str, str]]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize("text", ["", "no", "{}", "[]", "[1, 2]", '{"pairs": 3}', "null", '"text"'])
def test_replies_that_are_not(text: str) -> None:
    assert isinstance(parse(text), str)


def test_questions_that_point_at_a_passage() -> None:
    assert points_at_passage("What does the passage say?")
    assert points_at_passage("According to the given text, who is it?")
    assert not points_at_passage("How do you enter text in the text field?")
    assert not points_at_passage("What is a section of the archive?")
