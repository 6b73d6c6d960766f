"""Doctor finds what is wrong, says what to do, and finds nothing where nothing is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, run_repeat
from tunesmith.core.nouns import Artifact
from tunesmith.ledger.doctor import Health, doctor
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import copy_hashed


@pytest.fixture
def lived_in(ledger: Ledger, tmp_path: Path) -> Ledger:
    """A ledger with every kind of fact and a model outside it."""
    source = add_source(ledger)
    run = run_repeat(ledger, source)
    ledger.path(run.outputs["rows"])
    ledger.move_reference("prod", run.outputs["rows"], "passed")
    ledger.note("look", {"n": 1})
    (tmp_path / "w").write_bytes(b"weights")
    (tmp_path / "cache").mkdir()
    entry = copy_hashed(tmp_path / "w", tmp_path / "cache" / "model.safetensors")
    ledger.add_external(Artifact(kind="model", files={"model.safetensors": entry}), tmp_path / "cache")
    return ledger


def forge(ledger: Ledger, *statements: str) -> None:
    """Change the database behind the ledger's back, its triggers put back afterwards."""
    db = sqlite3.connect(ledger.records.database.path, isolation_level=None)
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        db.execute(statement)
    for _, sql in triggers:
        db.execute(sql)
    db.close()


def found(health: Health) -> str:
    assert not health.is_clean
    assert all(f.fix and f.where for f in health.findings)
    return "\n".join(f"{f.where}: {f.what}" for f in health.findings)


def test_a_sound_ledger_has_no_findings(lived_in: Ledger) -> None:
    health = doctor(lived_in)
    assert health.findings == ()
    assert health.is_clean
    assert health.facts == lived_in.records.database.read("SELECT count(*) FROM facts")[0][0]
    assert health.objects == len(list(lived_in.objects.hashes()))


@pytest.mark.parametrize(
    ("statement", "want"),
    [
        ("UPDATE facts SET body = replace(body, 'passed', 'failed')", "fact 6 (reference"),
        ("UPDATE facts SET at = '2020' WHERE seq = 2", "fact 2 (artifact, 2020): was changed after it was written"),
        ("UPDATE facts SET body = '{' WHERE seq = 2", "cannot be read: JSONDecodeError"),
        ("DELETE FROM facts WHERE seq = 3", "facts 3 to 3 are missing"),
        ("DELETE FROM facts WHERE seq = (SELECT max(seq) FROM facts)", "a row that follows from no fact"),
        ("UPDATE moves SET target = (SELECT min(id) FROM artifacts)", "ledger.db: moves: has a row"),
        ("DELETE FROM moves", "ledger.db: moves: lacks the row"),
        ("UPDATE files SET bytes = bytes + 1", "ledger.db: files: lacks the row"),
        ("DELETE FROM edges WHERE direction = 'in'", "ledger.db: edges: lacks the row"),
        ("UPDATE runs SET key = 'k'", "ledger.db: runs: has a row that follows from no fact"),
        ("DROP INDEX runs_by_key", "ledger.db: schema: lacks the row index, runs_by_key"),
        ("CREATE TABLE theirs (a)", "ledger.db: schema: has a row that follows from no fact: table, theirs"),
    ],
)
def test_every_forged_row_is_found(lived_in: Ledger, statement: str, want: str) -> None:
    forge(lived_in, statement)
    assert want in found(doctor(lived_in))


def test_a_dropped_trigger_is_found(lived_in: Ledger) -> None:
    db = sqlite3.connect(lived_in.records.database.path)
    db.execute("DROP TRIGGER facts_are_never_deleted")
    db.close()
    assert "facts_are_never_deleted" in found(doctor(lived_in))


def test_a_forged_fact_with_its_own_hash_set_right_breaks_the_chain(lived_in: Ledger) -> None:
    from tunesmith.ledger.records import fact_hash

    seq, at, kind, body, prev = lived_in.records.database.read(
        "SELECT seq, at, kind, body, prev FROM facts WHERE kind = 'note'"
    )[0]
    body = body.replace('"n":1', '"n":0')
    forge(
        lived_in, f"UPDATE facts SET body = '{body}', hash = '{fact_hash(prev, seq, at, kind, body)}' WHERE seq = {seq}"
    )
    assert "does not continue the chain" in found(doctor(lived_in))


def test_damaged_and_missing_files_are_found_wherever_they_lie(lived_in: Ledger, tmp_path: Path) -> None:
    first, second = [lived_in.objects.file(h) for h in lived_in.objects.hashes()][:2]
    outside = tmp_path / "cache" / "model.safetensors"
    first.unlink()
    for path in (second, outside):
        path.chmod(0o644)
        path.write_bytes(b"rot")
    text = found(doctor(lived_in))
    assert f"{first}: the file is missing" in text
    assert f"{second}: the content has changed" in text
    assert f"{outside}: the content has changed" in text


def test_an_orphan_is_waste_and_no_damage(lived_in: Ledger) -> None:
    stray = lived_in.objects.file("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"nobody's")
    (lived_in.objects.temporary / "x.tmp").write_bytes(b"half")
    health = doctor(lived_in)
    assert health.is_clean
    assert [(f.severity, f.where) for f in health.findings] == [
        ("waste", str(stray)),
        ("waste", str(lived_in.objects.temporary / "x.tmp")),
    ]


def test_the_content_of_a_damaged_text_does_not_stop_the_examination(lived_in: Ledger) -> None:
    forge(lived_in, "UPDATE facts SET body = CAST(x'ff7bfe' AS TEXT) WHERE seq = 1")
    assert "fact 1 (artifact" in found(doctor(lived_in))


def test_doctor_changes_nothing(lived_in: Ledger) -> None:
    forge(lived_in, "DELETE FROM moves")
    dump = lambda: list(sqlite3.connect(lived_in.records.database.path).iterdump())  # noqa: E731
    before = dump()
    doctor(lived_in)
    assert dump() == before
