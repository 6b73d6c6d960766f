"""Scores of a classifier, equal to scikit-learn's with fixed `labels=` and zero_division=0.

Shapes: N items, C declared labels, J judged ones. An answer that is none of the labels after trimming
white space is unparseable: wrong, and counted in a column of its own. Nothing else is forgiven: a
near miss that a program downstream would not accept is not accepted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.sums import Array, Items, Sums, divide, mean_of

Codes = NDArray[np.int64]
TO_THE_RAREST = 0.25  # by simulation: the smallest share with which upper bounds cover 95 % of 22 small classes


def codes(items: Items) -> tuple[Codes, Codes]:
    """Truth and prediction as label indices (N,), C standing for unparseable (or for an undeclared truth)."""
    index = {label: i for i, label in enumerate(items.labels)}
    other = len(items.labels)
    truth = np.fromiter((index.get(t, other) for t in items.targets), np.int64, len(items.targets))
    said = np.fromiter((index.get(a.strip(), other) for a in items.answers), np.int64, len(items.answers))
    return truth, said


def confusion(items: Items) -> NDArray[np.int64]:
    """(C, C + 1): rows truth, columns prediction, the last column unparseable."""
    truth, said = codes(items)
    size = len(items.labels) + 1
    counts = np.bincount(truth * size + said, minlength=size * size).reshape(size, size)
    return counts[:-1]


def per_class(items: Items, labels: Sequence[str]) -> Array:
    """(N, 3, J): each item's hits, truths and predictions for each of `labels`."""
    truth, said = codes(items)
    index = {label: i for i, label in enumerate(items.labels)}
    wanted = np.array([index[label] for label in labels], dtype=np.int64)
    is_truth = truth[:, None] == wanted[None, :]
    is_said = said[:, None] == wanted[None, :]
    return np.stack([is_truth & is_said, is_truth, is_said], axis=1).astype(np.float64)


def accuracy(items: Items) -> Sums:
    """Share of right answers over all items, judged or not."""
    truth, said = codes(items)
    return mean_of(((truth == said) & (said < len(items.labels))).astype(np.float64))


def macro_f1(items: Items) -> Sums:
    """Mean F1 over the judged classes that have a true item; for one judged class, its F1."""

    def value(totals: Array) -> Array:
        hit, truth, said = _split(totals)
        present = (truth > 0).astype(np.float64)
        return divide((_f1(hit, truth, said) * present).sum(axis=-1), present.sum(axis=-1))

    return _class_sums(items, value)


def weighted_f1(items: Items) -> Sums:
    """Mean F1 over the judged classes, weighted by their true items."""

    def value(totals: Array) -> Array:
        hit, truth, said = _split(totals)
        return divide((_f1(hit, truth, said) * truth).sum(axis=-1), truth.sum(axis=-1))

    return _class_sums(items, value)


def micro_f1(items: Items) -> Sums:
    """F1 of the pooled decisions over the judged classes; accuracy if all are judged and all parse."""

    def value(totals: Array) -> Array:
        hit, truth, said = (part.sum(axis=-1) for part in _split(totals))
        return _f1(hit, truth, said)

    return _class_sums(items, value)


def balanced_accuracy(items: Items) -> Sums:
    """Mean recall over the judged classes that have a true item."""

    def value(totals: Array) -> Array:
        hit, truth, _ = _split(totals)
        present = (truth > 0).astype(np.float64)
        return divide(divide(hit, truth).sum(axis=-1), present.sum(axis=-1))

    return _class_sums(items, value)


def _split(totals: Array) -> tuple[Array, Array, Array]:
    third = totals.shape[-1] // 3
    return totals[..., :third], totals[..., third : 2 * third], totals[..., 2 * third :]


def _f1(hit: Array, truth: Array, said: Array) -> Array:
    return divide(2 * hit, truth + said)


def _class_sums(items: Items, value: Callable[[Array], Array]) -> Sums:
    """Sums over (hits, truths, predictions) of the judged classes.

    The one more item imagined is spread over the classes in proportion to their true items: wrong in all of
    them (and taken for the others), or right in all of them. Of a right one, TO_THE_RAREST goes to the class it
    helps most, since rare classes pull a measured macro average below the true one.
    """
    counts = per_class(items, items.judged)
    judged = len(items.judged)

    def worst(totals: Array) -> Array:
        _, truth, _ = _split(totals)
        share = divide(truth, truth.sum(keepdims=True))
        return np.concatenate([0 * share, share, share if judged > 1 else 0 * share])

    def best(totals: Array) -> Array:
        hit, truth, said = _split(totals)
        gain = divide(2 * hit + 2, truth + said + 2) - _f1(hit, truth, said)
        share = (1 - TO_THE_RAREST) * divide(truth, truth.sum(keepdims=True))
        share[int(np.argmax(gain))] += TO_THE_RAREST
        return np.concatenate([share, share, share])

    return Sums(per_item=counts.reshape(len(counts), -1), value=value, worst=worst, best=best)
