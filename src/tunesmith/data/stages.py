"""The two stages of the data room, without their code: what they take, what they give, what decides the result.

check    the user's files -> examples, one canonical row each, and everything left out with its reason
prepare  examples -> train, validation and sealed test rows that fit the model's context
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.core.nouns import Kind
from tunesmith.core.stage import Stage

GENERAL = "texts or conversations"  # a CheckSpec.shape: each file is the one or the other, found from its first rows


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSpec:
    """How raw rows become examples."""

    kind: Kind
    text: str | None  # column with the input; None: the shape is detected from the first rows
    label: str | None  # column with the answer
    group: str | None  # column whose values must not straddle a split
    weight: str | None  # column with how much a row counts in the loss; None: every row counts 1
    shape: str | None  # a name in data/shapes, stated by the project; None: found from the first rows
    query: str | None  # one SELECT over the source files, instead of reading them whole
    sheet: str | None  # of spreadsheets with several
    keep: tuple[str, ...]  # further columns kept in Row.fields
    labels: tuple[str, ...]  # declared classes; empty: those seen in the data
    variants: dict[str, str]  # spellings that a later step maps to a label: known here, and no contradiction
    unlabelled: Literal["refuse", "keep"]  # rows of classify without a label; kept ones wait for people
    forgotten: tuple[str, ...]  # tombstones of rows that were erased: they do not come back
    bad_rows: Literal["refuse", "leave_out"]
    duplicates: Literal["leave_out", "keep"]  # same text and same answer after normalisation
    contradictions: Literal["refuse", "leave_out"]  # same text, different answer (classify and extract)
    min_class_rows: int  # fewer make a class small: a finding here, a policy in prepare
    restored: tuple[str, ...]  # keys of duplicates and contradictions that a person keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInputs:
    source: Path
    made: Path | None = None  # corpus.jsonl and pairs.jsonl that earlier steps made from documents


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutputs:
    examples: Path = field(metadata={"kind": "examples"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSpec:
    """How examples become a data set for one model."""

    kind: Kind
    labels: tuple[str, ...]  # declared classes; empty: those seen in the data
    train: float  # shares of the rows asked for; they add up to 1
    validation: float
    test: float
    by: Literal["random", "stratified", "group", "time", "field", "kfold"]
    near: float  # Jaccard of word pairs from which rows are never parted; 0: near-duplicates play no part
    time_field: str | None  # the kept field with the time, for by: time
    field: str | None  # the kept field whose `test_values` are the test set, for by: field
    test_values: tuple[str, ...]
    folds: int  # for by: kfold; fold `fold` tests, the next one validates
    fold: int
    salt: str  # another salt gives another placement
    max_deviation: float  # largest allowed difference between a share and the one asked for
    small_classes: Literal["refuse", "keep"]
    min_class_rows: int
    limit: int | None  # a seeded subset of this many rows
    seed: int  # of the subset
    max_tokens: int  # longest example, prompt and answer
    over_long: Literal["refuse", "leave_out"]
    system: str  # system prompt that the tokens are counted with
    restored: tuple[str, ...]  # keys of rows that a person wants kept


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareInputs:
    examples: Path
    base: Path  # the model folder, for its tokenizer and chat template
    previous: Path | None = None  # the last data set: its rows keep their splits


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOutputs:
    dataset: Path = field(metadata={"kind": "dataset"})


CHECK = Stage(
    name="check",
    version=3,
    function="tunesmith.data.check:check",
    spec=CheckSpec,
    inputs=CheckInputs,
    outputs=CheckOutputs,
)
PREPARE = Stage(
    name="prepare",
    version=2,
    function="tunesmith.data.prepare:prepare",
    spec=PrepareSpec,
    inputs=PrepareInputs,
    outputs=PrepareOutputs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSpec:
    """Fewer training rows, beside the same validation and test rows."""

    rows: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetInputs:
    dataset: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetOutputs:
    dataset: Path = field(metadata={"kind": "dataset"})


SUBSET = Stage(
    name="subset",
    version=1,
    function="tunesmith.data.smaller:smaller",
    spec=SubsetSpec,
    inputs=SubsetInputs,
    outputs=SubsetOutputs,
)
