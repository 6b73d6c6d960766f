"""A data set leaves in other tools' shapes whole, or says what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.canonical import canonical_json, write_lines
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Example, Message, Row, ToolCall
from tunesmith.export.dataset_card import dataset_card
from tunesmith.export.formats.catalog import FORMATS, export_dataset

FACTS = {
    "kind": "classify", "counts": {"train": 2, "validation": 1, "test": 1}, "seal": "5ea1", "left_out": {"duplicate": 1},
    "class_counts": {"a|b": {"train": 1, "validation": 0, "test": 1}}, "split": {"by": "group", "deviation": 0.01},
}  # fmt: skip


def row(text: str, target: str, *messages: Message, **more: Any) -> Row:
    said = messages or (Message(role="user", content=text),)
    example = Example(messages=said, target=target)
    return Row(id=example.id, messages=said, target=target, file="d.csv", line=2, group=example.id, **more)


def dataset(folder: Path, *train: Row) -> Path:
    folder.mkdir()
    write_lines(folder / "train.jsonl", train or (row("one", "x"), row("two\n= 2", "y")))
    write_lines(folder / "validation.jsonl", [row("three", "x")])
    write_lines(folder / "test.jsonl", [row("four", "y")])
    write_lines(folder / "left_out.jsonl", [])
    (folder / "dataset.json").write_bytes(canonical_json(FACTS))
    check = {"files": [{"file": "d.csv", "rows": 5}], "left_out": {"duplicate": 1}}
    (folder / "check.json").write_bytes(canonical_json(check))
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_openai_lines_hold_every_turn(tmp_path: Path) -> None:
    call = Message(role="assistant", content="", tool_calls=(ToolCall(name="f", arguments="{}", id="c1"),), weight=0.0)
    result = Message(role="tool", content="42", tool_call_id="c1")
    talk = row("", "it is 42", Message(role="user", content="how many?"), call, result)
    export_dataset(dataset(tmp_path / "d", talk), tmp_path / "out", to="openai")
    (got,) = lines(tmp_path / "out" / "train.jsonl")
    assert [m["role"] for m in got["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert got["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert got["messages"][1]["weight"] == 0
    assert got["messages"][-1] == {"role": "assistant", "content": "it is 42"}


def test_a_preference_keeps_both_answers(tmp_path: Path) -> None:
    export_dataset(dataset(tmp_path / "d", row("q", "good", rejected="bad")), tmp_path / "out", to="openai")
    (got,) = lines(tmp_path / "out" / "train.jsonl")
    assert got["preferred_output"][0]["content"] == "good"
    assert got["non_preferred_output"][0]["content"] == "bad"


def test_what_does_not_fit_is_refused_with_its_place_or_listed(tmp_path: Path) -> None:
    two = row(
        "",
        "d",
        Message(role="user", content="a"),
        Message(role="assistant", content="b"),
        Message(role="user", content="c"),
    )
    data = dataset(tmp_path / "d", row("one", "x"), two)
    with pytest.raises(DataError) as e:
        export_dataset(data, tmp_path / "out", to="alpaca")
    assert "d.csv:2" in str(e.value) and "more than one turn" in str(e.value) and "--unfit leave_out" in str(e.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]
    done = export_dataset(data, tmp_path / "out", to="alpaca", unfit="leave_out")
    assert done.rows == {"train": 1, "validation": 1, "test": 1} and done.not_exported == {"more than one turn": 1}
    assert lines(tmp_path / "out" / "not_exported.jsonl")[0]["reason"] == "more than one turn"


@pytest.mark.parametrize("to", ["hf", "parquet"])
def test_parquet_splits_have_one_schema(tmp_path: Path, to: str) -> None:
    datasets = pytest.importorskip("datasets")
    data = dataset(tmp_path / "d", row("one", "x", fields={"country": "DE", "n": 3}, weight=2.0))
    export_dataset(data, tmp_path / "out", to=to, card="# card\n")
    files = {s: str(next((tmp_path / "out").rglob(f"{s}*.parquet"))) for s in ("train", "validation", "test")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    first = loaded["train"][0]
    assert (first["target"], first["weight"], first["field_country"], first["field_n"]) == ("x", 2.0, "DE", "3")
    assert first["messages"][0]["content"] == "one"
    assert loaded["test"].column_names == loaded["train"].column_names


@pytest.mark.parametrize("to", ["labelstudio", "argilla"])
def test_annotation_tools_get_json_lists_with_the_label(tmp_path: Path, to: str) -> None:
    export_dataset(dataset(tmp_path / "d"), tmp_path / "out", to=to)
    got = json.loads((tmp_path / "out" / "train.json").read_text(encoding="utf-8"))
    assert len(got) == 2 and '"x"' in json.dumps(got[0])


def test_what_a_format_has_no_place_for_is_said(tmp_path: Path) -> None:
    done = export_dataset(dataset(tmp_path / "d", row("one", "x", weight=2.0)), tmp_path / "out", to="sharegpt")
    assert "sharegpt has no place for weights of rows" in str(done)


def test_unknown_formats_and_full_folders_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d")
    with pytest.raises(InputError, match="one of openai"):
        export_dataset(data, tmp_path / "out", to="csv")
    with pytest.raises(InputError, match="is there already"):
        export_dataset(data, data, to="openai")


def test_every_format_is_written(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d")
    for to in FORMATS:
        assert export_dataset(data, tmp_path / to, to=to, card="x").rows["train"] == 2


def test_the_card_is_hugging_face_yaml_and_harmless(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    text = dataset_card(dataset(tmp_path / "d"), name='x"\n---\nlicense: evil')
    head = YAML(typ="safe").load(text.split("\n---\n")[0].removeprefix("---"))
    assert head["task_categories"] == ["text-classification"] and "license" not in head
    assert "1 duplicate" in text and "a\\|b" in text and "| d.csv | 5 |" in text
