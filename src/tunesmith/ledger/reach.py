"""What was built from something that is forgotten. Weights are never edited: they are listed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.stock import Stock

BUILT = ("dataset", "checkpoint", "bundle")
HOW = {  # a file of a data set that held it -> what that made of everything after
    "train.jsonl": "trained on it",
    "validation.jsonl": "chosen by it",
    "test.jsonl": "tested on it",
}
ONLY_NEAR = "made from files that held it, but not from that row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A data set, model or bundle."""

    id: str
    kind: str
    how: str
    aliases: tuple[str, ...]  # names that point to it, such as `prod`


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """One time that something was forgotten."""

    at: str
    why: str
    rows: int
    files: int


def reach(ledger: Ledger, stock: Stock, touched: Mapping[str, set[str]]) -> tuple[Reached, ...]:
    """`touched`: artifacts and which of their files held it."""
    aliases: dict[str, list[str]] = {}
    for name, target in ledger.references().items():
        for id in (target, *_outputs(ledger, target)):
            aliases.setdefault(id, []).append(name)
    found = []
    for id, kind in stock.kinds.items():
        before = stock.ancestors(id)
        if kind not in BUILT or before.isdisjoint(touched):
            continue
        own = touched.get(id, set())
        if kind == "dataset":
            splits = [name.removesuffix(".jsonl") for name in HOW if name in own]
            how = f"held it in {', '.join(splits)}" if splits else ONLY_NEAR
        else:
            sets = [touched.get(a, set()) for a in before if stock.kinds.get(a) == "dataset"]
            how = next((said for name, said in HOW.items() if any(name in s for s in sets)), ONLY_NEAR)
        found.append(Reached(id=id, kind=kind, how=how, aliases=tuple(sorted(aliases.get(id, ())))))
    return tuple(sorted(found, key=lambda r: (BUILT.index(r.kind), r.how == ONLY_NEAR, r.id)))


def _outputs(ledger: Ledger, target: str) -> list[str]:
    run = ledger.find_run(target)
    return list(run.outputs.values()) if run is not None else []


def earlier(ledger: Ledger) -> tuple[Earlier, ...]:
    """Oldest first."""
    rows = ledger.records.database.read("SELECT at, body FROM facts WHERE kind = 'forget' ORDER BY seq")
    return tuple(
        Earlier(at=at, why=said["why"], rows=said["rows"], files=len({f["old"] for f in said["files"]}))
        for at, said in ((at, json.loads(body)) for at, body in rows)
    )
