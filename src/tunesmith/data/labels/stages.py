"""The stage label, without its code: what it takes, what it gives, what decides the result.

label    examples, judgments -> examples with the labels people agreed on, and label_errors.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpec:
    """How labels are put right."""

    kind: Kind
    labels: tuple[str, ...]  # declared classes; empty: those seen in the data
    variants: dict[str, str]  # label as it stands in the data -> label it is to be; nothing else is merged
    queues: tuple[str, ...]  # queues whose judgments decide labels; empty: all
    method: Literal["majority", "dawid_skene"]
    threshold: float  # a consensus less probable than this is disputed
    disputed: Literal["leave_out", "keep"]  # kept rows keep the label of the data
    errors: int  # probable label errors to list; 0: none are looked for
    errors_rows: int  # rows looked at at most, drawn by group with `seed`; the others are counted
    folds: int  # of the out-of-fold probabilities
    seed: int
    restored: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelInputs:
    examples: Path
    judgments: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOutputs:
    examples: Path = field(metadata={"kind": "examples"})


LABEL = Stage(
    name="label",
    version=1,
    function="tunesmith.data.labels.label:label",
    spec=LabelSpec,
    inputs=LabelInputs,
    outputs=LabelOutputs,
)
