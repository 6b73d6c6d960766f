"""A file without what is sought: no more goes than must, nothing that must stays, and lines keep their numbers."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.canonical import canonical_json
from tunesmith.core.errors import InputError
from tunesmith.core.tombstones import forgotten_in, is_forgotten, tombstone
from tunesmith.ledger import opaque
from tunesmith.ledger.records_of import FORMS, Form, form_of, pieces, strings_of, windows
from tunesmith.ledger.redact import Standing, redact
from tunesmith.ledger.sought import GONE, Phrase, Sought, folded, phrase

ZOE = Sought(phrases=(phrase("Zoë Quick"),), salt="s")
OWN = Standing(keeps_lines=True)


def cut(form: Form, data: bytes, sought: Sought = ZOE, standing: Standing = OWN) -> tuple[bytes, int]:
    out = io.BytesIO()
    found = redact(form, io.BytesIO(data), out, sought, standing)
    assert redact(form, io.BytesIO(data), None, sought, standing).count == found.count  # looking finds the same
    return (out.getvalue() if found.count else data), found.count


# What is one text


@pytest.mark.parametrize(
    "text",
    [
        "zoë quick", "ZOË  QUICK", "Zoe\u0308 Quick", "by Zoë\nQuick.", "\uff3aoë\u00a0Quick's", "Zo\u00adë Qu\u200bick",
        "(Zoë Quick)", "x@Zoë Quick@x", "«Zoë Quick»", "王Zoë Quick王",
    ],
)  # fmt: skip
def test_the_same_name_is_found_however_it_is_written(text: str) -> None:
    assert ZOE.in_text(text)


@pytest.mark.parametrize("text", ["Zoë Quickly", "AZoë Quick", "Zoe Quick", "Zoë, Quick", "ZoëQuick", "Zoë Quick2"])
def test_another_name_is_not_found(text: str) -> None:
    assert not ZOE.in_text(text)


def test_an_asterisk_lets_the_word_go_on() -> None:
    assert phrase("Schmidt*").is_in(folded("die Schmidts kamen"))
    assert not phrase("Schmidt*").is_in(folded("der Goldschmidt kam"))
    assert phrase("*schmidt").is_in(folded("der Goldschmidt kam"))


def test_scripts_without_spaces_have_no_word_ends() -> None:
    assert phrase("王小明").is_in(folded("我叫王小明，你好"))


@pytest.mark.parametrize("said", ["", "ab", "**", "  ", "...", "王"])
def test_a_text_that_is_everywhere_is_refused(said: str) -> None:
    with pytest.raises(InputError, match="at least"):
        phrase(said)


def test_a_name_in_two_columns_is_found() -> None:
    assert cut("table", b"first,last,n\nZo\xc3\xab,Quick,1\nZo\xc3\xab,Other,2\n")[0].split(b"\n")[1:3] == [
        b"",
        "Zoë,Other,2".encode(),
    ]
    raw = b'{"first": "Zo\\u00eb", "last": "Quick"}\n{"first": "A", "last": "B"}\n'
    assert cut("jsonl", raw)[0] == b'\n{"first": "A", "last": "B"}\n'


# Form by form


def test_a_quoted_record_goes_with_all_its_lines() -> None:
    data = 'a,b\r\n1,"x\r\nis ""Zoë Quick"" and\r\nmore"\r\n2,5" pipe\r\n3,"y"\r\n'.encode()
    assert cut("table", data)[0] == b'a,b\r\n\r\n\r\n\r\n2,5" pipe\r\n3,"y"\r\n'


def test_a_quote_that_never_closes_takes_no_other_record_with_it() -> None:
    data = 'a\n"x\nby Zoë Quick\ny\n'.encode()
    assert cut("table", data)[0] == b'a\n"x\n\ny\n'


def test_a_message_of_a_mailbox_goes_alone_however_it_is_encoded() -> None:
    import base64

    body = base64.encodebytes("Grüße, Zoë Quick".encode())
    one = (
        b"From a@b Sat Jan  3 01:05:34 1998\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
        + body
    )
    two = b"\nFrom c@d Sat Jan  3 01:05:35 1998\nSubject: x\n\nFrom the start, all is well.\n"
    left, count = cut("mbox", one + two)
    assert count == 1
    assert left == b"\n" * (one.count(b"\n") + 1) + two[1:]


def test_html_is_read_as_a_browser_shows_it() -> None:
    data = "<p>a</p>\n<p>Zo&euml; <i>Quick</i></p>\n<p>Zoë</p>\n<p>Quick</p>\n<p>b</p>".encode()
    left, _ = cut("html", data)
    assert left == b"<p>a</p>\n\n\n\n<p>b</p>"  # in one line, and across two


def test_json_of_ours_keeps_its_shape() -> None:
    value = {"a": ["by Zoë Quick", 1.5, True], "Zoë Quick": {"n": None}, "b": "stays", "Zoë Quick!": 2}
    compact, count = cut("json", canonical_json(value) + b"\n", standing=Standing())
    assert (
        json.loads(compact) == {"a": [GONE, 1.5, True], GONE: {"n": None}, "b": "stays", f"{GONE} 2": 2} and count == 3
    )
    pretty, _ = cut("json", json.dumps(value, indent=2).encode(), standing=Standing())
    assert json.loads(pretty) == json.loads(compact) and pretty.count(b"\n") > 5


def test_json_of_the_user_is_changed_only_where_it_must() -> None:
    text = '{"a" : "Zo\\u00eb Quick" , "a":"twice",\n "n": 1.50, "big": 123456789012345678901234567890}\n'
    assert cut("json", text.encode())[0] == text.replace("Zo\\u00eb Quick", GONE).encode()


def test_a_record_of_a_json_list_at_a_place_is_emptied() -> None:
    text = '[\n {"t": "a",\n  "n": 1},\n {"t": "b", "n": 2}\n]\n'
    left, _ = cut("json", text.encode(), standing=Standing(keeps_lines=True, lines=frozenset({2})))
    assert json.loads(left) == [{"t": GONE, "n": None}, {"t": "b", "n": 2}]
    assert left.count(b"\n") == text.count("\n")


def test_broken_lines_are_searched_as_text() -> None:
    data = '{"text": "Zoë Quick\n{"text": "fine\n{"id": "x"}\n'.encode()
    assert cut("jsonl", data, standing=Standing())[0] == b'{"text": "fine\n{"id": "x"}\n'
    assert cut("jsonl", data)[0] == b'\n{"text": "fine\n{"id": "x"}\n'


def test_in_files_about_a_model_only_the_words_go() -> None:
    data = canonical_json({"id": "x", "text": "by Zoë Quick", "p": [0.5]}) + b"\n"
    assert cut("jsonl", data, standing=Standing(rows=False))[0] == b'{"id":"x","p":[0.5],"text":"[forgotten]"}\n'


def test_a_row_is_known_by_its_id_and_by_its_place() -> None:
    sought = Sought(ids={"a" * 64}, places={("f", 3)}, salt="s")
    standing = Standing(referred=frozenset({3}), refers=lambda file, line: (file, line) == ("x.csv", 3))
    rows = [
        {"id": "a" * 64}, {"id": "b" * 64, "file": "x.csv", "line": 3}, {"id": "c" * 64, "file": "y.csv", "line": 3},
        {"id": "d" * 64, "group": "a" * 64}, {"id": "e" * 64, "file": "x.csv", "line": 33},
    ]  # fmt: skip
    left, count = cut("jsonl", b"".join(canonical_json(r) + b"\n" for r in rows), sought, standing)
    kept = [json.loads(line) for line in left.splitlines()]
    assert [r["id"][0] for r in kept] == ["c", "d", "e"] and count == 3
    assert kept[1]["group"] == "forgotten-" + tombstone("a" * 64, "s").split(":")[1][:16]


def test_a_name_across_the_border_of_two_windows_is_found() -> None:
    lines = [b"x" * 50 + b"\n"] * 40
    lines[19:21] = ["ends with Zoë\n".encode(), b"Quick begins\n"]
    for held in (60, 100, 200, 1000):
        seen: set[int] = set()
        for first, part, _ in windows(lines, bytes_held=held):
            text = b"".join(part)
            if ZOE.in_text(text.decode()):
                seen |= set(range(first, first + len(part)))
        assert {20, 21} <= seen


# For any content


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=30), max_size=12),
    st.data(),
)
def test_text_lines_that_hold_it_are_blank_and_no_other_changes(texts: list[str], data: Any) -> None:
    hits = data.draw(st.sets(st.integers(0, max(len(texts) - 1, 0)), max_size=3)) if texts else set()
    lines = [f"{t} Zoë Quick {t}" if n in hits else t for n, t in enumerate(texts)]
    raw = "".join(f"{line}\n" for line in lines).encode()
    left, _ = cut("text", raw)
    now = left.split(b"\n")
    assert len(now) == len(lines) + 1
    for n, line in enumerate(lines):
        assert now[n] == b"" if n in hits else now[n] in (line.encode(), b"")
        if n not in hits and line and "zo" not in folded(line):
            assert now[n] == line.encode() or not line.encode().rstrip(b"\r\n")
    assert not ZOE.in_text(left.decode())
    assert cut("text", left) == (left, 0)  # again there is nothing to do


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.sampled_from(["Zoë Quick", "to ZOË\tQUICK.", "Zoë", "Quick"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=4), max_size=6), st.booleans())
def test_json_lines_without_it_stay_byte_for_byte(records: list[dict[str, Any]], ascii_only: bool) -> None:
    raw = [json.dumps(r, ensure_ascii=ascii_only).encode("utf-8", "replace") for r in records]
    left, count = cut("jsonl", b"".join(r + b"\n" for r in raw), standing=Standing())
    kept = left.splitlines()
    assert len(kept) + count == len(raw) if records else not kept
    assert [line for line in raw if line in kept] == kept
    assert not any(ZOE.in_text(s) for line in kept for s in strings_of("jsonl", line))


@given(
    st.lists(st.lists(st.text(alphabet='ab,"\n ëZ', max_size=6), min_size=2, max_size=2), min_size=1, max_size=8),
    st.data(),
)
def test_records_of_a_table_are_those_that_csv_reads(rows: list[list[str]], data: Any) -> None:
    import csv

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([["a", "b"], *rows])
    raw = out.getvalue().encode()
    found = list(pieces("table", io.BytesIO(raw)))
    assert b"".join(p.raw for p in found) == raw
    assert [strings_of("table", p.raw) for p in found] == list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    at = data.draw(st.integers(0, len(rows) - 1))
    line = found[at + 1].line
    left, _ = cut("table", raw, Sought(salt="s"), Standing(keeps_lines=True, lines=frozenset({line})))
    assert left.count(b"\n") == raw.count(b"\n")
    assert b"".join(p.raw for n, p in enumerate(found) if n != at + 1).replace(b"\n", b"") == left.replace(b"\n", b"")


@given(st.text(max_size=40), st.text(min_size=3, max_size=12))
def test_the_quick_look_never_overlooks(text: str, name: str) -> None:
    try:
        said = phrase(name)
    except InputError:
        return
    sought = Sought(phrases=(said,), salt="s")
    record = {"t": f"{text} {name.strip().strip('*')} {text}", "id": "x"}
    for ascii_only in (False, True):
        raw = json.dumps(record, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        if sought.in_text(str(record["t"])):
            assert sought.filter(frozenset()).may_hold(raw)


# Files that cannot be edited


def sqlite_file(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute('CREATE TABLE "a""b" (first, last)')
    db.execute('INSERT INTO "a""b" VALUES (?, ?)', ("Zoë", "Quick"))
    db.commit()
    db.close()


def parquet_file(path: Path) -> None:
    table = pytest.importorskip("pyarrow").table({"t": ["fine", "by Zoë Quick"], "n": [1, 2]})
    pytest.importorskip("pyarrow.parquet").write_table(table, path)


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", "<t>by Zo&#235; <b>Quick</b></t>")


def gzip_file(path: Path) -> None:
    path.write_bytes(gzip.compress(json.dumps({"t": "Zoë Quick"}).encode()))


def zstd_file(path: Path) -> None:
    path.write_bytes(pytest.importorskip("zstandard").compress("a\nby Zoë Quick\n".encode()))


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.db", sqlite_file), ("a.parquet", parquet_file), ("a.xlsx", zip_file), ("a.jsonl.gz", gzip_file), ("a.csv.zst", zstd_file)],
)  # fmt: skip
def test_files_that_cannot_be_edited_are_looked_into(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / name
    write(path)
    with open(path, "rb") as f:
        assert form_of(name, f) == "opaque"
    assert opaque.holds(path, name, ZOE)
    assert not opaque.holds(path, name, Sought(phrases=(phrase("Nobody Here"),)))


def test_a_broken_one_is_said_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(opaque.Unread, match="cannot be read"):
        opaque.holds(path, "a.gz", ZOE)


def test_forms_are_told_by_content_where_the_name_says_nothing() -> None:
    assert form_of("a", io.BytesIO("grüß".encode())) == "text"
    assert form_of("a", io.BytesIO(b"\0\1\2")) == "opaque"
    assert form_of("a.txt", io.BytesIO(b"From a@b Sat Jan  3 01:05:34 1998\n")) == "mbox"
    assert set(FORMS.values()) <= {"jsonl", "json", "table", "mbox", "mail", "html"}


def test_tombstones_know_a_row_and_nothing_else() -> None:
    stones = (tombstone("a" * 64, "one"), tombstone("b" * 64, "two"))
    known = forgotten_in(stones)
    assert known("a" * 64) and known("b" * 64) and not known("c" * 64)
    assert is_forgotten("a" * 64, stones) and not is_forgotten("a" * 64, ())
    assert tombstone("a" * 64, "one") != tombstone("a" * 64, "two")
    assert Phrase("x").is_in("x")
