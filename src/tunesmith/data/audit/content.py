"""What a row's content is judged by, apart from personal data: each check gives (field, span) of what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tunesmith.core.nouns import Row
from tunesmith.data.audit import bias, damage, injection, toxicity
from tunesmith.data.audit.language import UNDETERMINED
from tunesmith.data.audit.leakage import copied_answer, label_span
from tunesmith.data.audit.reading import Reading
from tunesmith.data.audit.spans import Span
from tunesmith.data.audit.stages import AuditSpec
from tunesmith.data.audit.survey import Survey
from tunesmith.data.audit.texts import input_field
from tunesmith.data.audit.triggers import Triggers

Found = tuple[str, Span]  # field, span


@dataclass(frozen=True, slots=True)
class TextChecks:
    """The checks that need no more than one text: what `data look` runs too."""

    toxicity: bool
    max_toxicity: float
    injection: bool
    damage: bool

    def find(self, reading: Reading, *, is_input: bool, is_system: bool) -> Iterator[Span]:
        text, words = reading.text, reading.words
        if self.damage:
            yield from damage.find(text, words, is_input=is_input)
        if self.injection:
            if not is_system:  # a system prompt is there to instruct
                yield from injection.find_phrases(reading)
            yield from injection.find_special_tokens(text)
        if self.toxicity:
            probability = toxicity.load().if_at_least(words, self.max_toxicity)
            if probability is not None:
                yield Span(0, len(text), "toxicity", "toxicity", probability)


@dataclass(slots=True)
class RowChecks:
    """`find(row, texts, i)`: every finding of row i, the survey of all rows known."""

    spec: AuditSpec
    survey: Survey
    each: TextChecks = field(init=False)
    _with_group: dict[str, list[bias.Association]] = field(init=False)  # by label

    def __post_init__(self) -> None:
        spec = self.spec
        self.each = TextChecks(
            toxicity=spec.toxicity != "off",
            max_toxicity=spec.max_toxicity,
            injection=spec.injection != "off",
            damage=spec.damage != "off",
        )
        self._with_group = {}
        for association in self.survey.associations:
            self._with_group.setdefault(association.label, []).append(association)

    def find(self, row: Row, texts: list[tuple[str, Reading]], i: int) -> Iterator[Found]:
        """In order of the fields, then of what concerns the whole row."""
        asked = input_field(row)
        classify = self.spec.kind == "classify"
        roles = {f"messages[{n}].content": message.role for n, message in enumerate(row.messages)}
        for name, reading in texts:
            if (classify and name == "target") or name == "rejected" or name.startswith("fields."):
                continue  # a label is no text; a rejected answer is bad on purpose
            is_input = name == asked or (name == "target" and asked is None)
            for span in self.each.find(reading, is_input=is_input, is_system=roles.get(name) == "system"):
                yield name, span
            if is_input:
                for span in self._of_input(row, reading, i):
                    yield name, span
        yield from self._of_row(row, texts, asked or "target", i)

    def _of_input(self, row: Row, reading: Reading, i: int) -> Iterator[Span]:
        spec, survey, text = self.spec, self.survey, reading.text
        code = survey.language(i)
        if spec.languages != "off" and code != UNDETERMINED and code not in survey.expected:
            yield Span(0, len(text), "language", code, 1.0)
        if spec.leakage != "off":
            yield from self._leaks(row, text)
        if survey.triggers is not None and row.messages:
            yield from _trigger_spans(survey.triggers, reading)
        if spec.bias != "off":
            for association in self._with_group.get(row.target, ()):
                group = (association.dimension, association.group)
                if group in bias.groups_in(reading.vocabulary):
                    for span in bias.terms_in(text, group):
                        yield span._replace(score=min(1.0, max(0.0, 1 - association.q)))

    def _leaks(self, row: Row, text: str) -> Iterator[Span]:
        kind, survey = self.spec.kind, self.survey
        if kind == "classify":
            span = label_span(text, row.target, leaky=row.target in survey.leaky_labels)
        elif kind in ("extract", "summarize", "domain") or survey.is_extractive:
            span = None  # taking the answer from the text is the task
        else:
            span = copied_answer(text, row.target)
        if span is not None:
            yield span

    def _of_row(self, row: Row, texts: list[tuple[str, Reading]], asked: str, i: int) -> Iterator[Found]:
        if self.spec.outliers != "off" and self.survey.lengths is not None:
            z = self.survey.lengths.z(self.survey.characters[i])
            if abs(z) > self.spec.outlier_z:
                text = dict(texts)[asked].text
                what = "long" if z > 0 else "short"
                yield asked, Span(0, len(text), "length_outlier", what, min(1.0, abs(z) / (2 * self.spec.outlier_z)))
        if self.spec.balance != "off" and row.target in self.survey.small:
            yield "target", Span(0, len(row.target), "small_class", "small_class", 1.0)


def _trigger_spans(triggers: Triggers, reading: Reading) -> Iterator[Span]:
    text, words = reading.text, reading.words
    found = triggers.places_in(words)
    if not found:
        return
    at, starts, lower = 0, [], reading.lower
    for word in words:
        at = lower.index(word, at)
        starts.append((at, at + len(word)))
        at += len(word)
    same = len(lower) == len(text)  # lower-casing a few letters changes the length, and with it every position
    spans = {(starts[i][0], starts[i + n - 1][1]) if same else (0, len(text)) for _, i, n in found}
    for start, end in sorted(spans):
        if not any(s <= start and end <= e and (s, e) != (start, end) for s, e in spans):
            yield Span(start, end, "trigger", "rare_phrase", 0.9)
