"""Turns, tools and preferences of every shape become the same messages, or are refused where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.making import jsonl, run_check
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message, ToolCall

USER = {"role": "user", "content": "Weather?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
SAID = {"role": "assistant", "content": "Sunny."}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
M = Message

SHAPES: list[tuple[str, dict[str, Any], tuple[Message, ...], str, str]] = [
    ("sharegpt", {"conversations": [HUMAN, GPT]}, (M(role="user", content="Hi"),), "Hello", ""),
    ("sharegpt", {"conversations": [{"from": "system", "value": "S"}, HUMAN, GPT, HUMAN, GPT]},
     (M(role="system", content="S"), M(role="user", content="Hi"), M(role="assistant", content="Hello"), M(role="user", content="Hi")), "Hello", ""),
    ("sharegpt", {"system": "S", "conversations": [HUMAN, GPT]}, (M(role="system", content="S"), M(role="user", content="Hi")), "Hello", ""),
    ("flan", {"inputs": "Translate: a", "targets": "b", "task": "wmt", "template_type": "zs_opt"}, (M(role="user", content="Translate: a"),), "b", ""),
    ("preference", {"input": {"messages": [USER]}, "preferred_output": [SAID], "non_preferred_output": [{"role": "assistant", "content": "Dunno."}]},
     (M(role="user", content="Weather?"),), "Sunny.", "Dunno."),
    ("chosen_rejected", {"prompt": "P", "chosen": "good", "rejected": "bad"}, (M(role="user", content="P"),), "good", "bad"),
    ("chosen_rejected", {"prompt": [USER], "chosen": [SAID], "rejected": [{"role": "assistant", "content": "bad"}]},
     (M(role="user", content="Weather?"),), "Sunny.", "bad"),
    ("chosen_rejected", {"chosen": [USER, SAID], "rejected": [USER, {"role": "assistant", "content": "bad"}]},
     (M(role="user", content="Weather?"),), "Sunny.", "bad"),
    ("traces", {"id": "t", "bundle": "b", "status": 200, "messages": json.dumps([USER]), "answer": "Sunny."}, (M(role="user", content="Weather?"),), "Sunny.", ""),
    ("traces", {"bundle": "b", "messages": [USER], "answer": "Sunny."}, (M(role="user", content="Weather?"),), "Sunny.", ""),
]  # fmt: skip


@pytest.mark.parametrize("name, record, messages, target, rejected", SHAPES)
def test_a_shape_is_found_and_read_verbatim(
    tmp_path: Path, name: str, record: dict[str, Any], messages: tuple[Message, ...], target: str, rejected: str
) -> None:
    got = run_check(tmp_path / "found", {"r.jsonl": jsonl([record])}, kind="chat")
    row = got.rows[0]
    assert (row.messages, row.target, row.rejected) == (messages, target, rejected)
    assert got.facts["shape"] == name and "1 of the first 1 rows have" in got.facts["shape_words"]
    stated = run_check(tmp_path / "stated", {"r.jsonl": jsonl([record])}, kind="chat", shape=name)
    assert stated.rows == got.rows and f"(data.shape is {name})" in stated.facts["shape_words"]


def test_calls_of_tools_their_answers_and_the_tools_are_kept(tmp_path: Path) -> None:
    record = {"messages": [USER, CALLS, RESULT, SAID], "tools": TOOLS}
    row = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="chat").rows[0]
    call = ToolCall(name="weather", arguments='{"city": "Rome"}', id="c1")
    assert row.messages[1:] == (
        M(role="assistant", content="", tool_calls=(call,)), M(role="tool", content="sunny", tool_call_id="c1"),
    )  # fmt: skip
    assert row.target == "Sunny." and list(row.tools) == TOOLS and row.id == row.example.id


def test_a_row_that_ends_with_a_call_keeps_it_as_its_last_turn(tmp_path: Path) -> None:
    record = {"messages": [USER, CALLS], "tools": TOOLS}
    row = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="chat").rows[0]
    assert row.messages[-1].tool_calls[0].name == "weather"
    assert row.target == '{"arguments":{"city":"Rome"},"name":"weather"}'


def test_rows_that_differ_only_in_calls_or_tools_are_no_duplicates(tmp_path: Path) -> None:
    other = {**CALL, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    first = {"messages": [USER, CALLS, RESULT, SAID]}
    second = {"messages": [USER, {**CALLS, "tool_calls": [other]}, RESULT, SAID]}
    rows = [first, second, {**first, "tools": TOOLS}, first]
    got = run_check(tmp_path, {"r.jsonl": jsonl(rows)}, kind="chat")
    assert [r.line for r in got.rows] == [1, 2, 3] and [g.line for g in got.left_out] == [4]


def test_preferences_over_other_answers_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{"prompt": "P", "chosen": "good", "rejected": r} for r in ("bad", "worse", "Bad ")]
    got = run_check(tmp_path, {"r.jsonl": jsonl(rows)}, kind="instruct")
    assert [r.rejected for r in got.rows] == ["bad", "worse"] and got.rows[0].group == got.rows[1].group


def test_sharegpt_calls_and_observations_are_tool_turns(tmp_path: Path) -> None:
    turns = [
        HUMAN,
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
        {"from": "observation", "value": "sunny"},
        GPT,
    ]
    record = {"conversations": turns, "tools": json.dumps([{"name": "weather", "parameters": {}}])}
    row = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="chat").rows[0]
    assert row.messages[1].tool_calls == (ToolCall(name="weather", arguments='{"city":"Rome"}'),)
    assert row.messages[2] == M(role="tool", content="sunny")
    assert row.tools == ({"type": "function", "function": {"name": "weather", "parameters": {}}},)


def test_a_weight_of_0_is_kept_on_an_earlier_turn(tmp_path: Path) -> None:
    record = {"messages": [USER, {**SAID, "weight": 0}, USER, {**SAID, "weight": 1}]}
    row = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="chat").rows[0]
    assert [m.weight for m in row.messages] == [1.0, 0.0, 1.0]


BAD: list[tuple[str, Any, str]] = [
    ("turns", {"messages": [USER, CALLS, SAID]}, "messages[2].role: is 'assistant' after 'assistant', which calls 1 tool(s) of which 0 answered"),
    ("turns", {"messages": [USER, CALLS, RESULT, RESULT, SAID]}, "messages[3].role: is 'tool' after 'tool', where 'assistant' is due"),
    ("tool_calls", {"messages": [USER, CALLS, {**RESULT, "tool_call_id": "c9"}, SAID]}, "messages[2].tool_call_id: is 'c9', but the calls before it are 'c1'"),
    ("tool_calls", {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}]}, "messages[1]: is OpenAI's older form of a tool call"),
    ("tool_calls", {"messages": [{**USER, "tool_calls": [CALL]}, SAID]}, "messages[0].tool_calls: stands on a turn of user"),
    ("tool_calls", {"messages": [USER, {**CALLS, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}]}, "arguments: is not JSON"),
    ("tool_calls", {"messages": [USER, {**CALLS, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]}]}, "arguments: is no JSON object"),
    ("tool_calls", {"messages": [USER, {**CALLS, "tool_calls": [{**CALL, "function": {"name": "", "arguments": "{}"}}]}]}, "name: is missing"),
    ("tool_calls", {"messages": [USER, SAID], "tools": "nonsense"}, "tools: is not JSON"),
    ("tool_calls", {"messages": [USER, SAID], "tools": [{"type": "retrieval"}]}, "tools[0]: is no function"),
    ("weight", {"messages": [USER, {**SAID, "weight": 0}]}, "messages[1].weight: is 0 on the last turn"),
    ("wrong_type", {"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content: is missing, not a text"),
    ("role", {"conversations": [{"from": "humann", "value": "a"}, GPT]}, "conversations[0].from: is 'humann'; did you mean 'human'?"),
    ("no_text", {"conversations": [{"from": "human", "value": " "}, GPT]}, "conversations[0].value: is empty"),
    ("turn_keys", {"conversations": [{**HUMAN, "markdown": "x"}, GPT]}, "conversations[0].markdown: is not known"),
    ("turns", {"conversations": [GPT]}, "conversations[0].role: is 'assistant' at the start"),
    ("turns", {"system": "S", "conversations": [{"from": "system", "value": "T"}, HUMAN, GPT]}, "system: stands beside a turn of the system"),
    ("no_text", {"chosen": "a b", "rejected": "a c"}, "prompt: is missing, and where a prompt ends within the texts is not said"),
    ("turns", {"chosen": [USER, SAID], "rejected": [{"role": "user", "content": "other"}, SAID]}, "the two conversations differ before their last turn"),
    ("same_answers", {"prompt": "P", "chosen": "a", "rejected": "a"}, "both answers are the same"),
    ("turns", {"input": {"messages": [USER]}, "preferred_output": [SAID, SAID], "non_preferred_output": [SAID]}, "preferred_output: holds 2 turn(s), not one"),
    ("wrong_type", {"input": "text", "preferred_output": [SAID], "non_preferred_output": [SAID]}, "input: is a text, not an object with messages"),
    ("no_content", {"bundle": "b", "messages": None, "answer": None}, "the content of this request was not kept"),
    ("failed_request", {"bundle": "b", "messages": [USER], "answer": "x", "status": 503}, "status: is 503"),
    ("other_shape", {"prompt": "P", "completion": "C"}, "is of shape prompt_completion"),
    ("two_shapes", {"messages": [USER, SAID], "prompt": "P", "completion": "C"}, "fits messages and prompt_completion at once"),
]  # fmt: skip


@pytest.mark.parametrize("reason, record, says", BAD)
def test_what_cannot_be_said_faithfully_is_listed_with_its_place(
    tmp_path: Path, reason: str, record: dict[str, Any], says: str
) -> None:
    good = {
        "conversations": {"conversations": [HUMAN, GPT]},
        "chosen": {"prompt": "P", "chosen": "a", "rejected": "b"},
        "input": {"input": {"messages": [USER]}, "preferred_output": [SAID], "non_preferred_output": [{**SAID, "content": "b"}]},
        "bundle": {"bundle": "b", "messages": [USER], "answer": "x"},
    }.get(next((k for k in ("conversations", "chosen", "input", "bundle") if k in record), ""), {"messages": [USER, SAID]})  # fmt: skip
    body = jsonl([good, good, record])
    got = run_check(tmp_path / "leave", {"r.jsonl": body}, kind="chat", bad_rows="leave_out", duplicates="keep")
    assert [(g.line, g.reason) for g in got.left_out] == [(3, reason)] and says in got.left_out[0].detail
    assert len(got.rows) == 2
    with pytest.raises(DataError) as caught:
        run_check(tmp_path / "refuse", {"r.jsonl": body}, kind="chat", duplicates="keep")
    assert str(caught.value).startswith("r.jsonl:3:") and says in str(caught.value)


def test_typed_columns_say_calls_with_arguments_as_objects(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": None}}}
    turns = [
        {**USER, "tool_calls": None, "weight": None},
        {"role": "assistant", "content": "", "tool_calls": [call], "weight": 1.0},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist([{"messages": turns}]), tmp_path / "x.parquet")
    row = run_check(tmp_path / "run", {"x.parquet": (tmp_path / "x.parquet").read_bytes()}, kind="chat").rows[0]
    assert row.messages[-1].tool_calls[0].arguments == '{"a":1}'


# A stated shape is never guessed


def test_a_stated_shape_takes_no_other_row_for_it(tmp_path: Path) -> None:
    alpaca = [{"instruction": f"do {i}", "output": str(i)} for i in range(3)]
    rows = [*alpaca, {"prompt": "P", "completion": "C"}, {"text": "only"}]
    got = run_check(
        tmp_path / "1", {"r.jsonl": jsonl(rows)}, kind="instruct", shape="instruction", bad_rows="leave_out"
    )
    assert [(g.line, g.reason) for g in got.left_out] == [(4, "other_shape"), (5, "no_text")]
    got = run_check(
        tmp_path / "2", {"r.jsonl": jsonl(rows)}, kind="instruct", shape="prompt_completion", bad_rows="leave_out"
    )
    assert [r.line for r in got.rows] == [4] and {g.reason for g in got.left_out} == {"other_shape", "no_text"}


@pytest.mark.parametrize(
    "kind, shape, says",
    [
        ("chat", "sharegtp", "data.shape: 'sharegtp' is not a shape\n  fix:   --set data.shape=sharegpt"),
        ("chat", "text", "data.shape: 'text' says nothing that a chat task can learn from"),
        (
            "domain",
            "messages",
            "data.shape: 'messages' says nothing that a domain task can learn from\n  fix:   write text",
        ),
    ],
)
def test_a_shape_that_is_none_is_refused_once(tmp_path: Path, kind: str, shape: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        run_check(
            tmp_path, {"a.jsonl": jsonl([{"text": "x"}]), "b.jsonl": jsonl([{"text": "y"}])}, kind=kind, shape=shape
        )
    assert says in str(caught.value) and len(caught.value.problems) == 1
