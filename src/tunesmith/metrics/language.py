"""How well a model predicts texts: perplexity and bits per byte, both better when lower.

An item is a text with the summed negative log-likelihood of its tokens (an Answer's `logprob`, negated) and how many
tokens were predicted (`answer_tokens`). Both numbers are of all texts together, so a long text weighs more.

    bits per byte = sum of nats / ln 2 / UTF-8 bytes     comparable between tokenizers
    perplexity    = exp(sum of nats / tokens)            comparable only with one tokenizer

Source: bits per byte as in Gao et al. 2020 (The Pile), arXiv:2101.00027, section 3.1, and lm-evaluation-harness
(`bits_per_byte`); its `word_perplexity` counts words, ours tokens.

The interval's imagined group (see statistics.py) is, for scores without an upper limit, as easy or as hard as the
easiest or hardest text seen and of mean length: no distribution-free bound exists there, so this is a convention. In a
comparison it is as different as the text on which the two models differ most.
"""

from __future__ import annotations

import math

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.metrics.sums import Array, Items, Sums, divide

LARGEST_EXPONENT = 700.0  # exp of more is no number


def bits_per_byte(items: Items) -> Sums:
    """Raises DataError for answers without log-probabilities, or texts that are all empty."""
    return _rate(_nats(items) / math.log(2), np.array([float(len(t.encode())) for t in items.targets]))


def perplexity(items: Items) -> Sums:
    tokens = np.array([float(n) for n in items.tokens])
    rate = _rate(_nats(items), tokens)
    return Sums(
        per_item=rate.per_item,
        value=lambda totals: np.exp(np.minimum(rate.value(totals), LARGEST_EXPONENT)),
        worst=rate.worst,
        best=rate.best,
        highest=math.inf,
        pair=rate.pair,
    )


def _nats(items: Items) -> Array:
    if len(items.logprobs) != len(items.targets):
        raise DataError("these answers carry no log-probability of the text", fix="tunesmith evaluate")
    return -np.array(items.logprobs, dtype=np.float64)


def _rate(top: Array, bottom: Array) -> Sums:
    """sum(top) / sum(bottom). "worst" and "best" are named for scores where more is better: here they are the item
    that lowers and the one that raises the number."""
    if bottom.sum() <= 0:
        raise DataError("there is nothing to score: every text is empty")
    each = top[bottom > 0] / bottom[bottom > 0]
    size = float(bottom.mean())
    least, most = np.array([each.min() * size, size]), np.array([each.max() * size, size])
    return Sums(
        per_item=np.stack([top, bottom], axis=1),
        value=lambda totals: divide(totals[..., 0], totals[..., 1]),
        worst=lambda totals: least,
        best=lambda totals: most,
        highest=math.inf,
        pair=_most_different,
    )


def _most_different(a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """Texts of mean length with the rates of the text where a is furthest below b, and of that where it is furthest
    above: two models that find the same texts hard are compared by what differs between them."""
    sized = a[:, 1] > 0
    rate_a, rate_b = a[sized, 0] / a[sized, 1], b[sized, 0] / b[sized, 1]
    size_a, size_b = a[:, 1].mean(), b[:, 1].mean()
    low, high = int(np.argmin(rate_a - rate_b)), int(np.argmax(rate_a - rate_b))
    return (
        np.array([rate_a[low] * size_a, size_a]),
        np.array([rate_b[low] * size_b, size_b]),
        np.array([rate_a[high] * size_a, size_a]),
        np.array([rate_b[high] * size_b, size_b]),
    )
