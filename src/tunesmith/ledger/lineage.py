"""Where something comes from and what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tunesmith.core.nouns import Artifact, Run
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import Edge


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Everything an artifact or run was made from, back to the source files, and made into."""

    focus: str  # the id asked for, whole
    made_from: tuple[str, ...]  # artifact ids, nearest first
    made_into: tuple[str, ...]  # the same, in the other direction
    artifacts: dict[str, Artifact]
    runs: dict[str, Run]
    edges: tuple[Edge, ...]
    references: dict[str, str]  # names that point to one of these
    sources: dict[str, str]  # "rows.csv" → SHA-256, of the artifacts that no run made


def lineage(ledger: Ledger, id: str) -> Lineage:
    """`id` is that of an artifact or a run, or the start of one. Raises InputError if there is none.

    Failed and stopped runs have made nothing and are left out, unless asked for by id.
    """
    run_of_id = ledger.find_run(id)
    if run_of_id is None:
        focus = ledger.artifact(id).id
        before, after, runs = [focus], [focus], {}
    else:
        focus = run_of_id.id
        own = ledger.records.edges("run", focus)
        before = [e.artifact for e in own if e.direction == "in"]
        after = [e.artifact for e in own if e.direction == "out"]
        runs = {focus: run_of_id}
    made_from = _walk(ledger, before, "out", runs)
    made_into = _walk(ledger, after, "in", runs)
    ids = dict.fromkeys([*made_from, *made_into])
    artifacts = {id: ledger.artifact(id) for id in ids}
    edges = [e for run in runs for e in ledger.records.edges("run", run) if e.artifact in artifacts]
    made = {e.artifact for e in edges if e.direction == "out"}
    roots = [artifacts[id] for id in made_from if id not in made]
    return Lineage(
        focus=focus,
        made_from=tuple(id for id in made_from if id != focus),
        made_into=tuple(id for id in made_into if id != focus),
        artifacts=artifacts,
        runs=runs,
        edges=tuple(edges),
        references={n: t for n, t in ledger.references().items() if t in artifacts or t in runs},
        sources={name: f.sha256 for a in roots for name, f in a.files.items()},
    )


def _walk(ledger: Ledger, start: Iterable[str], side: Literal["in", "out"], runs: dict[str, Run]) -> list[str]:
    """Artifacts reached from `start`, nearest first; runs on the way are added to `runs`. A run that
    has the artifact on `side` leads on to the artifacts on its other side."""
    found = dict.fromkeys(start)
    waiting = list(found)
    while waiting:
        artifact = waiting.pop(0)
        for edge in ledger.records.edges("artifact", artifact):
            if edge.direction != side:
                continue
            run = runs.get(edge.run) or ledger.run(edge.run)
            if run.status != "finished":
                continue
            runs[run.id] = run
            for other in ledger.records.edges("run", run.id):
                if other.direction != side and other.artifact not in found:
                    found[other.artifact] = None
                    waiting.append(other.artifact)
    return list(found)
