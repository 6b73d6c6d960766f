"""Look-ups over the ledger: one thing shown whole, two things side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError, Problem
from tunesmith.flows.cost.planned import compared
from tunesmith.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    field: str  # dotted
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    a: str
    b: str
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        if not self.differences:
            return f"{self.a[:12]} and {self.b[:12]} are the same"
        width = max(len(d.field) for d in self.differences)
        return "\n".join(f"{d.field:<{width}}  {brief(d.a)}  →  {brief(d.b)}" for d in self.differences)


def brief(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def show(ledger: Ledger, name: str) -> dict[str, Any]:
    """A run, an artifact or a reference, by id prefix or name."""
    target = ledger.reference(name)
    if target:
        return {
            "reference": name,
            "target": target,
            "history": plain(ledger.history(name)),
            **described(ledger, target),
        }
    return described(ledger, name)


def described(ledger: Ledger, prefix: str) -> dict[str, Any]:
    run = ledger.find_run(prefix)
    if run:
        planned = {c.what: [c.planned, c.happened, round(c.ratio, 3)] for c in compared(ledger, run)}
        return {"run": plain(run), **({"planned, happened, ratio": planned} if planned else {})}
    artifact = ledger.find_artifact(prefix)
    if artifact:
        maker = ledger.made_by(artifact.id)
        return {
            "artifact": artifact.id,
            "kind": artifact.kind,
            "bytes": artifact.bytes,
            "files": plain(artifact.files),
            "made_by": maker.id if maker else None,
        }
    raise InputError(
        Problem(where=prefix, what="no run, artifact or alias has this id", fix="tunesmith runs lists the ids")
    )


def diff(ledger: Ledger, a: str, b: str) -> Differences:
    """What differs between two runs (spec, inputs, metrics, environment) or two artifacts (files)."""
    left, right = comparable(ledger, a), comparable(ledger, b)
    flat_a, flat_b = dict(flatten(left)), dict(flatten(right))
    fields = sorted(flat_a.keys() | flat_b.keys())
    return Differences(
        a=a,
        b=b,
        differences=tuple(
            Difference(field=f, a=flat_a.get(f, "–"), b=flat_b.get(f, "–"))
            for f in fields
            if flat_a.get(f) != flat_b.get(f)
        ),
    )


def comparable(ledger: Ledger, name: str) -> dict[str, Any]:
    found = described(ledger, ledger.reference(name) or name)
    if "run" in found:
        run: dict[str, Any] = found["run"]
        return {k: run[k] for k in ("stage", "version", "spec", "inputs", "outputs", "metrics", "environment")}
    maker = found.get("made_by")
    return {"kind": found["kind"], "files": {p: f["sha256"] for p, f in found["files"].items()}, "made_by": maker}


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    return [(prefix, value)]
