"""Every format gives the same records as the plainest one, each with its line or number; nothing unpacks without end."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.data.making import read_all, run_check
from tunesmith.core.errors import DataError
from tunesmith.data.formats import packed
from tunesmith.data.formats.known import Unread, identify
from tunesmith.data.read import source_files

pa = pytest.importorskip("pyarrow")
import pyarrow.feather  # noqa: E402
import pyarrow.ipc  # noqa: E402
import pyarrow.parquet  # noqa: E402

ROWS = [{"text": f"text number {i}, “é”", "label": "odd" if i % 2 else "even"} for i in range(7)]


def write(folder: Path, name: str, body: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def as_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=2), encoding="utf-8")


def as_wrapped_json(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "data": ROWS, "license": {"a": [1]}}, indent=1), encoding="utf-8")


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in ROWS), encoding="utf-8")


def as_jsonl_gz(path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()))


def as_csv_zst(path: Path) -> None:
    import zstandard

    body = "text,label\n" + "".join(f'"{r["text"]}",{r["label"]}\n' for r in ROWS)
    path.write_bytes(zstandard.compress(body[:50].encode()) + zstandard.compress(body[50:].encode()))  # two frames


def as_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=3)


def as_parquet_gz(path: Path) -> None:
    as_parquet(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


def as_feather(path: Path) -> None:
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), path, chunksize=2)


def as_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as out:
        out.write_table(table, max_chunksize=2)


def as_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute('CREATE TABLE "my rows" (text TEXT, label TEXT)')
        db.executemany('INSERT INTO "my rows" VALUES (:text, :label)', ROWS)
    db.close()


WRITERS: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "rows.json": (as_json, [2 + 4 * i for i in range(7)]),
    "wrapped.json": (as_wrapped_json, [4 + 4 * i for i in range(7)]),
    "rows.jsonl": (as_jsonl, [1, 2, 3, 4, 5, 6, 7]),
    "rows.jsonl.gz": (as_jsonl_gz, [1, 2, 3, 4, 5, 6, 7]),
    "rows.csv.zst": (as_csv_zst, [2, 3, 4, 5, 6, 7, 8]),
    "rows.parquet": (as_parquet, [1, 2, 3, 4, 5, 6, 7]),
    "rows.parquet.gz": (as_parquet_gz, [1, 2, 3, 4, 5, 6, 7]),
    "rows.feather": (as_feather, [1, 2, 3, 4, 5, 6, 7]),
    "rows.arrow": (as_stream, [1, 2, 3, 4, 5, 6, 7]),
    "rows.sqlite": (as_sqlite, [1, 2, 3, 4, 5, 6, 7]),
    "rows.db": (as_sqlite, [1, 2, 3, 4, 5, 6, 7]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records_with_their_places(tmp_path: Path, name: str) -> None:
    writer, lines = WRITERS[name]
    writer(tmp_path / name)
    good, bad, _ = read_all(tmp_path / name)
    assert not bad and [r.fields for r in good] == ROWS
    assert [r.line for r in good] == lines


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_can_be_checked(tmp_path: Path, name: str) -> None:
    writer, lines = WRITERS[name]
    (tmp_path / "made").mkdir()
    writer(tmp_path / "made" / name)
    got = run_check(tmp_path, {f"exports/{name}": (tmp_path / "made" / name).read_bytes()})
    assert [(r.file, r.line, r.target) for r in got.rows] == [
        (f"exports/{name}", n, r["label"]) for n, r in zip(lines, ROWS, strict=True)
    ]


# JSON


@pytest.mark.parametrize(
    "body, lines",
    [
        (b'{"text": "a", "label": "x"}', [1]),
        (b'\xef\xbb\xbf  [\n\n{"text": "a"} , {"text": "b"}\n]\n', [3, 3]),
        (b'{"text": "a"}\n{"text":\n"b"}\n\n{"text": "c"}', [1, 2, 5]),
        (b'[{"text": "a"}]\n[{"text": "b"}]', [1, 2]),
        (b'{"data": "only a text", "text": "a"}', [1]),
        (b'{"data": [{"text": "a"}]}', [1]),
        (b"[]", []),
        (b'[{"n": 123456789012345678901234567890, "x": 1.5e300}]', [1]),
    ],
)
def test_json_is_a_list_an_object_or_objects_one_after_another(tmp_path: Path, body: bytes, lines: list[int]) -> None:
    good, bad, _ = read_all(write(tmp_path, "x.json", body))
    assert not bad and [r.line for r in good] == lines


def test_what_a_json_list_must_not_hold_is_refused_where_it_is(tmp_path: Path) -> None:
    body = b'[{"a":1},\n {"a":1,"a":2},\n "text",\n {"a":NaN},\n {"a":"\xff"},\n {"a":"\\ud800"},\n {"a":"b\\u0000"},\n {"a":2}]'
    good, bad, _ = read_all(write(tmp_path, "x.json", body))
    assert [r.line for r in good] == [1, 8]
    assert [(b.line, b.fault.reason) for b in bad] == [
        (2, "duplicate_key"), (3, "not_an_object"), (4, "not_finite"), (5, "broken_utf8"), (6, "lone_surrogate"), (7, "nul"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rest", [b'{"a": 1', b'{"a" 1}]', b"]", b'{"a":1} {"a":2}]', b"[" * 100_000, b"nul", b'{"a":' + b"9" * 5000 + b"}]"]
)
def test_where_json_breaks_off_the_place_is_lost_and_said(tmp_path: Path, rest: bytes) -> None:
    good, bad, _ = read_all(write(tmp_path, "x.json", b'[{"a": 0},\n' + rest))
    assert good[0].fields == {"a": 0} and len(bad) == 1 and bad[0].line == 2
    assert bad[0].loses_place or bad[0].fault.reason == "not_finite"


def test_a_long_json_list_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"text": "ü" * 500, "n": i} for i in range(3_000)]
    good, bad, _ = read_all(write(tmp_path, "x.json", json.dumps(rows, ensure_ascii=False, indent=0).encode()))
    assert not bad and [r.fields for r in good] == rows and good[-1].line == 2 + 4 * 2_999


@pytest.mark.parametrize("body, says", [(b"12", "neither a list nor an object"), ("[1]".encode("utf-16"), "UTF-16")])
def test_json_that_is_neither_is_refused(tmp_path: Path, body: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_all(write(tmp_path, "x.json", body))


# Typed columns


def test_typed_values_become_what_a_json_line_would_have(tmp_path: Path) -> None:
    when = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
    table = pa.table(
        {
            "when": pa.array([when], pa.timestamp("us", "UTC")),
            "fine": pa.array([1], pa.timestamp("ns")),
            "day": pa.array([dt.date(2024, 2, 29)]),
            "price": pa.array([Decimal("1.10")]),
            "turns": pa.array([[{"role": "user", "content": "a"}]]),
            "word": pa.array(["x"]).dictionary_encode(),
            "raw": pa.array([b"\xff"]),
            "n": pa.array([3], pa.int8()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    (record,), _, _ = read_all(tmp_path / "x.parquet")
    assert record.fields == {
        "when": "2024-02-29T12:30:00+00:00", "fine": "1970-01-01 00:00:00.000000001", "day": "2024-02-29",
        "price": "1.10", "turns": [{"role": "user", "content": "a"}], "word": "x", "raw": b"\xff", "n": 3,
    }  # fmt: skip


def test_a_datasets_folder_is_read_with_splits_and_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    made = {
        name: datasets.Dataset.from_dict({"text": [f"{name} {i}" for i in range(4)], "label": [0, 1, 0, 1]}, features=features)
        for name in ("train", "test")
    }  # fmt: skip
    datasets.DatasetDict(made).save_to_disk(tmp_path / "source" / "saved", num_shards={"train": 2, "test": 1})
    (tmp_path / "source" / "hub" / "data").mkdir(parents=True)
    made["test"].to_parquet(tmp_path / "source" / "hub" / "data" / "dev-00000-of-00001.parquet")
    (tmp_path / "source" / "hub" / ".gitattributes").write_text("*.parquet lfs")
    from tests.data.making import Checked, check_spec
    from tunesmith.core.stage import Workspace
    from tunesmith.data.check import check
    from tunesmith.data.stages import CheckInputs

    spec = check_spec(keep=("split",), duplicates="keep")
    got = Checked(check(spec, CheckInputs(source=tmp_path / "source"), Workspace(root=tmp_path / "work")).examples)
    assert sorted({(r.fields["split"], r.target) for r in got.rows}) == [
        ("dev", "bad"), ("dev", "good"), ("test", "bad"), ("test", "good"), ("train", "bad"), ("train", "good"),
    ]  # fmt: skip
    assert len(got.rows) == 12 and "column 'label' is read as the class names" in got.findings
    unread = {u["file"]: u["reason"] for u in got.facts["not_read"]}
    assert unread["saved/dataset_dict.json"] == unread["saved/train/state.json"] == "sidecar"
    assert unread["hub/.gitattributes"] == "hidden"
    shard = next((tmp_path / "source" / "saved" / "train").glob("data-00001*"))
    shard.unlink()
    with pytest.raises(DataError, match=r"1 of the 2 files of this data set are missing: data-00001"):
        check(spec, CheckInputs(source=tmp_path / "source"), Workspace(root=tmp_path / "again"))


@pytest.mark.parametrize(
    "name", ["x.parquet", "x.arrow", "x.feather", "x.sqlite", "x.xlsx", "x.jsonl.gz", "x.json.zst"]
)
def test_a_damaged_file_is_a_message(tmp_path: Path, name: str) -> None:
    for body in (
        b"PAR1 no such thing PAR1",
        b"ARROW1\0\0nonsense",
        b"\x1f\x8b\x08\0nonsense",
        b"\x28\xb5\x2f\xfd!!",
        b"x",
    ):
        with pytest.raises(DataError) as caught:
            read_all(write(tmp_path, name, body))
        assert caught.value.problems[0].where.startswith(name) and caught.value.problems[0].fix


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.feather", "rows.csv.zst", "rows.sqlite"])
def test_a_file_cut_short_is_a_message_and_never_fewer_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name][0](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    first_frame = whole.rindex(b"\x28\xb5\x2f\xfd") if name.endswith(".zst") else 0
    for n in {*range(1, len(whole), max(1, len(whole) // 23)), len(whole) - 1} - {first_frame}:
        (tmp_path / name).write_bytes(whole[:n])
        with pytest.raises(DataError, match=name):
            read_all(tmp_path / name)
            pytest.fail(f"{n} of {len(whole)} bytes were read as if they were all")


# Spreadsheets


def sheet(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        page = book.create_sheet(name)
        for row in rows:
            page.append(row)
    book.save(path)
    return path


def test_a_sheet_gives_its_rows_with_their_numbers(tmp_path: Path) -> None:
    rows = [[], ["text", "label", "when"], ["a", 1, dt.datetime(2024, 5, 1)], [], ["b", 2.5, None], ["c", 3, None, "x"]]
    path = sheet(tmp_path / "x.xlsx", {"Notes": [], "Data": rows})
    good, bad, facts = read_all(path)
    assert [(r.line, r.fields) for r in good] == [
        (3, {"text": "a", "label": 1, "when": "2024-05-01"}),
        (5, {"text": "b", "label": 2.5, "when": None}),
    ]
    assert [(b.line, b.fault.reason) for b in bad] == [(6, "ragged")]
    assert facts.notes == ["read the sheet 'Data', the only one with data"]


def test_which_of_several_sheets_must_be_said(tmp_path: Path) -> None:
    table = [["text", "label"], ["a", "x"], ["b", "y"]]
    body = sheet(tmp_path / "x.xlsx", {"One": table, "Two": table[:2]}).read_bytes()
    with pytest.raises(
        DataError, match=r"x\.xlsx: has 2 sheets with data: 'One', 'Two'\n  fix:   say which: --set data.sheet=One"
    ):
        run_check(tmp_path / "1", {"x.xlsx": body})
    assert len(run_check(tmp_path / "2", {"x.xlsx": body}, sheet="One").rows) == 2
    with pytest.raises(DataError, match="has no sheet 'Three' with data; it has 'One', 'Two'"):
        run_check(tmp_path / "3", {"x.xlsx": body}, sheet="Three")


@pytest.mark.parametrize("header, says", [(["a", "a"], "more than once: 'a'"), (["a", None, "b"], "without a name: 2")])
def test_a_sheet_whose_header_names_no_columns_is_refused(tmp_path: Path, header: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_all(sheet(tmp_path / "x.xlsx", {"S": [header, ["1", "2", "3"]]}))


# SQLite


def test_the_tables_of_a_database_are_named_where_there_are_several(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("CREATE TABLE users (a)")
        db.execute("CREATE TABLE tickets (a)")
    db.close()
    with pytest.raises(DataError, match=r"x\.db: has 2 tables \(tickets, users\)") as caught:
        read_all(tmp_path / "x.db")
    assert 'fix:   data.query: SELECT * FROM "tickets" ORDER BY rowid' in str(caught.value)


def test_a_table_without_rowid_is_read_in_the_order_of_its_columns(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("CREATE TABLE t (text TEXT PRIMARY KEY, label TEXT) WITHOUT ROWID")
        db.executemany("INSERT INTO t VALUES (?, ?)", [("b", "1"), ("a", "2")])
    db.close()
    assert [r.fields["text"] for r in read_all(tmp_path / "x.db")[0]] == ["a", "b"]


def test_a_broken_text_in_a_database_is_one_bad_row(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("CREATE TABLE t (text TEXT, label TEXT)")
        db.execute("INSERT INTO t VALUES ('é', 'x'), (CAST(x'636166e9' AS TEXT), 'y'), ('b', 'z')")
    db.close()
    good, bad, _ = read_all(tmp_path / "x.db")
    assert [r.line for r in good] == [1, 3] and good[0].fields["text"] == "é"
    assert [(b.line, b.fault.reason, b.fault.field) for b in bad] == [(2, "broken_utf8", "text")]


def test_changes_that_are_not_in_the_database_yet_are_not_passed_over(tmp_path: Path) -> None:
    as_sqlite(tmp_path / "x.db")
    files: dict[str, bytes | str] = {
        "x.db": (tmp_path / "x.db").read_bytes(),
        "x.db-wal": b"changes",
        "x.db-shm": b"index",
    }
    with pytest.raises(DataError, match=r"x\.db-wal: holds changes that are not in x\.db yet") as caught:
        run_check(tmp_path / "run", files)
    assert len(caught.value.problems) == 1


# Packed


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zstandard

    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    body = b'{"text":"' + b"a" * 5_000_000 + b'"}\n'
    for name, pack in (("x.jsonl.gz", gzip.compress), ("x.jsonl.zst", zstandard.compress)):
        with pytest.raises(DataError, match="at most 250 times as many, and 64 GiB, are unpacked"):
            read_all(write(tmp_path, name, pack(body)))
    monkeypatch.setattr(packed, "MOST_RATIO", 10**9)
    monkeypatch.setattr(packed, "MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match="unpack to more than"):
        read_all(tmp_path / "x.jsonl.gz")


def test_a_spreadsheet_that_is_a_bomb_is_refused_unopened(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (65 << 20))
    with pytest.raises(DataError, match="unpacks to 68,157,440 bytes"):
        read_all(tmp_path / "x.xlsx")


# What a file is, and that none is passed over


def test_every_file_of_a_folder_is_read_or_listed_with_the_reason(tmp_path: Path) -> None:
    bodies: dict[str, bytes | str] = {
        "rows.csv": "text,label\na,x\nb,y\n",
        "deep/er/more.jsonl": '{"text":"c","label":"x"}\n',
        "deep/lines": '{"text":"d","label":"y"}\n',
        "deep/list": '[{"text":"e","label":"y"}]',
        "scan.pdf": b"%PDF-1.4\0",
        "picture": b"\x89PNG\r\n\0",
        "empty.csv": b"",
        "data.bz2": b"BZh91AY",
        "blank.txt": b" \n",
        "core": b"\x01\0\x02",
        ".DS_Store": b"x",
    }
    got = run_check(tmp_path / "leave", bodies, bad_rows="leave_out")
    assert [r.file for r in got.rows] == ["deep/er/more.jsonl", "deep/lines", "deep/list", "rows.csv", "rows.csv"]
    listed = {u["file"]: u["reason"] for u in got.facts["not_read"]}
    assert listed == {
        "scan.pdf": "document", "picture": "unknown_format", "empty.csv": "empty", "data.bz2": "unknown_format",
        "blank.txt": "empty", "core": "unknown_format", ".DS_Store": "hidden",
    }  # fmt: skip
    assert {f["file"] for f in got.facts["files"]} | listed.keys() == bodies.keys()
    assert "deep/lines: read as JSON lines: it begins with an object" in got.findings
    assert "scan.pdf: is not read: a document, not rows" in got.findings
    with pytest.raises(DataError) as caught:
        run_check(tmp_path / "refuse", bodies)
    assert sorted({p.where for p in caught.value.problems}) == sorted(listed.keys() - {".DS_Store"})


def test_a_folder_of_texts_is_one_record_a_file_and_its_folders_are_labels(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "sport/a.txt": "A match.\r\nTwo lines.\n", "sport/b.md": "# B", "news/c": "plain words", "news/d.txt.gz": gzip.compress(b"packed"),
        "news/bad.txt": b"caf\xe9",
    }  # fmt: skip
    got = run_check(tmp_path, files, text="text", label="folder", keep=("file",), bad_rows="leave_out")
    assert [(r.fields["file"], r.target, r.messages[0].content) for r in got.rows] == [
        ("news/c", "news", "plain words"), ("news/d.txt.gz", "news", "packed"),
        ("sport/a.txt", "sport", "A match.\nTwo lines.\n"), ("sport/b.md", "sport", "# B"),
    ]  # fmt: skip
    assert [(g.file, g.reason) for g in got.left_out] == [("news/bad.txt", "broken_utf8")]
    assert [f["file"] for f in got.facts["files"]] == ["news/", "sport/"] and got.facts["files"][0]["files"] == 3


def test_a_folder_full_of_pictures_is_said_in_a_few_lines_and_listed_whole(tmp_path: Path) -> None:
    bodies: dict[str, bytes | str] = {f"p{i:03}.png": b"\x89PNG\r\n\0" for i in range(80)} | {
        "r.csv": "text,label\na,x\nb,y\n"
    }
    got = run_check(tmp_path / "leave", bodies, bad_rows="leave_out")
    assert len(got.facts["not_read"]) == 80 and got.findings.count("is not read") == 5
    assert "75 more files are not read (unknown_format)" in got.findings
    with pytest.raises(DataError, match="30 more files cannot be read"):
        run_check(tmp_path / "refuse", bodies)


def test_a_link_out_of_nowhere_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.csv: there is no such file"):
        source_files(tmp_path)


def test_what_is_packed_twice_is_not_read(tmp_path: Path) -> None:
    found = identify(write(tmp_path, "x.jsonl.gz.gz", gzip.compress(gzip.compress(b'{"a":1}\n\0'))), "x.jsonl.gz.gz")
    assert isinstance(found, Unread) and found.reason == "unknown_format"
