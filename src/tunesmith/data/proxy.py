"""The cheap model that stands for the real one: words and pairs of words, TF-IDF, logistic regression.

What it is good for: ranking probable label errors, comparing data sets, drawing a learning curve in a minute.
What it cannot tell: how well a fine-tuned model will do. Shapes: N rows, F features, K classes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.model.classical import text_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
FEATURES = 65_536  # words and pairs kept, the commonest; the optimizer holds some 20 numbers for each and class
STRENGTH = 10.0  # inverse regularisation
STEPS = 500  # of the optimizer at most


def row_text(row: Row) -> str:
    """What the proxy reads of a row: the user's turns, or the text itself where there are none."""
    return text_of(row.messages) or row.target


def rank_of(text: str, salt: str) -> int:
    """A number in [0, 2^64) that depends on nothing but the text and the salt: seeded, whatever the order of rows."""
    return int.from_bytes(blake2b(f"{salt}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES, dtype=np.float32)


def features(texts: Iterable[str]) -> tuple[Any, Any]:
    """(N, F) sparse, and the fitted vectorizer. The texts may come from a file: they are not held.
    Raises DataError where they hold no word of two letters."""
    found = vectorizer()
    try:
        return found.fit_transform(texts), found
    except ValueError as e:  # scikit-learn's "empty vocabulary"
        raise DataError(f"there are no words to learn from: {e}", fix="check the text column") from e


def fit(x: Any, y: Ints, *, seed: int, weights: Floats | None = None, steps: int = STEPS) -> Any:
    """Multinomial logistic regression on at least two classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=steps, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a proxy; the rows decide, not the optimum
        return model.fit(x, y, sample_weight=weights)


def probabilities(model: Any, x: Any, classes: int) -> Floats:
    """(N, K), 0 for classes that training never showed."""
    found = np.zeros((x.shape[0], classes))
    found[:, model.classes_] = model.predict_proba(x)
    return found


def grouped_folds(groups: Sequence[str], classes: Sequence[int], *, folds: int, salt: str) -> Ints:
    """(N,) the fold of each row: no group in two folds, classes spread evenly, whatever the order of the rows.

    Groups are dealt out in turn, class by class (that of most of a group's rows), in the order of their hashes.
    """
    members: dict[str, Counter[int]] = {}
    for group, label in zip(groups, classes, strict=True):
        members.setdefault(group, Counter())[label] += 1
    main = {g: min(c, key=lambda label: (-c[label], label)) for g, c in members.items()}
    order = sorted(members, key=lambda g: (main[g], rank_of(g, salt), g))
    fold = {g: i % folds for i, g in enumerate(order)}
    return np.fromiter((fold[g] for g in groups), np.int64, len(groups))


def out_of_fold(
    x: Any, y: Ints, fold: Ints, *, classes: int, seed: int, steps: int = STEPS
) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, K) probabilities by models that did not see the row's group, and (N,) whether they mean anything:
    False where a row's class is in no other fold, since no model could then have known it."""
    found = np.zeros((x.shape[0], classes))
    known = np.zeros(x.shape[0], dtype=bool)
    for k in np.unique(fold):
        held, taught = fold == k, fold != k
        seen = np.unique(y[taught])
        known |= held & np.isin(y, seen)
        if len(seen) == 1:
            found[held, seen[0]] = 1.0
        elif len(seen):
            found[held] = probabilities(fit(x[taught], y[taught], seed=seed, steps=steps), x[held], classes)
    return found, known
