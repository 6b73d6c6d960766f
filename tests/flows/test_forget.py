"""A whole project forgets a row and a person, is told what was built from them, and goes on without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.core.errors import InputError
from tunesmith.flows.forget import forget, own_files
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.forget import Forget

NAME = "Zoë Quickly-Canary"


def test_a_journey_with_a_row_and_a_person_forgotten(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    folder = make_project(tmp_path / "news", tiny_llama)
    rows = (folder / "rows.csv").read_text(encoding="utf-8").splitlines()
    rows[20] = rows[20].replace(rows[20].split(",")[0], f"rain says {NAME} and snow")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    project = Project.open(folder)
    first = project.run()
    context = project.context
    dataset = context.ledger.runs(stage="prepare")[0].outputs["dataset"]
    test = [json.loads(x) for x in (context.ledger.path(dataset) / "test.jsonl").read_bytes().splitlines()]
    row = next(r for r in test if NAME not in str(r))
    text = row["messages"][-1]["content"]

    done = forget(context, Forget(rows=(row["id"],), texts=(NAME,), why="asked"), dry_run=False)
    assert done.rows == 2
    assert {(r.kind, r.aliases) for r in done.reached} >= {("dataset", ()), ("bundle", ("prod",))}
    assert {o.file: o.lines for o in done.outside}["rows.csv"] == tuple(sorted({21, row["line"]}))
    stored = [p for p in (folder / ".tunesmith").rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in stored if text.encode() in p.read_bytes() or NAME.encode() in p.read_bytes()]
    assert doctor(context.ledger).findings == ()
    project.report()  # from redacted artifacts

    with pytest.raises(InputError, match=r"rows\.csv:.*still holds what was forgotten"):
        project.run()
    kept = [line for n, line in enumerate(rows, 1) if n not in (21, row["line"])]
    (folder / "rows.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    second = project.run()
    assert second.bundle != first.bundle
    assert doctor(context.ledger).is_clean
    assert text not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_redacted_data_set_is_still_sealed_and_evaluated(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages after it read the rows that are left, and find seal and answers in order."""
    from dataclasses import replace

    from tunesmith.evaluate.stages import EVALUATE, EvaluateSpec
    from tunesmith.ledger.execute import execute

    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    project = Project.open(make_project(tmp_path / "news", tiny_llama))
    project.run()
    context = project.context
    run = context.ledger.runs(stage="evaluate")[0]
    before = json.loads((context.ledger.path(run.outputs["report"]) / "report.json").read_bytes())
    row = json.loads((context.ledger.path(run.inputs["dataset"]) / "test.jsonl").read_bytes().splitlines()[0])
    forget(context, Forget(rows=(row["id"],)), dry_run=False)
    spec = EvaluateSpec(**{**run.spec, "metrics": tuple(run.spec["metrics"])})
    again = execute(context.ledger, EVALUATE, replace(spec, seed=spec.seed + 1), run.inputs)
    after = json.loads((context.ledger.path(again.outputs["report"]) / "report.json").read_bytes())
    assert after["seal"] != before["seal"]


def test_the_users_own_files_are_those_of_the_settings_and_of_the_folder(tmp_path: Path, tiny_llama: Path) -> None:
    folder = make_project(tmp_path / "news", tiny_llama)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.md").write_text("x", encoding="utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b").write_text("x", encoding="utf-8")
    found = own_files(Project.open(folder).context)
    assert set(found) == {"rows.csv", "tunesmith.yaml", "notes/a.md"}
