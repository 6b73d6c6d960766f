"""The stage augment, without its code: what it takes, what it gives, what decides the result.

augment  dataset -> dataset: training rows joined by marked copies and weighed; the other splits as they are
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSpec:
    """One kind of noise; each chosen row gets one noisy copy."""

    kind: Literal["typos", "case", "format"]
    share: float  # of the training rows that get a copy, in [0, 1]; chosen by hash
    rate: float  # of the words (format: of the places) that are touched in it, in (0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParaphraseSpec:
    """Copies in other words, written by a teacher."""

    how: Literal["paraphrase", "back_translation"]
    share: float  # of the training rows that get copies
    copies: int  # of each chosen row
    language: str  # the language that back-translation goes through
    ask: str  # "module:function": called with the teacher's settings, gives ask(messages) -> text
    teacher: dict[str, str | int | float]  # its settings: url, model, temperature; no secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSpec:
    """How the training rows are added to."""

    kind: Kind
    labels: tuple[str, ...]  # declared classes; empty: those seen in the data
    balance: Literal["off", "weights", "sample"]
    balance_most: float  # a class counts at most so many times as much as it has rows
    noise: tuple[NoiseSpec, ...]
    paraphrase: ParaphraseSpec | None
    near: float  # Jaccard of word shingles from which a copy is too near a validation or test row
    ablation: int  # training rows for measuring the effect on validation with the cheap model; 0: not measured
    seed: int
    max_tokens: int  # longest example, prompt and answer; longer copies are refused
    system: str  # system prompt that the tokens are counted with


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentInputs:
    dataset: Path
    base: Path  # the model folder, for its tokenizer and chat template


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOutputs:
    dataset: Path = field(metadata={"kind": "dataset"})


AUGMENT = Stage(
    name="augment",
    version=1,
    function="tunesmith.data.augment.augment:augment",
    spec=AugmentSpec,
    inputs=AugmentInputs,
    outputs=AugmentOutputs,
)
