"""The stage of this room, without its code.

dedup   examples -> examples without rows that say the same, or nearly the same, as one that is kept
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage

Keep = Literal["first", "longest", "newest", "most_complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupSpec:
    """What counts as saying the same, and which row is kept."""

    kind: Kind
    near: float  # Jaccard of word pairs from which rows are near-duplicates; 0: only equal texts are
    across: bool  # also between files
    keep: Keep  # of a cluster; what is equal is kept in order of file and line
    newest_by: str | None  # the kept field with the time, for keep: newest
    templates: bool  # wording that many different rows share does not count
    contradictions: Literal["review", "refuse", "leave_out"]  # near, but with another answer (classify, extract)
    candidates: Literal["exact", "minhash"]  # exact misses no pair
    against: float  # share of the shorter text from which a row counts as one that must not be trained on
    semantic: float  # cosine from which pairs are suggested (never removed); 0: off
    restored: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupInputs:
    examples: Path
    against: Path | None = None  # a folder of texts that must not be trained on
    sealed: Path | None = None  # an earlier data set, whose test set must not be trained on
    previous: Path | None = None  # the last data set: a new copy does not take the place of one of its rows
    encoder: Path | None = None  # the model folder of sentence embeddings, where semantic is on


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupOutputs:
    examples: Path = field(metadata={"kind": "examples"})


DEDUP = Stage(
    name="dedup",
    version=2,
    function="tunesmith.data.near.dedup:dedup",
    spec=DedupSpec,
    inputs=DedupInputs,
    outputs=DedupOutputs,
)
