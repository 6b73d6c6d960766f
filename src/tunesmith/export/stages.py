"""The bundle stage's contract; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSpec:
    name: str  # the project's name, for the card
    kind: str
    audience: str
    tone: str
    system: str  # the default system prompt it was trained with
    base_name: str  # catalogue or hub name
    base_artifact: str
    base_files: dict[str, dict[str, Any]]  # path -> {"sha256", "bytes"}
    base_license: str
    precision: str  # of the evaluated answers: fp32 or bf16
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInputs:
    checkpoint: Path
    base: Path
    dataset: Path
    report: Path
    verdict: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleOutputs:
    bundle: Path = field(metadata={"kind": "bundle"})


BUNDLE = Stage(
    name="bundle",
    version=1,
    function="tunesmith.export.bundle:bundle",
    spec=BundleSpec,
    inputs=BundleInputs,
    outputs=BundleOutputs,
)
