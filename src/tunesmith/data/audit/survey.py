"""What must be known of all rows before one of them can be judged: two passes that keep numbers and hashes only."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.audit.balance import Lengths, lengths_of, small_classes
from tunesmith.data.audit.bias import Association, Mentions, groups_in
from tunesmith.data.audit.language import READ, UNDETERMINED, identifier, identify_all
from tunesmith.data.audit.leakage import EXTRACTIVE, LabelWords, copied_answer
from tunesmith.data.audit.reading import words_of
from tunesmith.data.audit.stages import AuditSpec
from tunesmith.data.audit.texts import texts_of
from tunesmith.data.audit.triggers import Triggers
from tunesmith.data.step import EVERY

TOGETHER = 1_000  # texts whose languages are told at once
BYTES_A_WORD = 6  # of rows.jsonl, for the size of the table of n-grams


@dataclass(slots=True)
class Survey:
    rows: int = 0
    characters: array[int] = field(default_factory=lambda: array("I"))  # of each row
    labels: Counter[str] = field(default_factory=Counter)
    language_of: array[int] = field(default_factory=lambda: array("H"))  # of each row, a number in `language_names`
    language_names: dict[str, int] = field(default_factory=dict)
    copied: int = 0  # rows with their answer in their question
    mentions: Mentions = field(default_factory=Mentions)
    label_words: LabelWords | None = None
    triggers: Triggers | None = None
    lengths: Lengths | None = None  # of too few rows there is none
    leaky_labels: frozenset[str] = frozenset()
    small: frozenset[str] = frozenset()  # classes
    expected: frozenset[str] = frozenset()  # languages
    associations: list[Association] = field(default_factory=list)  # those that passed the test
    associations_tested: int = 0
    _names: tuple[str, ...] = ()

    def language(self, i: int) -> str:
        """Of row i, in file order."""
        if not self._names:
            self._names = tuple(self.language_names)
        return self._names[self.language_of[i]] if i < len(self.language_of) else UNDETERMINED

    def languages(self) -> Counter[str]:
        counts = Counter(self.language_of)
        return Counter({name: counts[number] for name, number in self.language_names.items()})

    @property
    def is_extractive(self) -> bool:
        """Answers are taken from the questions in so many rows that this is the task."""
        return self.copied > EXTRACTIVE * max(self.rows, 1)


def survey_rows(spec: AuditSpec, rows_file: Path, work: Workspace) -> Survey:
    survey = Survey()
    classify = spec.kind == "classify"
    if spec.triggers != "off":
        survey.triggers = Triggers(classify, rows_file.stat().st_size // BYTES_A_WORD)
    _first_pass(spec, rows_file, work, survey)
    survey.lengths = lengths_of(survey.characters)
    if classify:
        survey.small = small_classes(survey.labels, spec.max_imbalance)
        survey.label_words = LabelWords(tuple(sorted(survey.labels)))
    if survey.triggers is not None:
        survey.triggers.settle()
    if survey.triggers is not None or (classify and spec.leakage != "off"):
        _second_pass(spec, rows_file, work, survey)
    survey.expected = _expected(spec, survey.languages())
    tested = survey.mentions.associations()
    survey.associations_tested = len(tested)
    survey.associations = [a for a in tested if a.q <= spec.alpha]
    return survey


def _first_pass(spec: AuditSpec, rows_file: Path, work: Workspace, survey: Survey) -> None:
    classify = spec.kind == "classify"
    starts: list[str] = []  # of texts whose language is not known yet
    if spec.languages != "off":
        identifier()  # missing, it is missed before anything is read
    for row in _rows(rows_file, work, "audit: survey"):
        survey.rows += 1
        text = row.example.input
        survey.characters.append(min(sum(len(t) for _, t in texts_of(row)), 0xFFFFFFFF))
        if classify:
            survey.labels[row.target] += 1
        elif row.messages and spec.leakage != "off":
            survey.copied += copied_answer(text, row.target) is not None
        if spec.languages != "off":
            starts.append(text[: 2 * READ])
            if len(starts) == TOGETHER:
                _note_languages(survey, starts)
        if spec.bias == "off" and survey.triggers is None:
            continue
        words = words_of(text.lower())
        if spec.bias != "off":
            survey.mentions.note(groups_in(words), row.target if classify else None)
        if survey.triggers is not None and row.messages:
            survey.triggers.note(words, row.target)
    _note_languages(survey, starts)


def _note_languages(survey: Survey, starts: list[str]) -> None:
    for code, _ in identify_all(starts):
        survey.language_of.append(survey.language_names.setdefault(code, len(survey.language_names)))
    starts.clear()


def _second_pass(spec: AuditSpec, rows_file: Path, work: Workspace, survey: Survey) -> None:
    for row in _rows(rows_file, work, "audit: compare"):
        lower = row.example.input.lower()
        words = words_of(lower)
        if survey.label_words is not None and spec.leakage != "off":
            survey.label_words.note(lower, words, row.target)
        if survey.triggers is not None and row.messages:
            survey.triggers.weigh(words, row.target)
    if survey.label_words is not None:
        survey.leaky_labels = survey.label_words.leaky()
    if survey.triggers is not None:
        survey.triggers.finish()


def _expected(spec: AuditSpec, counts: Counter[str]) -> frozenset[str]:
    if spec.expected_languages:
        return frozenset(spec.expected_languages)
    told = counts.total() - counts[UNDETERMINED]
    return frozenset(c for c, n in counts.items() if c != UNDETERMINED and n >= spec.min_language_share * told)


def _rows(rows_file: Path, work: Workspace, label: str) -> Iterator[Row]:
    decode: Callable[[bytes], Row] = msgspec.json.Decoder(Row).decode
    total, seen = max(rows_file.stat().st_size, 1), 0
    with open(rows_file, "rb") as f:
        for i, line in enumerate(f, start=1):
            seen += len(line)
            if i % EVERY == 0:
                work.stop_if_asked()
                work.progress(seen, total, label, rows=i)
            yield decode(line)
