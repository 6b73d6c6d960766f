"""Facts append; each carries the hash of the one before; the schema only moves forward."""

from __future__ import annotations

import os
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, in_child, read_all, run_repeat
from tunesmith.core.errors import InputError, StorageError
from tunesmith.ledger.database import Database, Schema, migrate, statements
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import DERIVED, GENESIS, SCHEMA, fact_hash


def facts(ledger: Ledger) -> list[tuple]:
    return ledger.records.database.read("SELECT seq, at, kind, body, prev, hash FROM facts ORDER BY seq")


def test_each_fact_carries_the_hash_of_the_one_before(ledger: Ledger) -> None:
    ledger.note("look", {"at_test": 1})
    run_repeat(ledger, add_source(ledger))
    rows = facts(ledger)
    assert len(rows) >= 5
    assert [r[0] for r in rows] == list(range(1, len(rows) + 1))
    assert [r[4] for r in rows] == [GENESIS, *(r[5] for r in rows[:-1])]
    assert all(fact_hash(prev, seq, at, kind, body) == hash for seq, at, kind, body, prev, hash in rows)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE facts SET body = '{}' WHERE seq = 1",
        "DELETE FROM facts",
        "INSERT OR REPLACE INTO facts SELECT seq, at, kind, '{}', prev, hash FROM facts WHERE seq = 1",
        "INSERT INTO facts SELECT seq + 5, at, kind, body, hash, hash FROM facts ORDER BY seq DESC LIMIT 1",
    ],
)
def test_facts_cannot_be_changed_deleted_replaced_or_put_out_of_line(ledger: Ledger, statement: str) -> None:
    ledger.note("a", {"n": 1})
    ledger.note("a", {"n": 2})
    before = facts(ledger)
    other = sqlite3.connect(ledger.records.database.path)  # not even by a program that knows nothing of us
    with pytest.raises(sqlite3.IntegrityError, match="facts are append-only"):
        other.execute(statement)
    other.close()
    assert facts(ledger) == before


def test_an_append_is_one_transaction(ledger: Ledger) -> None:
    source = ledger.artifact(add_source(ledger))
    before = facts(ledger)
    run = run_repeat(ledger, source.id)
    unknown = replace(run, id="f" * 64, outputs={"rows": "e" * 64})  # breaks a foreign key in the last row
    from tunesmith.ledger.records import Fact, run_fact

    middle = facts(ledger)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.records.append([Fact("note", {"kind": "x", "body": {}}), run_fact(unknown)])
    assert facts(ledger) == middle
    assert len(middle) > len(before)
    ledger.note("x", {})  # and the ledger goes on
    assert ledger.notes("x")


def test_notes_come_back_oldest_first_with_their_time(ledger: Ledger) -> None:
    for n in range(3):
        ledger.note("look", {"n": n, "ä": [1.5, None]})
    ledger.note("other", {"n": 9})
    notes = ledger.notes("look")
    assert [note["n"] for note in notes] == [0, 1, 2]
    assert notes[0]["ä"] == [1.5, None]
    assert notes[0]["at"] <= notes[1]["at"] <= notes[2]["at"]


def test_a_reference_moves_with_history(ledger: Ledger) -> None:
    first, second = add_source(ledger, "1"), add_source(ledger, "2")
    assert ledger.reference("prod") is None
    ledger.move_reference("prod", first, "passed")
    ledger.move_reference("prod", second, "better")
    assert ledger.reference("prod") == second
    assert [(m.target, m.why) for m in ledger.history("prod")] == [(second, "better"), (first, "passed")]
    ledger.move_reference("prod", None, "withdrawn")
    assert ledger.reference("prod") is None
    assert ledger.references() == {}
    with pytest.raises(InputError, match="prod: there is no artifact or run"):
        ledger.move_reference("prod", "0" * 64, "typo")


def test_runs_are_listed_newest_first_by_stage_and_page(ledger: Ledger) -> None:
    source = add_source(ledger)
    made = [run_repeat(ledger, source, text=str(n)) for n in range(5)]
    newest_first = [run.id for run in reversed(made)]
    assert [r.id for r in ledger.runs()] == newest_first
    assert [r.id for r in ledger.runs(limit=2)] == newest_first[:2]
    assert [r.id for r in ledger.runs(limit=2, before=newest_first[1])] == newest_first[2:4]
    assert [r.id for r in ledger.runs(stage="repeat", limit=1)] == newest_first[:1]
    assert ledger.runs(stage="sft") == []
    assert ledger.runs(limit=1)[0] == made[-1]


def test_ids_may_be_shortened_while_they_are_clear(ledger: Ledger) -> None:
    source = add_source(ledger)
    run = run_repeat(ledger, source)
    assert ledger.run(run.id[:8]) == run
    assert ledger.artifact(source[:8]).id == source
    assert ledger.made_by(run.outputs["rows"]) == run
    assert ledger.made_by(source) is None
    for prefix in ("", "zz", run.id[:3], "prod", "0" * 64, "%"):
        assert ledger.find_run(prefix) is None
    with pytest.raises(InputError, match="there is no run with the id nothing"):
        ledger.run("nothing")


def test_a_start_shared_by_several_ids_is_refused(ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.ledger.records.PREFIX", 1)
    ids = [add_source(ledger, str(n)) for n in range(17)]  # more than there are hexadecimal digits
    shared = next(a[0] for a in ids for b in ids if a != b and a[0] == b[0])
    with pytest.raises(InputError, match=f"{shared} is the start of several ids"):
        ledger.artifact(shared)


# The schema

MORE = "CREATE TABLE more (a TEXT) STRICT;\nCREATE INDEX more_by_a ON more (a);\nINSERT INTO more VALUES ('x;y');\n"
NEXT = replace(SCHEMA, migrations=(*SCHEMA.migrations, MORE))


def test_statements_are_split_where_sql_ends_them() -> None:
    assert [s.strip() for s in statements(MORE)] == MORE.strip().split("\n")
    trigger = "CREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN SELECT 1;\nSELECT 2; END;\n"
    assert list(statements(trigger)) == [trigger]


def test_tables_are_strict(ledger: Ledger) -> None:
    tables = ledger.records.database.read("SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'")
    assert len(tables) == len(DERIVED) + 2  # facts and verified
    assert all(strict for _, strict in tables)


def test_a_newer_ledger_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Ledger.open(tmp_path).close()
    Database(tmp_path / "ledger.db", NEXT).close()
    with pytest.raises(StorageError) as caught:
        Ledger.open(tmp_path)
    message = str(caught.value)
    assert (
        f"schema version {len(NEXT.migrations)}; this Tunesmith knows versions up to {len(SCHEMA.migrations)}"
        in message
    )
    assert "pip install --upgrade tunesmith" in message
    assert str(tmp_path / "ledger.db") in message


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    before = (tmp_path / "ledger.db").read_bytes()
    with pytest.raises(StorageError, match="not a Tunesmith ledger"):
        Ledger.open(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="this is not a database"):
        Ledger.open(tmp_path)


def test_a_migration_keeps_every_fact(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.note("a", {"n": 1})
        before = facts(ledger)
    moved = Database(tmp_path / "ledger.db", NEXT)
    assert moved.read("SELECT seq, at, kind, body, prev, hash FROM facts") == before
    assert moved.read("SELECT a FROM more") == [("x;y",)]
    moved.close()


def killed_after(path: Path, schema: Schema, count: int) -> str:
    """Migrate in a child that kills itself after so many statements; returns "done" if it got through."""

    def child(pipe: int) -> None:
        left = count

        def one_less() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        db = sqlite3.connect(path, isolation_level=None)
        migrate(db, schema, path, after_statement=one_less)
        os.write(pipe, b"done")

    pid, reading = in_child(child)
    said = read_all(reading)
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(("old", "new"), [(replace(SCHEMA, migrations=()), SCHEMA), (SCHEMA, NEXT)])
def test_a_migration_killed_at_each_statement_leaves_the_old_schema_or_the_new(
    tmp_path: Path, old: Schema, new: Schema
) -> None:
    shape = "SELECT name, sql FROM sqlite_master ORDER BY name"

    def fresh(schema: Schema, name: str) -> list[tuple]:
        database = Database(tmp_path / name, schema)
        found = database.read(shape)
        database.close()
        return found

    want = {0 + len(old.migrations): fresh(old, "old.db"), len(new.migrations): fresh(new, "new.db")}
    kills = 0
    for count in range(1, 200):
        path = tmp_path / f"{count}.db"
        if old.migrations:
            Database(path, old).close()
        said = killed_after(path, new, count)
        db = sqlite3.connect(path)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute(shape).fetchall() == want[version]
        db.close()
        finished = Database(path, new)  # the next start completes it
        assert finished.read(shape) == want[len(new.migrations)]
        finished.close()
        if said == "done":
            break
        kills += 1
    assert kills == sum(len(list(statements(m))) for m in new.migrations[len(old.migrations) :]) + 1
