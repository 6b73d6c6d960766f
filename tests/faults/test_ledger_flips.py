"""One bit flipped anywhere is found by doctor: in an object, in any column of any row, in the database file."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, run_repeat
from tunesmith.core.errors import StorageError
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.forget import Forget, forget
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import DERIVED

TABLES = ("facts", *DERIVED)


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_object(state: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(p for p in (state / "objects").rglob("*") if p.is_file() and p.stat().st_size))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(flipped(content, rng))
    return "object"


def flip_row(state: Path, rng: random.Random) -> str:
    """One bit of one value, behind the back of triggers and constraints."""
    db = sqlite3.connect(state / "ledger.db", isolation_level=None)
    db.execute("PRAGMA ignore_check_constraints = ON")
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    db.execute("BEGIN")
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    while True:
        table = rng.choice(TABLES)
        column, declared = rng.choice(db.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall())
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        names = [n for (n,) in db.execute(f"SELECT name FROM pragma_table_info('{table}')")]
        row = rng.choice(rows)
        value = row[names.index(column)]
        if value is None or value == "":
            continue
        where = " AND ".join(f"{n} IS ?" for n in names)
        try:
            if declared == "INTEGER":
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value ^ 1 << rng.randrange(40), *row))
            else:
                new = flipped(value.encode(), rng)
                db.execute(f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {where}", (new, *row))
        except sqlite3.IntegrityError:
            continue  # the flip made it equal to another key
        assert db.execute("SELECT changes()").fetchone() == (1,)
        break
    for _, sql in triggers:
        db.execute(sql)
    db.execute("COMMIT")
    db.close()
    return f"{table}.{column}"


def flip_file(state: Path, rng: random.Random) -> str:
    path = state / "ledger.db"
    path.write_bytes(flipped(path.read_bytes(), rng))
    return "file"


def is_found(state: Path) -> bool:
    try:
        with Ledger.open(state) as ledger:
            return not doctor(ledger).is_clean
    except StorageError as e:
        assert e.problems[0].fix
        return True


def content(path: Path) -> list[list[tuple]]:
    """Everything the ledger says, read without the help of an index."""
    db = sqlite3.connect(path)
    db.text_factory = bytes
    try:
        return [sorted(db.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()) for table in TABLES]
    finally:
        db.close()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A small ledger, its log folded into the one file."""
    state = tmp_path / "sound" / ".tunesmith"
    with Ledger.open(state) as ledger:
        source = add_source(ledger, "rows of the user\n" * 50)
        for n in range(3):
            run = run_repeat(ledger, source, text=f"{n}" * 100)
            ledger.note("look", {"n": n})
        ledger.note("judgment", {"id": "j1", "queue": "labels", "item": "i1", "annotator": "ann"})
        ledger.move_reference("prod", run.outputs["rows"], "passed")
        ledger.path(run.outputs["rows"])
        assert forget(ledger, Forget(texts=("0000*", "passed"))).facts == 2  # a run, the reference, and a file in part
    db = sqlite3.connect(state / "ledger.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return state


def flip_and_find(sound: Path, folder: Path, flips: int, seed: int) -> Counter[str]:
    rng, places = random.Random(seed), Counter[str]()
    want = content(sound / "ledger.db")
    for n in range(flips):
        state = folder / "flip" / ".tunesmith"
        shutil.copytree(sound, state, symlinks=True)
        where = (flip_object, flip_row, flip_file)[n % 3](state, rng)
        if where == "file" and not is_found(state):
            # bits that carry nothing: unused bytes of a page, counters in the file's header
            assert content(state / "ledger.db") == want, f"flip {n} of seed {seed} changed the ledger unseen"
            where = "file, unused bytes"
        elif where != "file":
            assert is_found(state), f"flip {n} of seed {seed} in {where} was not found"
        places[where] += 1
        shutil.rmtree(state.parent)
    return places


def test_fifty_random_bit_flips_are_all_found(sound: Path, tmp_path: Path) -> None:
    assert is_found(sound) is False
    places = flip_and_find(sound, tmp_path, flips=50, seed=4)
    assert len(places) > 8  # objects, the file, and many columns


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_random_bit_flips_are_all_found(sound: Path, tmp_path: Path) -> None:
    places = flip_and_find(sound, tmp_path, flips=2000, seed=5)
    columns = {where for where in places if "." in where}
    assert len(columns) >= 25  # nearly every column of every table was hit
    print(places)
