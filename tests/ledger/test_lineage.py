"""Where something comes from and what became of it, back to the source files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ledger import stages
from tests.ledger.stages import add_source, run_repeat
from tunesmith.core.errors import InputError
from tunesmith.core.stage import Stage, Workspace
from tunesmith.ledger.execute import execute
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.lineage import lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSpec:
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinInputs:
    parts: dict[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOutputs:
    bundle: Path = field(metadata={"kind": "bundle"})


def join(spec: JoinSpec, inputs: JoinInputs, work: Workspace) -> JoinOutputs:
    folder = work.scratch / "bundle"
    folder.mkdir()
    texts = [(part / "two.txt").read_text(encoding="utf-8") for part in inputs.parts.values()]
    (folder / "all.txt").write_text(spec.title + "".join(texts), encoding="utf-8")
    return JoinOutputs(bundle=folder)


JOIN = Stage(name="join", version=1, function=f"{__name__}:join", spec=JoinSpec, inputs=JoinInputs, outputs=JoinOutputs)


@pytest.fixture
def family(ledger: Ledger) -> dict[str, Any]:
    """source → two repeats → one bundle, and an unrelated branch."""
    source = add_source(ledger, "the source\n")
    a, b, other = (run_repeat(ledger, source, text=text) for text in ("a", "b", "unrelated"))
    parts = {"a": a.outputs["rows"], "b": b.outputs["rows"]}
    joined = execute(ledger, JOIN, JoinSpec(title="t"), {"parts": parts})
    ledger.move_reference("prod", joined.outputs["bundle"], "passed")
    return {"source": source, "a": a, "b": b, "other": other, "joined": joined}


def test_a_bundle_leads_back_to_the_hashes_of_the_source_files(ledger: Ledger, family: dict[str, Any]) -> None:
    bundle = family["joined"].outputs["bundle"]
    found = lineage(ledger, bundle)
    assert set(found.made_from) == {family["source"], family["a"].outputs["rows"], family["b"].outputs["rows"]}
    assert found.made_from[-1] == family["source"]  # farthest last
    assert found.made_into == ()
    assert set(found.runs) == {family[n].id for n in ("a", "b", "joined")}
    assert found.sources == {"rows.csv": hashlib.sha256(b"the source\n").hexdigest()}
    assert found.references == {"prod": bundle}
    inputs = {(e.run, e.name, e.artifact) for e in found.edges if e.direction == "in"}
    assert (family["joined"].id, "parts.a", family["a"].outputs["rows"]) in inputs


def test_a_source_leads_on_to_everything_made_from_it(ledger: Ledger, family: dict[str, Any]) -> None:
    found = lineage(ledger, family["source"][:10])
    made = {o for n in ("a", "b", "other", "joined") for o in family[n].outputs.values()}
    assert set(found.made_into) == made
    assert found.made_from == ()
    assert found.focus == family["source"]


def test_a_run_stands_between_what_it_took_and_what_it_made(ledger: Ledger, family: dict[str, Any]) -> None:
    found = lineage(ledger, family["a"].id)
    assert found.made_from == (family["source"],)
    assert set(found.made_into) == {*family["a"].outputs.values(), family["joined"].outputs["bundle"]}


def test_a_failed_run_made_nothing_but_can_be_asked_for(ledger: Ledger, family: dict[str, Any], monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(stages, "hook", fail)
    with pytest.raises(RuntimeError):
        run_repeat(ledger, family["source"], text="fails")
    failed = ledger.runs(limit=1)[0]
    assert failed.id not in lineage(ledger, family["source"]).runs
    assert lineage(ledger, failed.id).made_from == (family["source"],)


def test_an_unknown_id_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="there is no artifact with the id feed"):
        lineage(ledger, "feed")
