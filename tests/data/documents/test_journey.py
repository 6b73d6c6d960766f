"""From documents to what `train` reads, through the ledger: a corpus, and pairs that somebody approved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.documents.making import documents_spec, pairs_spec, source
from tests.data.documents.test_real import FAQ, needs
from tests.data.making import check_spec, run_prepare
from tunesmith.core.canonical import canonical_json, read_lines
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Stage, Workspace
from tunesmith.data.check import check
from tunesmith.data.documents.approve import queue_items
from tunesmith.data.documents.stages import APPROVE, CORPUS, DOCUMENTS, PAIRS, ApproveSpec, CorpusSpec
from tunesmith.data.stages import CheckInputs
from tunesmith.ledger.execute import execute
from tunesmith.ledger.ledger import Ledger


@pytest.mark.parametrize("stage", [DOCUMENTS, CORPUS, PAIRS, APPROVE])
def test_a_stage_names_its_function(stage: Stage) -> None:
    assert callable(stage.resolve())


@needs(FAQ, "debian-faq")
def test_a_faq_becomes_a_corpus_and_an_instruction_set(tmp_path: Path, tiny_llama: Path) -> None:
    ledger = Ledger.open(tmp_path / ".tunesmith")
    files = {p.name: p for p in FAQ.glob("*.en.html")}
    given = ledger.add_files("source", files, move=False)
    spec = documents_spec(max_words=220, min_words=8)
    read = execute(ledger, DOCUMENTS, spec, {"source": given.id}).outputs["passages"]
    again = execute(ledger, DOCUMENTS, spec, {"source": given.id})
    assert again.reused and again.outputs["passages"] == read

    texts = CorpusSpec(kinds=(), headings=True, group="heading")
    made = execute(ledger, CORPUS, texts, {"passages": read}).outputs["made"]
    rows = _checked(tmp_path / "domain", ledger.path(made) / "corpus.jsonl", kind="domain")
    assert len(rows) > 150
    assert len({r.group for r in rows}) >= len(files) - 1

    paired = execute(ledger, PAIRS, pairs_spec(max_answer_words=220), {"passages": read, "teacher": None})
    folder = ledger.path(paired.outputs["pairs"])
    said = [
        {"id": f"j-{i}", "queue": "pairs", "item": item["id"], "annotator": "ann", "value": None, "reason": ""}
        | {"verb": "reject" if i % 10 == 0 else "approve", "seconds": 1.0, "at": "2026-01-01T00:00:00Z"}
        for i, item in enumerate(queue_items(folder))
    ]
    lines = b"".join(canonical_json(j) + b"\n" for j in said)
    path = source(tmp_path / "judgments", {"judgments.jsonl": lines}) / "judgments.jsonl"
    judgments = ledger.add_files("judgments", {path.name: path}, move=False)
    asked = ApproveSpec(approval="required", group="passage")
    approved = execute(ledger, APPROVE, asked, {"pairs": paired.outputs["pairs"], "judgments": judgments.id})
    rows = _checked(tmp_path / "instruct", ledger.path(approved.outputs["made"]) / "pairs.jsonl", kind="instruct")
    assert len(rows) == sum(j["verb"] == "approve" for j in said) > 100
    examples = tmp_path / "instruct" / "check" / "out" / "examples"
    out = run_prepare(tmp_path / "prepared", examples, tiny_llama, kind="instruct", max_tokens=4096, max_deviation=0.5)
    assert sum(map(len, out.splits.values())) == len(rows)
    assert not {r.group for r in out.splits["train"]} & {r.group for r in out.splits["test"]}


def _checked(root: Path, file: Path, *, kind: str) -> list[Row]:
    folder = source(root / "source", {file.name: file.read_bytes()})
    out = check(check_spec(kind=kind, group="group"), CheckInputs(source=folder), Workspace(root=root / "check"))
    return list(read_lines(out.examples / "rows.jsonl", Row))
