"""Facts said before a training, looked up afterwards: planned beside happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.core.nouns import Run
from tunesmith.ledger.ledger import Ledger

NOTE = "forecast"


def note(ledger: Ledger, body: dict[str, Any]) -> None:
    """`body` speaks of the run with its "key". The very same as the last word on it is not said again."""
    before = latest(ledger, body["key"])
    if before is None or any(before.get(k) != v for k, v in body.items()):
        ledger.note(NOTE, body)


def latest(ledger: Ledger, key: str, *, before: str = "") -> dict[str, Any] | None:
    """The last forecast of this run; `before`: noted no later than this time."""
    notes = [n for n in ledger.notes(NOTE) if n["key"] == key]
    early = [n for n in notes if not before or n["at"] <= before]
    chosen = early or notes
    return chosen[-1] if chosen else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure: planned and happened."""

    what: str
    planned: float
    happened: float

    @property
    def ratio(self) -> float:
        return self.planned / self.happened if self.happened else 0.0

    def __str__(self) -> str:
        return f"{self.what}: planned {self.planned:,.6g}, happened {self.happened:,.6g} ({self.ratio:.2f} times)"


def compared(ledger: Ledger, run: Run) -> tuple[Compared, ...]:
    """What was planned for a finished training beside what happened; empty where nothing was planned."""
    said = latest(ledger, run.key, before=run.started)
    if said is None:
        return ()
    peak = said["measured_mib"] or said["counted_mib"]
    pairs = (
        ("steps", said["steps"], run.metrics.get("steps")),
        ("seconds of training", said["seconds"], run.metrics.get("seconds")),
        ("peak MiB", peak, run.metrics.get("peak_mib")),
    )
    return tuple(Compared(what=w, planned=round(p, 2), happened=h) for w, p, h in pairs if p is not None and h)
