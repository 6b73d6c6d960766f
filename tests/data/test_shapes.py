"""What a record means is found once, explained, and never guessed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.making import Checked, jsonl, run_check, table, two_classes
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message

TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


SHAPES: list[tuple[str, str, dict[str, Any], tuple[Message, ...], str]] = [
    ("messages", "chat", {"messages": TURNS}, user("Hello"), "Good day"),
    ("instruction", "instruct", {"instruction": "Add", "input": "1, 2", "output": "3"}, user("Add\n\n1, 2"), "3"),
    ("instruction", "instruct", {"instruction": "Add 1, 2", "input": "", "output": "3"}, user("Add 1, 2"), "3"),
    ("instruction", "instruct", {"instruction": "Add 1, 2", "output": "3"}, user("Add 1, 2"), "3"),
    ("prompt_completion", "instruct", {"prompt": "A", "completion": " B "}, user("A"), " B "),
    ("text_label", "summarize", {"text": " long ", "label": "short"}, user(" long "), "short"),
    ("text", "domain", {"text": "plain text"}, (), "plain text"),
]


@pytest.mark.parametrize("name, kind, record, messages, target", SHAPES)
def test_a_shape_is_found_explained_and_read_verbatim(
    tmp_path: Path, name: str, kind: str, record: dict[str, Any], messages: tuple[Message, ...], target: str
) -> None:
    got = run_check(tmp_path, {"rows.jsonl": jsonl([record])}, kind=kind)
    assert (got.rows[0].messages, got.rows[0].target) == (messages, target)
    assert got.facts["shape"] == name
    assert f"1 of the first 1 rows have {next(iter(record))}" in got.facts["shape_words"]


def test_the_shapes_of_jsonl_are_found_in_a_table_too(tmp_path: Path) -> None:
    body = table([("Add", "1, 2", "3")], header=("instruction", "input", "output"))
    got = run_check(tmp_path, {"rows.tsv": body}, kind="instruct")
    assert got.rows[0].messages == user("Add\n\n1, 2")
    assert "the header has instruction, output" in got.facts["shape_words"]


def test_columns_that_the_task_names_need_no_detection(tmp_path: Path) -> None:
    record = {"prompt": "P", "completion": "C", "text": "T", "label": "L", "group": 7}
    got = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="instruct", text="text", label="label", group="group")
    assert (got.rows[0].messages, got.rows[0].target, got.rows[0].group) == (user("T"), "L", "7")
    assert "columns that are not used: 'prompt', 'completion'" in got.findings


def test_a_whole_conversation_is_kept(tmp_path: Path) -> None:
    turns = [{"role": "developer", "content": "Be kind."}, *TURNS, {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
             {"role": "assistant", "content": "Bye!", "weight": 1, "refusal": None, "tool_calls": None}]  # fmt: skip
    row = run_check(tmp_path, {"r.jsonl": jsonl([{"messages": turns}])}, kind="chat").rows[0]
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user"]
    assert (row.messages[0].content, row.messages[3].content, row.target) == ("Be kind.", "Bye", "Bye!")


def chat(*turns: tuple[str, Any], **extra: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content, **extra} for role, content in turns]}


BAD_CHATS: list[tuple[str, Any, str]] = [
    ("role", chat(("human", "a"), ("assistant", "b")), "messages[0].role: is 'human'; did you mean 'user'?"),
    ("role", chat(("asistant", "a")), "did you mean 'assistant'?"),
    ("role", chat((7, "a")), "messages[0].role: is 7"),  # type: ignore[arg-type]
    ("role", chat(([], "a")), "messages[0].role: is []"),  # type: ignore[arg-type]
    ("turns", chat(("user", "a"), ("user", "b"), ("assistant", "c")), "messages[1].role: is 'user' after 'user'"),
    ("turns", chat(("assistant", "a"), ("user", "b"), ("assistant", "c")), "is 'assistant' at the start"),
    ("turns", chat(("user", "a"), ("system", "b"), ("assistant", "c")), "messages[1].role: is 'system' after 'user'"),
    ("no_label", chat(("user", "a")), "messages: the last turn is not the assistant's"),
    ("no_label", {"messages": []}, "messages: the last turn is not the assistant's"),
    ("no_label", chat(("user", "a"), ("assistant", " ")), "messages[1].content: is empty"),
    ("no_text", chat(("user", ""), ("assistant", "b")), "messages[0].content: is empty"),
    ("wrong_type", {"messages": "hello"}, "messages: is a text, not a list"),
    ("wrong_type", {"messages": ["hello"]}, "messages[0]: is a text, not an object with role and content"),
    ("wrong_type", {"other": 1}, "messages: is missing, not a list"),
    ("wrong_type", chat(("user", None), ("assistant", "b")), "messages[0].content: is missing, not a text"),
    ("wrong_type", chat(("user", [{"type": "image_url"}]), ("assistant", "b")), "messages[0].content: is a list"),
    ("wrong_type", chat(("user", [{"type": "text"}]), ("assistant", "b")), "messages[0].content: is missing"),
    ("turn_keys", chat(("user", "a"), ("assistant", "b"), name="Ann"), "messages[0].name: is not known"),
    ("weight", chat(("user", "a"), weight=1), "messages[0].weight: is 1 on a turn of user"),
    ("weight", {"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, "messages[1].weight: is 0 on the last turn"),
    ("weight", {"messages": [TURNS[0], {**TURNS[1], "weight": -0.5}]}, "messages[1].weight: is -0.5 on a turn of"),
    ("weight", {"messages": [TURNS[0], {**TURNS[1], "weight": True}]}, "messages[1].weight: is True on a turn of"),
    ("tool_calls", {"messages": [TURNS[0], {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls[0]: is no call of a"),
    ("turns", chat(("user", "a"), ("tool", "b"), ("assistant", "c")), "messages[1].role: is 'tool' after 'user'"),
]  # fmt: skip


@pytest.mark.parametrize("reason, record, says", BAD_CHATS)
def test_a_conversation_that_cannot_be_rendered_faithfully_is_refused(
    tmp_path: Path, reason: str, record: Any, says: str
) -> None:
    body = jsonl([{"messages": TURNS}, record])
    with pytest.raises(DataError) as caught:
        run_check(tmp_path / "refuse", {"r.jsonl": body}, kind="chat")
    assert str(caught.value).startswith("r.jsonl:2: messages") and says in str(caught.value)
    left = run_check(tmp_path / "leave", {"r.jsonl": body}, kind="chat", bad_rows="leave_out").left_out
    assert [(gone.line, gone.reason) for gone in left] == [(2, reason)]


BAD_ROWS: list[tuple[str, str, Any, str]] = [
    ("instruct", "history", {"instruction": "a", "output": "b", "history": [["x", "y"]]}, "earlier turns cannot be said"),
    ("instruct", "wrong_type", {"instruction": "a", "input": ["b"], "output": "c"}, "input: is a list, not a text"),
    ("instruct", "wrong_type", {"instruction": "a", "system": 1, "output": "c"}, "system: is a number, not a text"),
    ("instruct", "no_label", {"instruction": "a", "output": None}, "output: is missing"),
    ("instruct", "two_shapes", {"instruction": "a", "output": "b", "prompt": "p", "completion": "c"}, "fits instruction and prompt_completion at once"),
    ("instruct", "other_shape", {"prompt": "p", "completion": "c"}, "is of shape prompt_completion, the file is instruction"),
]  # fmt: skip


@pytest.mark.parametrize("kind, reason, record, says", BAD_ROWS)
def test_a_row_of_another_meaning_is_listed_not_coerced(
    tmp_path: Path, kind: str, reason: str, record: Any, says: str
) -> None:
    good = [{"instruction": f"say {i}", "output": str(i)} for i in range(3)]
    got = run_check(tmp_path, {"r.jsonl": jsonl([*good, record])}, kind=kind, bad_rows="leave_out")
    assert len(got.rows) == 3 and [(g.line, g.reason) for g in got.left_out] == [(4, reason)]
    assert says in got.left_out[0].detail


def test_half_of_preference_data_is_not_taken_for_answers(tmp_path: Path) -> None:
    records = [
        {"prompt": "a", "completion": "good", "label": True},
        {"prompt": "a", "completion": "bad", "label": False},
    ]
    with pytest.raises(DataError, match="is preference data: half of it shows what not to say"):
        run_check(tmp_path, {"r.jsonl": jsonl(records)}, kind="instruct")


def test_a_system_prompt_in_an_instruction_row_is_honoured(tmp_path: Path) -> None:
    record = {"instruction": "a", "output": "b", "system": "Be brief."}
    row = run_check(tmp_path, {"r.jsonl": jsonl([record])}, kind="instruct").rows[0]
    assert row.messages[0] == Message(role="system", content="Be brief.")


def refuse(tmp_path: Path, files: dict[str, bytes | str], **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        run_check(tmp_path, files, **changes)
    return str(caught.value)


def test_a_file_without_a_known_shape_says_what_it_has(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.csv": "question,reply\na,b\n"}, kind="instruct")
    says = "rows.csv:1: what is text and what is answer is unknown (seen: question, reply; shapes known: messages;"
    assert says in said
    assert "fix:   name the columns: --set task.text=... --set task.label=..." in said


def test_a_file_that_fits_two_shapes_is_refused(tmp_path: Path) -> None:
    said = refuse(tmp_path, {"rows.csv": "prompt,completion,text,label\na,b,c,d\n"}, kind="instruct")
    assert "the rows fit 2 shapes at once: prompt_completion and text_label" in said


def test_a_missing_column_names_the_nearest_one(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "rows.csv": "Desciption,chapter\na,b\n",
        "more.jsonl": jsonl([{"description": "a"}]),
    }
    said = refuse(tmp_path, files, text="description", label="chapter", group="category")
    assert (
        "rows.csv:1: there is no column 'description' (task.text); did you mean 'Desciption'? The file has: 'Desc"
        in said
    )
    assert "fix:   --set task.text=Desciption" in said
    assert "rows.csv:1: there is no column 'category' (task.group)" in said
    assert "more.jsonl:1: there is no column 'chapter' (task.label)" in said  # both files at once


def test_files_may_differ_in_format_and_shape(tmp_path: Path) -> None:
    got: Checked = run_check(
        tmp_path,
        {
            "a.tsv": table(two_classes(4)),
            "b.jsonl": jsonl([{"messages": [TURNS[0], {"role": "assistant", "content": "odd"}]}]),
        },
    )
    assert len(got.rows) == 5 and got.facts["shape"] == "text_label, messages"


def test_a_key_that_only_some_rows_have_is_a_fault_of_the_others(tmp_path: Path) -> None:
    records = [{"text": "a", "label": "x"}, {"text": "b"}, {"text": "c", "label": "y"}, {"text": "d", "label": 3.5}]
    said = refuse(tmp_path, {"r.jsonl": jsonl(records)}, text="text", label="label")
    assert "r.jsonl:2: label: is missing" in said and "r.jsonl:4: label: is a number, not a text" in said
