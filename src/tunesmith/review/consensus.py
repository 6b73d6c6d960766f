"""What the votes so far come to, as facts for the page and the terminal. The estimates are metrics/consensus.py's.

In: (item, annotator, label) votes and what was adjudicated. Out: a decision for each item, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunesmith.metrics.consensus import Decision, Method, Vote, consensus

__all__ = ["Decision", "Method", "Vote", "consensus", "consensus_facts", "consensus_words"]
SHOWN = 8  # disputed items named in words


def consensus_facts(
    votes: Iterable[Vote],
    *,
    method: Method,
    threshold: float,
    labels: Sequence[str] = (),
    adjudicated: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """JSON-ready. `disputed` lists every such item, least certain first; raises DataError as `consensus` does."""
    decisions = consensus(votes, method=method, threshold=threshold, labels=labels, adjudicated=adjudicated)
    disputed = sorted((d for d in decisions if d.disputed), key=lambda d: (d.probability, d.item))
    return {
        "method": method,
        "threshold": threshold,
        "items": len(decisions),
        "adjudicated": sum(d.how == "adjudicated" for d in decisions),
        "several_votes": sum(sum(d.votes.values()) > 1 for d in decisions),
        "unanimous": sum(len(d.votes) == 1 and sum(d.votes.values()) > 1 for d in decisions),
        "ties": sum(d.label is None for d in decisions),
        "labels": dict(sorted(Counter(d.label for d in decisions if d.label is not None).items())),
        "disputed": [
            {
                "item": d.item,
                "label": d.label,
                "probability": round(d.probability, 6),
                "votes": d.votes,
                "tied": list(d.tied),
            }
            for d in disputed
        ],
    }


def consensus_words(facts: dict[str, Any]) -> str:
    """For the terminal."""
    by = {"majority": "majority", "dawid_skene": "Dawid and Skene's estimate"}[facts["method"]]
    disputed = facts["disputed"]
    lines = [
        f"{facts['items']:,} items decided by {by}: {facts['several_votes']:,} with several votes "
        f"({facts['unanimous']:,} unanimous), {facts['adjudicated']:,} adjudicated, {len(disputed):,} disputed "
        f"({facts['ties']:,} of them ties)"
    ]
    for d in disputed[:SHOWN]:
        said = ", ".join(f"{label} {n}" for label, n in d["votes"].items())
        what = f"a tie between {' and '.join(d['tied'])}" if d["tied"] else f"{d['label']} ({d['probability']:.2f})"
        lines.append(f"  {d['item'][:12]}  {what}; votes: {said}")
    if len(disputed) > SHOWN:
        lines.append(f"  and {len(disputed) - SHOWN:,} more")
    if disputed:
        lines.append("adjudicate them, or ask one more person about each")
    return "\n".join(lines)
