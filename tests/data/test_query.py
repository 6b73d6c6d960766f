"""`data.query` reads the project's own files and nothing else, and gives the same rows every time."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.data.making import jsonl, run_check
from tunesmith.core.errors import DataError

pytest.importorskip("duckdb")

TICKETS = "id,body,queue\n1,first ticket,a\n2,second ticket,b\n10,third ticket,a\n3,other ticket,b\n"
NAMES = jsonl([{"queue": "a", "name": "billing"}, {"queue": "b", "name": "sport"}])
FILES: dict[str, bytes | str] = {"exports/tickets.csv": TICKETS, "names.jsonl": NAMES}
JOIN = """SELECT body AS text, name AS label, id FROM tickets JOIN 'names.jsonl' USING (queue) ORDER BY id::INT"""


def test_a_query_over_files_gives_rows_numbered_in_its_order(tmp_path: Path) -> None:
    got = run_check(tmp_path, FILES, query=JOIN, keep=("id",))
    assert [(r.file, r.line, r.fields["id"], r.target) for r in got.rows] == [
        ("data.query", 1, "1", "billing"), ("data.query", 2, "2", "sport"), ("data.query", 3, "3", "sport"), ("data.query", 4, "10", "billing"),
    ]  # fmt: skip
    assert got.facts["files"][0]["file"] == "data.query"
    again = run_check(tmp_path / "again", FILES, query=JOIN, keep=("id",))
    assert (again.folder / "rows.jsonl").read_bytes() == (got.folder / "rows.jsonl").read_bytes()


REFUSED = [
    ("SELECT body AS text, queue AS label FROM tickets", "states no order, and rows are known by their numbers"),
    ("SELECT body AS text, queue AS label FROM (SELECT * FROM tickets ORDER BY id)", "states no order"),
    ("SELECT 'order by x' AS text, queue AS label FROM tickets -- order by id", "states no order"),
    ("SELECT body AS text, queue AS label FROM tickets ORDER BY random()", "uses random, which gives another value each"),
    ("SELECT body AS text, now()::TEXT AS label FROM tickets ORDER BY id", "uses now, which gives another value each time"),
    ("SELECT body AS text, body AS text FROM tickets ORDER BY id", "selects 'text' more than once"),
    ("SELECT content AS text, 'x' AS label FROM read_text('/etc/passwd') ORDER BY 1", "DuckDB refuses it"),
    ("SELECT * FROM '/etc/passwd' ORDER BY 1", "DuckDB refuses it"),
    ("SELECT * FROM read_csv('https://example.org/x.csv') ORDER BY 1", "DuckDB refuses it"),
    ("ATTACH '/tmp/x.db' AS x; SELECT 1 AS text ORDER BY 1", "is no SELECT"),
    ("SET enable_external_access = true; SELECT 1 ORDER BY 1", "is no SELECT"),
    ("SELECT 1 AS text ORDER BY 1; SELECT 2 AS text ORDER BY 1", "holds 2 statements"),
    ("COPY (SELECT 1 ORDER BY 1) TO '/tmp/stolen.csv'", "states no order"),
    ("SELECT nothing FROM tickets ORDER BY 1", "DuckDB refuses it"),
    ("SELEC body ORDER BY 1", "is no SELECT"),
    ("SELECT body AS text, queue AS label FROM lost ORDER BY 1", 'the tables are "exports/tickets.csv", "names.jsonl"'),
]  # fmt: skip


@pytest.mark.parametrize("query, says", REFUSED)
def test_a_query_that_could_read_elsewhere_or_give_other_rows_is_refused(tmp_path: Path, query: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        run_check(tmp_path, FILES, query=query)
    assert says in str(caught.value) and caught.value.problems[0].where == "data.query"
    assert not Path("/tmp/stolen.csv").exists()


def test_a_table_keeps_its_texts_as_they_stand(tmp_path: Path) -> None:
    dates = json.dumps([{"a": "2024-01-01 12:00:00", "b": "2024-1-1"}])
    files: dict[str, bytes | str] = {"t.csv": "text,label\n007,x\n1.50,y\n", "l.json": dates}
    got = run_check(tmp_path / "1", files, query="SELECT text, label FROM t ORDER BY text")
    assert [r.messages[0].content for r in got.rows] == ["007", "1.50"]
    got = run_check(tmp_path / "2", files, kind="instruct", query="SELECT a AS text, b AS label FROM l ORDER BY 1")
    assert (got.rows[0].messages[0].content, got.rows[0].target) == ("2024-01-01 12:00:00", "2024-1-1")


def test_files_that_a_query_does_not_read_are_listed(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {**FILES, "a.txt": "some text", "other.csv": "x,y\n1,2\n"}
    got = run_check(tmp_path / "1", files, query=JOIN, bad_rows="leave_out")
    assert [(u["file"], u["reason"]) for u in got.facts["not_read"]] == [("a.txt", "not_queryable")]
    assert "files that the query does not name, and that are not read: other.csv" in got.findings
    with pytest.raises(DataError, match=r"a\.txt: a query cannot read text files"):
        run_check(tmp_path / "2", files, query=JOIN)


def database(path: Path) -> bytes:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, said TEXT, k INT)")
        db.execute("CREATE TABLE b (k INT, name TEXT)")
        db.executemany("INSERT INTO a VALUES (?, ?, ?)", [(2, "two", 1), (1, "one", 2)])
        db.executemany("INSERT INTO b VALUES (?, ?)", [(1, "x"), (2, "y")])
    db.close()
    return path.read_bytes()


def test_a_database_answers_its_own_query(tmp_path: Path) -> None:
    body = database(tmp_path / "x.db")
    query = "SELECT said AS text, name AS label FROM a JOIN b USING (k) ORDER BY id"
    got = run_check(tmp_path / "run", {"x.sqlite": body}, query=query)
    assert [(r.line, r.messages[0].content, r.target) for r in got.rows] == [(1, "one", "y"), (2, "two", "x")]


@pytest.mark.parametrize(
    "query, says",
    [
        ("SELECT said AS text FROM a", "states no order"),
        ("SELECT said AS text, random() AS label FROM a ORDER BY 1", "only SELECT is allowed, without random values"),
        ("INSERT INTO a VALUES (9, 'x', 1) ORDER BY 1", "SQLite refuses it"),
        ("ATTACH '/tmp/y.db' AS y /* */ ORDER BY 1", "SQLite refuses it"),
        ("PRAGMA table_info(a) ORDER BY 1", "SQLite refuses it"),
        ("SELECT load_extension('x') AS text ORDER BY 1", "SQLite refuses it"),
        ("SELECT 1 ORDER BY 1; DELETE FROM a", "SQLite refuses it"),
    ],
)
def test_a_database_is_only_read(tmp_path: Path, query: str, says: str) -> None:
    body = database(tmp_path / "x.db")
    with pytest.raises(DataError, match=says):
        run_check(tmp_path / "run", {"x.sqlite": body}, query=query)
    assert (tmp_path / "run" / "source" / "x.sqlite").read_bytes() == body


def test_a_query_reads_one_database_or_files_and_says_so(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"x.sqlite": database(tmp_path / "x.db"), "t.csv": TICKETS}
    with pytest.raises(DataError, match="a query reads one SQLite database, or files of other formats; there are 2"):
        run_check(tmp_path / "run", files, query="SELECT 1 AS text ORDER BY 1")
