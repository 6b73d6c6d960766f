"""How likely a text is toxic: the linear model of alt-profanity-check (MIT), its numbers read, its pickle never run.

TF-IDF of the words, five calibrated linear SVMs, their mean probability: what the package's own predict_prob
gives, to the last digits. It was trained on English comments; other languages score low whatever they say, and
words that name a group score higher than they should: a flag is a reason to look, not a verdict.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import InputError
from tunesmith.data.audit.inert_pickle import NotInert, Thing, read_inert

PACKAGE = "profanity_check"
_WORD = re.compile(r"\b\w\w+\b")


class Toxicity:
    """`probability(text)` in 0..1."""

    def __init__(self, words: dict[str, int], idf: Any, weights: Any, bias: Any, slope: Any, shift: Any) -> None:
        self._words = words
        self._idf = idf  # [words]
        self._weights = weights  # [words, folds], times idf
        self._bias, self._slope, self._shift = bias, slope, shift  # [folds]
        self._bounds = {  # by word: squared idf, and the weight of the fold that likes it best
            word: (float(idf[i]) ** 2, float(w))
            for (word, i), w in zip(words.items(), weights.max(axis=1)[list(words.values())], strict=True)
        }
        self._folds = tuple(zip(bias.tolist(), slope.tolist(), shift.tolist(), strict=True))

    def probability(self, text: str) -> float:
        return self.of_words(_WORD.findall(text.lower()))

    def if_at_least(self, words: list[str], limit: float) -> float | None:
        """The probability where it reaches `limit`, None below. Most texts are settled by a bound, without numpy."""
        squares = reach = 0.0
        bounds = self._bounds
        for word, count in Counter(words).items():
            if word in bounds:
                square, weight = bounds[word]
                squares += count * count * square
                reach += count * weight
        margin = reach / math.sqrt(squares) if squares else 0.0
        bound = sum(1 / (1 + math.exp(slope * (margin + bias) + shift)) for bias, slope, shift in self._folds)
        if bound < (limit - 1e-9) * len(self._folds):
            return None
        probability = self.of_words(words)
        return probability if probability >= limit else None

    def of_words(self, words: list[str]) -> float:
        """The same from the words of a text in lower case; words of one letter do not count."""
        index = self._words
        counts = Counter(index[w] for w in words if w in index)
        if not counts:
            margin = self._bias
        else:
            at = np.fromiter(counts.keys(), dtype=np.int64, count=len(counts))
            tf = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
            norm = math.sqrt(float(((tf * self._idf[at]) ** 2).sum()))
            margin = tf @ self._weights[at] / norm + self._bias
        return float((1 / (1 + np.exp(self._slope * margin + self._shift))).mean())


@lru_cache(maxsize=1)
def load() -> Toxicity:
    """Raises InputError if the package is missing or its files are of another form."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "alt-profanity-check is not installed, and scoring toxicity needs its numbers",
            fix='pip install "tunesmith[audit]", or set data.audit.toxicity: off',
        )
    folder = Path(spec.origin).parent / "data"
    try:
        return _assemble(
            read_inert((folder / "vectorizer.joblib").read_bytes()), read_inert((folder / "model.joblib").read_bytes())
        )
    except (NotInert, OSError, KeyError, AttributeError, IndexError) as e:
        raise InputError(
            f"the files of alt-profanity-check are of an unknown form ({e})",
            fix="install version 1.9.1 of it, or set data.audit.toxicity: off",
        ) from e


def _assemble(vectorizer: Thing, model: Thing) -> Toxicity:
    words: dict[str, int] = {str(w): int(i) for w, i in vectorizer.state["vocabulary_"].items()}
    idf = np.asarray(vectorizer.state["_tfidf"].state["idf_"], dtype=np.float64)
    folds = [c.state for c in model.state["calibrated_classifiers_"]]
    machines = [f["estimator"].state for f in folds]
    sigmoids = [f["calibrators"][0].state for f in folds]
    weights = np.stack([np.asarray(m["coef_"], dtype=np.float64)[0] for m in machines], axis=1)
    return Toxicity(
        words,
        idf,
        weights * idf[:, None],
        np.array([float(m["intercept_"][0]) for m in machines]),
        np.array([float(s["a_"]) for s in sigmoids]),
        np.array([float(s["b_"]) for s in sigmoids]),
    )
