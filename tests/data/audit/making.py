"""Rows, specs and a run of the stage for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json, read_lines, write_lines
from tunesmith.core.nouns import Change, Example, LeftOut, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.audit.audit import Finding, audit
from tunesmith.data.audit.catalogue import DEFAULT_KINDS
from tunesmith.data.audit.stages import AuditInputs, AuditSpec


def everything(policy: str) -> dict[str, str]:
    return dict.fromkeys(DEFAULT_KINDS, policy)


def audit_spec(**changes: Any) -> AuditSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "restored": (),
        "policies": everything("flag"),
        "salt": "pepper",
        "regions": ("US", "GB"),
        "min_score": 0.5,
        "toxicity": "flag",
        "max_toxicity": 0.8,
        "languages": "flag",
        "expected_languages": (),
        "min_language_share": 0.02,
        "injection": "flag",
        "leakage": "flag",
        "damage": "flag",
        "triggers": "flag",
        "outliers": "flag",
        "outlier_z": 5.0,
        "balance": "flag",
        "max_imbalance": 20.0,
        "bias": "flag",
        "max_counterfactuals": 1000,
        "alpha": 0.01,
    }
    return AuditSpec(**{**usual, **changes})


def row(text: str, target: str = "yes", line: int = 2, **changes: Any) -> Row:
    messages = changes.pop("messages", (Message(role="user", content=text),))
    example = Example(messages=messages, target=target)
    usual: dict[str, Any] = {"file": "rows.csv", "line": line, "group": example.id}
    return Row(id=example.id, messages=messages, target=target, **{**usual, **changes})


def rows_of(texts: Iterable[str | tuple[str, str]]) -> list[Row]:
    pairs = [(t, "yes") if isinstance(t, str) else t for t in texts]
    return [row(text, target, line=i) for i, (text, target) in enumerate(pairs, start=2)]


class Audited:
    """What the stage audit wrote."""

    def __init__(self, folder: Path, work: Workspace) -> None:
        self.folder, self.work = folder, work
        self.facts = read_json(folder / "audit.json")
        self.rows: list[Row] = list(read_lines(folder / "rows.jsonl", Row))
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))
        self.changes: list[Change] = list(read_lines(folder / "changes.jsonl", Change))
        self.findings: list[Finding] = list(read_lines(folder / "findings.jsonl", Finding))

    def kinds(self) -> list[str]:
        return [f.kind for f in self.findings]

    def of(self, kind: str) -> list[Finding]:
        return [f for f in self.findings if f.kind == kind]

    @property
    def texts(self) -> list[str]:
        return [r.example.input for r in self.rows]

    def bytes(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(self.folder.iterdir())}


def examples_folder(folder: Path, rows: Sequence[Row]) -> Path:
    folder.mkdir(parents=True)
    write_lines(folder / "rows.jsonl", rows)
    write_lines(folder / "left_out.jsonl", [])
    return folder


def run_audit(root: Path, rows: Sequence[Row] | Path, **changes: Any) -> Audited:
    examples = rows if isinstance(rows, Path) else examples_folder(root / "examples", rows)
    work = Workspace(root=root / "work")
    outputs = audit(audit_spec(**changes), AuditInputs(examples=examples), work)
    return Audited(outputs.examples, work)
