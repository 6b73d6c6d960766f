"""Two cheap opponents that a tuned model has to beat: the commonest class, and TF-IDF with logistic regression.

Same `choose` as LanguageModel; probabilities are in the order of the labels given there, 0 for a class
that training never showed. `batch_tokens` is there for the shared signature; nothing here is batched by tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Answer, Message, Row
from tunesmith.core.stage import Clock

STRENGTHS = (1.0, 10.0, 100.0)  # inverse regularisation tried, in the order that settles ties


class Majority:
    """Always the commonest class of the training rows, with the classes' shares as probabilities."""

    def __init__(self, shares: dict[str, float]) -> None:
        self.shares = shares

    @classmethod
    def fit(cls, rows: Sequence[Row], labels: Sequence[str]) -> Majority:
        """Raises DataError without rows. Where two classes are equally common the earlier label wins."""
        if not rows:
            raise DataError("there are no training rows", fix="add rows")
        counts = Counter(row.target for row in rows)
        return cls({label: counts[label] / len(rows) for label in labels})

    def choose(
        self, prompts: Sequence[Sequence[Message]], labels: Sequence[str], *, batch_tokens: int = 0
    ) -> list[Answer]:
        total = sum(self.shares.get(label, 0.0) for label in labels)
        probabilities = np.array([self.shares.get(label, 0.0) for label in labels]) / (total or 1.0)
        return [_answer(labels, probabilities, 0.0) for _ in prompts]


class TfidfLogistic:
    """Words and pairs of words, sublinear TF-IDF, multinomial logistic regression."""

    def __init__(self, pipeline: Any, classes: Sequence[str], strength: float) -> None:
        self._pipeline = pipeline
        self._classes = list(classes)
        self.strength = strength  # the C that validation chose

    @classmethod
    def fit(
        cls, train_rows: Sequence[Row], validation_rows: Sequence[Row], labels: Sequence[str], seed: int
    ) -> TfidfLogistic:
        """C from {1, 10, 100} by macro-F1 on validation, over the labels seen there; ties go to the smaller.

        Raises DataError unless training shows two classes and at least one word.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import f1_score
        from sklearn.pipeline import make_pipeline

        if len({row.target for row in train_rows}) < 2:
            raise DataError("the training rows show one class only", fix="add rows of at least one other class")
        texts, targets = [text_of(row.messages) for row in train_rows], [row.target for row in train_rows]
        asked, wanted = [text_of(row.messages) for row in validation_rows], [row.target for row in validation_rows]
        seen = [label for label in labels if label in set(wanted)]
        best: tuple[float, TfidfLogistic] | None = None
        for strength in STRENGTHS:
            pipeline = make_pipeline(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                LogisticRegression(C=strength, max_iter=2000, random_state=seed),
            )
            try:
                pipeline.fit(texts, targets)
            except ValueError as e:  # scikit-learn's "empty vocabulary"
                raise DataError(f"TF-IDF found no words to learn from: {e}", fix="check the text column") from e
            score = 0.0
            if seen:
                score = f1_score(wanted, pipeline.predict(asked), labels=seen, average="macro", zero_division=0)
            if best is None or score > best[0]:
                best = (score, cls(pipeline, pipeline[-1].classes_, strength))
        assert best is not None
        return best[1]

    def choose(
        self, prompts: Sequence[Sequence[Message]], labels: Sequence[str], *, batch_tokens: int = 0
    ) -> list[Answer]:
        clock = Clock()
        if not prompts:
            return []
        found = self._pipeline.predict_proba([text_of(p) for p in prompts])
        place = {name: i for i, name in enumerate(self._classes)}
        table = np.zeros((len(prompts), len(labels)))
        for k, label in enumerate(labels):
            if label in place:
                table[:, k] = found[:, place[label]]
        share = clock.seconds / len(prompts)
        return [_answer(labels, row / (row.sum() or 1.0), share) for row in table]


def text_of(messages: Sequence[Message]) -> str:
    """What the user wrote, all turns; the system prompt is the same for every row and tells nothing."""
    return "\n".join(m.content for m in messages if m.role == "user")


def _answer(labels: Sequence[str], probabilities: np.ndarray, seconds: float) -> Answer:
    best = int(probabilities.argmax())
    return Answer(
        text=labels[best],
        probabilities=tuple(map(float, probabilities)),
        confidence=float(probabilities[best]),
        seconds=seconds,
        finish="label",
    )
