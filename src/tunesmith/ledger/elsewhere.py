"""What holds words besides stored files: facts (judgments, notes, runs), served requests, unfinished work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json
from tunesmith.ledger import opaque
from tunesmith.ledger.database import Database
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records_of import form_of
from tunesmith.ledger.redact import Standing, redact, replaced, wiped_fact
from tunesmith.ledger.sought import Sought, strings_in, values_in
from tunesmith.ledger.stock import BINARY
from tunesmith.ledger.traces import SCHEMA as TRACES

NOTE = "forgotten"  # kind of the note that keeps tombstones
OF_A_RUN = ("spec", "metrics", "environment", "error")  # the rest of a run's fact is ids, names and times


def rewritten_facts(ledger: Ledger, sought: Sought) -> dict[int, str]:
    """Facts that hold it -> what they shall be. Ids, names of stages, times and targets stay."""
    found: dict[int, str] = {}
    quick = sought.filter(frozenset())
    rows = ledger.records.database.read(
        "SELECT seq, kind, body FROM facts WHERE kind IN ('note', 'run', 'reference') ORDER BY seq"
    )
    for seq, kind, text in rows:
        if not quick.may_hold(text.encode()):
            continue
        body = json.loads(text)
        if kind == "note" and body["kind"] == NOTE:
            continue
        if kind == "note" and isinstance(body["body"], dict) and body["body"].get("item") in sought.ids | {None}:
            changed = _note(body, sought)
        else:
            parts = {"note": ("body",), "reference": ("why",), "run": OF_A_RUN}[kind]
            changed = {**body, **{p: replaced(body[p], sought, Standing())[0] for p in parts if p in body}}
        new = canonical_json(changed).decode("utf-8")
        if new != text:
            found[seq] = new
    return found


def traces_that_hold(ledger: Ledger, sought: Sought, *, erase: bool) -> int:
    """How many served requests; `erase` takes their content away."""
    path = ledger.state / "traces.db"
    if not path.exists():
        return 0
    database = Database(path, TRACES, synchronous="NORMAL")
    try:
        rows = database.read("SELECT seq, messages, answer FROM traces WHERE messages NOTNULL OR answer NOTNULL")
        held = [(seq,) for seq, *texts in rows if any(_in_trace(t, sought) for t in texts if t)]
        if erase and held:
            with database.write() as db:
                db.executemany("UPDATE traces SET messages = NULL, answer = NULL WHERE seq = ?", held)
        return len(held)
    finally:
        database.close()


def unfinished(ledger: Ledger, touched: set[str], sought: Sought) -> list[str]:
    """Unfinished stages that began with what is erased: a state made from other rows fits no longer. Of those
    that were killed nobody knows what they began with."""
    found = []
    for folder in sorted(ledger.work.iterdir()):
        known = ledger.records.runs("key = ?", [folder.name], 1)
        inputs = set(strings_in(known[0].inputs)) if known else set()
        if not known or not inputs.isdisjoint(touched) or any(_holds(p, sought) for p in folder.rglob("*")):
            found.append(folder.name)
    return found


def _note(body: dict[str, Any], sought: Sought) -> dict[str, Any]:
    said = body["body"]
    if said.get("item") in sought.ids or said.get("id") in sought.ids:
        return {**body, "body": wiped_fact(said, sought)}
    return {**body, "body": replaced(said, sought, Standing())[0]}


def _holds(path: Path, sought: Sought) -> bool:
    """A file of a stage's own, in whatever form."""
    if not path.is_file() or path.suffix in BINARY:
        return False
    with open(path, "rb") as f:
        form = form_of(path.name, f)
        if form != "opaque":
            return redact(form, f, None, sought, Standing()).count > 0
    try:
        return opaque.holds(path, path.name, sought)
    except opaque.Unread:
        return True  # made anew at little cost


def _in_trace(text: str, sought: Sought) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return sought.in_strings([text, *values_in(value)])
