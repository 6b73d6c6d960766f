"""The stage audit, without its code: what it takes, what it gives, what decides the result.

audit  examples -> the same examples, with findings.jsonl and audit.json beside them; redacted, replaced by
       pseudonyms or left out where a policy says so
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage

Policy = Literal["off", "flag", "redact", "pseudonym", "drop"]
ContentPolicy = Literal["off", "flag", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSpec:
    """What is looked for, and what is done about it."""

    kind: Kind
    restored: tuple[str, ...]  # keys of rows and changes that a person brought back
    policies: dict[str, Policy]  # of catalogue.PII; a kind that is not named is not looked for
    salt: str  # of pseudonyms: keep it, and the same person keeps the same one
    regions: tuple[str, ...]  # ISO countries whose phone numbers count without a country code: ("US", "GB")
    min_score: float  # surer findings of personal data count
    toxicity: ContentPolicy
    max_toxicity: float  # probability from which a text counts as toxic
    languages: ContentPolicy
    expected_languages: tuple[str, ...]  # ISO 639-1; empty: those of at least `min_language_share` of the rows
    min_language_share: float
    injection: ContentPolicy  # phrases that address the model, jailbreak markers, special tokens of chat templates
    leakage: ContentPolicy  # the answer stands in the question
    damage: ContentPolicy  # near-empty rows, broken encodings, long repetition
    triggers: ContentPolicy  # rare words that decide the answer against the rest of the row
    outliers: Literal["off", "flag"]  # lengths far from the others
    outlier_z: float  # robust z of the logarithm of the length
    balance: Literal["off", "flag"]
    max_imbalance: float  # largest class over smallest
    bias: Literal["off", "flag"]  # group terms and labels; counterfactuals.jsonl
    max_counterfactuals: int  # pairs written; audit.json says whether there were more
    alpha: float  # of the tests of association, after correction


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditInputs:
    examples: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutputs:
    examples: Path = field(metadata={"kind": "examples"})


AUDIT = Stage(
    name="audit",
    version=1,
    function="tunesmith.data.audit.audit:audit",
    spec=AuditSpec,
    inputs=AuditInputs,
    outputs=AuditOutputs,
)
