"""Answers that stand in the question: a model trained on them learns to copy, and its test score means nothing.

For classes a label word in the text is not a leak by itself: "sport" is in many texts about sport. It is one where
the word is in most texts of its class and next to nowhere else, or where the text says "label: sport".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tunesmith.data.audit.spans import Span

MIN_TARGET = 20  # characters of an answer that cannot stand in the question by chance
EXTRACTIVE = 0.3  # share of rows with their answer in the question from which that is the task, not a leak
MIN_ROWS = 5  # rows with a label's word
MIN_COVERAGE = 0.5  # of the texts of a class hold its word
MIN_PRECISION = 0.9  # of the texts with the word have the class
MAX_LABELS = 1_000  # more are answers, not classes
_WORD = re.compile(r"\w+")
_MARKER = r"(?:label|class|category|categor(?:ie|ía)|answer|target|gold|ground truth|sentiment|topic|kategorie|klasse|étiquette)"


def copied_answer(text: str, target: str) -> Span | None:
    """Where the whole answer stands in the text, spaces and case aside; None for short answers."""
    answer = target.strip()
    if len(answer) < MIN_TARGET:
        return None
    at = text.find(answer)
    if at < 0:
        at = text.lower().find(answer.lower()) if len(text.lower()) == len(text) else -1
    if at < 0:
        return None
    return Span(at, at + len(answer), "leakage", "answer_in_text", 1.0)


@dataclass(slots=True)
class LabelWords:
    """Counts, for each label, of the texts that hold its words. `note` each row, then ask `leaky`."""

    labels: tuple[str, ...]
    rows: Counter[str] = field(default_factory=Counter)  # by label
    hits: Counter[str] = field(default_factory=Counter)  # texts with the label's words
    own: Counter[str] = field(default_factory=Counter)  # of them, those with that label
    _single: dict[str, list[str]] = field(default_factory=dict)  # word -> labels
    _phrases: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.labels) > MAX_LABELS:
            return
        for label in self.labels:
            words = _WORD.findall(label.lower())
            if len(words) == 1 and len(words[0]) > 1:
                self._single.setdefault(words[0], []).append(label)
            elif words:
                self._phrases.append((label.lower().strip(), label))

    def present(self, lower: str, words: Iterable[str]) -> list[str]:
        """Labels whose words are in the text."""
        found = [label for word in set(words) & self._single.keys() for label in self._single[word]]
        found += [label for phrase, label in self._phrases if phrase in lower]
        return sorted(found)

    def note(self, lower: str, words: Iterable[str], label: str) -> None:
        self.rows[label] += 1
        for found in self.present(lower, words):
            self.hits[found] += 1
            self.own[found] += found == label

    def leaky(self) -> frozenset[str]:
        """Labels that their texts give away."""
        return frozenset(
            label
            for label in self.labels
            if self.own[label] >= MIN_ROWS
            and self.own[label] >= MIN_COVERAGE * self.rows[label]
            and self.own[label] >= MIN_PRECISION * self.hits[label]
            and len(self.rows) > 1
        )

    def facts(self) -> dict[str, dict[str, float | int]]:
        """For people: how often each label's word is in its own and in other classes' texts."""
        total = self.rows.total()
        return {
            label: {
                "rows": self.rows[label],
                "texts_with_word": self.hits[label],
                "of_them_this_label": self.own[label],
                "base_rate": round(self.rows[label] / total, 6) if total else 0.0,
            }
            for label in self.labels
            if self.hits[label]
        }


def label_span(text: str, label: str, *, leaky: bool) -> Span | None:
    """Where the text names its own label: after a marker always, elsewhere only if the label is `leaky`."""
    if text.isascii() and label.isascii() and label.strip().lower() not in text.lower():
        return None  # most texts; the patterns are slow
    name = re.escape(label.strip())
    marked = re.search(rf"\b{_MARKER}\s*(?:[:=]|is)\s*[\"'\[(]?({name})(?!\w)", text, re.IGNORECASE)
    if marked:
        return Span(marked.start(1), marked.end(1), "leakage", "label_after_marker", 1.0)
    if leaky:
        plain = re.search(rf"(?<!\w){name}(?!\w)", text, re.IGNORECASE)
        if plain:
            return Span(plain.start(), plain.end(), "leakage", "label_in_text", 0.9)
    return None
