"""Every record of a file is yielded or refused, with its physical line and a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.making import read_all
from tunesmith.core.errors import DataError
from tunesmith.data import jsonl, lines
from tunesmith.data.formats import json_list
from tunesmith.data.read import usable_files


def write(folder: Path, name: str, body: bytes) -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


# What must be refused or counted, never passed over: reliability figure 9.
REFUSED = [
    ("duplicate key", "x.jsonl", b'{"text":"a","label":"b","text":"c"}\n', "duplicate_key", "comes twice"),
    ("duplicate key, escaped", "x.jsonl", b'{"text":"a","te\\u0078t":"c"}\n', "duplicate_key", "comes twice"),
    ("duplicate key, nested", "x.jsonl", b'{"a":{"b":1,"b" : 2}}\n', "duplicate_key", "comes twice"),
    ("duplicate key, in a list", "x.jsonl", b'{"a":[[{"b":1,"b":2}]]}\n', "duplicate_key", "comes twice"),
    ("duplicate key, hidden by a text", "x.jsonl", b'{"a":"\\": ","a":1}\n', "duplicate_key", "comes twice"),
    ("NaN", "x.jsonl", b'{"text":NaN}\n', "not_finite", "NaN or Infinity is not JSON"),
    ("-Infinity", "x.jsonl", b'{"text":-Infinity}\n', "not_finite", "NaN or Infinity is not JSON"),
    ("1e999", "x.jsonl", b'{"text":1e999}\n', "not_finite", "no computer can hold"),
    ("a number of 5,000 digits", "x.jsonl", b'{"text":' + b"9" * 5000 + b"}\n", "not_finite", "no computer can hold"),
    ("lone surrogate", "x.jsonl", b'{"text":"a\\ud800b"}\n', "lone_surrogate", "half a surrogate pair"),
    ("lone surrogate before another escape", "x.jsonl", b'{"text":"\\ud800\\u0041"}\n', "lone_surrogate", "half a"),
    ("lone surrogate at the end", "x.jsonl", b'{"text":"\\ud800"}\n', "lone_surrogate", "half a surrogate pair"),
    ("low surrogate", "x.jsonl", b'{"text":"\\udc00"}\n', "lone_surrogate", "half a surrogate pair"),
    ("surrogate in UTF-8", "x.jsonl", b'{"text":"\xed\xa0\x80"}\n', "broken_utf8", "byte 10 of the file is not UTF-8"),
    ("NUL byte", "x.jsonl", b'{"text":"a\x00b"}\n', "nul", "a NUL byte at byte 11 of the line"),
    ("NUL escape", "x.jsonl", b'{"text":"a\\u0000b"}\n', "nul", "a NUL character"),
    ("NUL escape in a key", "x.jsonl", b'{"a\\u0000":1}\n', "nul", "a NUL character"),
    ("BOM in the middle", "x.jsonl", b'{"text":"a"}\n\xef\xbb\xbf{"text":"b"}\n', "bom", "files were joined"),
    ("list", "x.jsonl", b'["a"]\n', "not_an_object", "a list where an object is needed"),
    ("text", "x.jsonl", b'"a"\n', "not_an_object", "a str where an object is needed"),
    ("over several lines", "x.jsonl", b'{"text":\n', "not_json", "the object is not closed"),
    ("two objects", "x.jsonl", b'{"a":1}{"a":2}\n', "not_json", "trailing characters"),
    ("single quotes", "x.jsonl", b"{'a':1}\n", "not_json", "not JSON"),
    ("a million brackets", "x.jsonl", b"[" * 1_000_000 + b"\n", "not_json", "nested too deeply"),
    ("NUL byte", "x.csv", b"text,label\na\x00,b\n", "nul", "a NUL byte at byte 2 of the line"),
    ("broken UTF-8", "x.csv", b"text,label\ncaf\xe9,b\n", "broken_utf8", "byte 0xe9 at byte 15 of the file"),
    ("broken UTF-8 inside quotes", "x.csv", b'text,label\n"a\n\xff",b\n', "broken_utf8", "byte 0xff at byte 15 of"),
    ("BOM in the middle", "x.csv", b"text,label\na,b\n\xef\xbb\xbfc,d\n", "bom", "files were joined"),
    ("too many values", "x.csv", b"text,label\na,b,c\n", "ragged", "3 values, but the header has 2 columns"),
    ("too few values", "x.csv", b"text,label\na\n", "ragged", "1 values, but the header has 2 columns"),
    ("text after a quote", "x.csv", b'text,label\n"a"b,c\n', "quoting", "wrongly quoted"),
    ("quote left open", "x.csv", b'text,label\n"a,b\nc,d\n', "open_quote", "not properly closed until line 3"),
    ("lone CR", "x.csv", b"text,label\na\rb,c\n", "lone_cr", "a carriage return in the middle of the line"),
]  # fmt: skip


@pytest.mark.parametrize("name, file, body, reason, says", REFUSED, ids=[f"{r[1]} {r[0]}" for r in REFUSED])
def test_what_cannot_be_read_is_refused_with_its_reason(
    tmp_path: Path, name: str, file: str, body: bytes, reason: str, says: str
) -> None:
    _, bad, _ = read_all(write(tmp_path, file, body))
    assert [b.fault.reason for b in bad] == [reason]
    assert says in bad[0].fault.what and bad[0].fault.fix


def test_bom_crlf_and_blank_lines_are_counted_and_change_nothing(tmp_path: Path) -> None:
    plain = read_all(write(tmp_path, "a.csv", b"text,label\na,b\nc,d\n"))
    windows = read_all(write(tmp_path, "b.csv", b"\xef\xbb\xbftext,label\r\na,b\r\n\r\n  \r\nc,d\r\n"))
    assert [r.fields for r in windows[0]] == [r.fields for r in plain[0]] and not windows[1]
    assert (windows[2].bom, windows[2].crlf_lines, windows[2].blank_lines) == (True, 5, 2)
    assert [r.line for r in windows[0]] == [2, 5]
    good, bad, facts = read_all(write(tmp_path, "c.jsonl", b'\xef\xbb\xbf{"a":"b"}\r\n\r\n \n{"a":"c"}'))
    assert [(r.line, r.fields) for r in good] == [(1, {"a": "b"}), (4, {"a": "c"})] and not bad
    assert (facts.bom, facts.crlf_lines, facts.blank_lines, facts.lines) == (True, 2, 2, 4)


def test_a_text_full_of_quotes_and_colons_is_no_duplicate_key(tmp_path: Path) -> None:
    line = b'{"a":"he said \\"b\\": \\"b\\": {\\"a\\":1}","b":[{"a":"x\\\\u0000"},{"a":"\\": "}]}\n'
    good, bad, _ = read_all(write(tmp_path, "x.jsonl", line))
    assert not bad and good[0].fields["b"] == [{"a": "x\\u0000"}, {"a": '": '}]


def _text(value: Any, draw: Any) -> str:
    """JSON text of nested (key, value) lists, written in any way JSON allows."""
    space = draw(st.sampled_from(["", "", " ", "  ", "\t", " \r"]))
    if isinstance(value, str):
        body = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()):
            body = '"' + body[1:-1].replace('\\"', draw(st.sampled_from(['\\"', "\\u0022"]))) + '"'
        return body
    if isinstance(value, tuple):
        pairs = (f"{space}{_text(k, draw)}{space}:{space}{_text(v, draw)}" for k, v in value)
        return "{" + ",".join(pairs) + space + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(_text(v, draw) for v in value) + "]"
    return json.dumps(value)


_WORDS = st.sampled_from(["a", "b", "", ":", '"', '":', "\\", '\\"', '\\\\":', "é", " :", '{"a":1}', '"a":', "\\u0022"])
_PAIRS = st.recursive(
    st.one_of(_WORDS, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(_WORDS, inner), max_size=4).map(tuple)),
    max_leaves=12,
)


def _twice(value: Any) -> bool:
    """The oracle: whether any object of the tree has a key twice."""
    if isinstance(value, tuple):
        keys = [k for k, _ in value]
        return len(set(keys)) < len(keys) or any(_twice(v) for _, v in value)
    return isinstance(value, list) and any(map(_twice, value))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(), objects=st.lists(st.lists(st.tuples(_WORDS, _PAIRS), max_size=4).map(tuple), min_size=1, max_size=4)
)
def test_a_key_that_comes_twice_is_found_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, objects: list[Any]
) -> None:
    body = "{}\n" + "".join(_text(o, data.draw) + "\n" for o in objects)
    good, bad, _ = read_all(write(tmp_path_factory.getbasetemp(), "twice.jsonl", body.encode()))
    assert [r.line for r in good] == [1, *(i + 2 for i, o in enumerate(objects) if not _twice(o))]
    assert all(b.fault.reason == "duplicate_key" for b in bad)


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "wrapped.json"])
def test_no_size_of_a_block_changes_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, name: str
) -> None:
    lines_of = [
        '{"a":"b"}',
        '{"a":"é😀\\n"}',
        '{"a":1,"a":2}',
        '{"a":"\\u0000"}',
        '{"c":[1,{"d":"x"}]}',
        '{"a":NaN}',
        "[1]",
    ]
    body = "\r\n".join(lines_of) if name == "x.jsonl" else "[" + ",\n".join(lines_of) + "]"
    body = '{"meta": {"a": [1]},\n"data": ' + body + ', "more": 1}' if name == "wrapped.json" else body
    path = write(tmp_path, name, b"\xef\xbb\xbf" + body.encode())
    want = read_all(path)
    monkeypatch.setattr(jsonl, "BLOCK", size)
    monkeypatch.setattr(json_list, "CHUNK", size)
    assert read_all(path) == want
    assert [b.fault.reason for b in want[1]] == ["duplicate_key", "nul", "not_finite", "not_an_object"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\x0cc\x85d\x1ee"
    good, _, _ = read_all(write(tmp_path, "x.csv", f"text,label\n{text},l\nz,l\n".encode()))
    assert [(r.line, r.fields["text"]) for r in good] == [(2, text), (3, "z")]


def test_a_quoted_newline_belongs_to_the_value_and_lines_are_physical(tmp_path: Path) -> None:
    good, bad, facts = read_all(write(tmp_path, "x.csv", b'text,label\n"a\n""b"",\n\nc",x\nd,y\n'))
    assert not bad and [(r.line, r.fields["text"]) for r in good] == [(2, 'a\n"b",\n\nc'), (6, "d")]
    assert facts.longest_record == (4, 2)


def test_a_refused_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    good, bad, _ = read_all(write(tmp_path, "x.csv", b'text,label\n"a"b,c\nd,e\n\xff,f\ng,h\n'))
    assert [r.line for r in good] == [3, 5] and [b.line for b in bad] == [2, 4]


def test_an_open_quote_loses_the_place_whatever_the_policy(tmp_path: Path) -> None:
    _, bad, _ = read_all(write(tmp_path, "x.csv", b'text,label\n"a,b\nc,d\ne,"f"\n'))
    assert bad[0].loses_place


def test_an_endless_line_is_refused_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 1000)
    good, bad, facts = read_all(write(tmp_path, "x.jsonl", b'{"a":"' + b"x" * 5000 + b'"}\n{"a":"b"}\n'))
    assert [b.fault.reason for b in bad] == ["line_too_long"] and [r.line for r in good] == [2]
    assert facts.read_bytes == 5009 + 10


@pytest.mark.parametrize("mark, name", [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_another_delimiter_in_a_csv_is_found_and_explained(tmp_path: Path, mark: str, name: str) -> None:
    body = f'text{mark}label\n"a, b{mark} c"{mark}d\n'.encode()
    good, bad, facts = read_all(write(tmp_path, "x.csv", body))
    assert not bad and good[0].fields == {"text": f"a, b{mark} c", "label": "d"}
    assert f"read with {name} as delimiter" in facts.notes[0]


def test_a_comma_in_the_header_settles_the_delimiter(tmp_path: Path) -> None:
    good, _, facts = read_all(write(tmp_path, "x.csv", b"text;more,label\na;b,c\n"))
    assert good[0].fields == {"text;more": "a;b", "label": "c"} and not facts.notes
    good, _, _ = read_all(write(tmp_path, "y.csv", b'"text, long";label\na;b\n'))
    assert good[0].fields == {"text, long": "a", "label": "b"}  # that comma is inside quotes


HEADERS = [
    ("twice", b"text,label,text\na,b,c\n", r"x\.csv:1: the header has 1 column name\(s\) more than once: 'text'"),
    ("UTF-16", "text,label\na,b\n".encode("utf-16"), "x.csv:1: the file is in UTF-16 or UTF-32, not UTF-8"),
    ("broken", b"t\xffxt,label\na,b\n", "x.csv:1: the header cannot be read: byte 0xff at byte 2"),
    ("old Mac line breaks", b"text,label\ra,b\rc,d\r", "save the file with Unix or Windows line breaks"),
    ("blank", b"\n\n", "x.csv: the file is empty"),
]


@pytest.mark.parametrize("name, body, says", HEADERS, ids=[h[0] for h in HEADERS])
def test_a_header_that_cannot_be_used_is_refused(tmp_path: Path, name: str, body: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_all(write(tmp_path, "x.csv", body))


def test_everything_wrong_with_the_files_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", "rows.csv", b"text,label\na,b\n")
    write(tmp_path, "empty.csv", b"")
    write(tmp_path, "scan.pdf", b"%PDF-1.7")
    write(tmp_path, "all.zip", b"PK\x03\x04")
    write(tmp_path, "fine.csv", b"text,label\na,b\n")
    (tmp_path / "unreadable.csv").symlink_to("/proc/self/mem")  # its first byte cannot be read
    names = [
        "folder",
        "empty.csv",
        "scan.pdf",
        "all.zip",
        "fine.csv",
        "unreadable.csv",
        "lost.csv",
        "folder/fine.csv",
    ]
    with pytest.raises(DataError) as caught:
        usable_files(tmp_path / name for name in names)
    said = str(caught.value)
    for says in (
        "folder: is a folder, not a file\n  fix:   name a file in it: rows.csv",
        "empty.csv: the file is empty",
        "scan.pdf: a document, not rows\n  fix:   documents: {files: [...]} reads PDF, DOCX and HTML",
        "all.zip: its format is not known: a ZIP archive",
        "unreadable.csv: cannot be read: Input/output error",
        "lost.csv: there is no such file",
        "fine.csv: 2 files have this name",
    ):
        assert says in said
    assert "Traceback" not in said


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no file is named"):
        usable_files([])
