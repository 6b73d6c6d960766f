"""Every metric, in one literal catalogue. A new one is a function, a line here, and a golden test.

`score("macro_f1", targets, answers, labels=...)` is the plain number; `measure` gives the same metric
as sums that statistics.py can resample.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Kind
from tunesmith.metrics import classification, language, overlap
from tunesmith.metrics.sums import Items, Sums

CLASSES: tuple[Kind, ...] = ("classify",)
TEXTS: tuple[Kind, ...] = ("extract", "summarize", "instruct", "chat")
DOMAIN: tuple[Kind, ...] = ("domain",)
ROUGE = "rouge-score|variant:mean F|stemming:no|tokens:a-z0-9"
ROUGE_UNICODE = "rouge-score|variant:mean F|stemming:no|tokens:unicode words, Han and Kana by character"
SENTENCES = "|sentences:line break, or .!?… before white space, or 。！？"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number about answers. `highest` is its largest value and so its unit (inf: none), the smallest is 0."""

    name: str
    kinds: tuple[Kind, ...]  # tasks it can judge
    higher_is_better: bool = True
    highest: float = 1.0
    needs: tuple[str, ...] = ()  # "labels": the declared classes; "class": a slice label=…
    by_class: bool = False  # made of each class's score: on a slice label=X it is that of X, over all items
    function: Callable[[Items], Sums]
    signature: str  # what makes the number repeatable; stored with every report


def _text(name: str, function: Callable[[Items], Sums], signature: str, highest: float = 1.0) -> Metric:
    return Metric(name=name, kinds=TEXTS, function=function, signature=signature, highest=highest)


def _classes(name: str, function: Callable[[Items], Sums], average: str, **more: Any) -> Metric:
    signature = f"scikit-learn|{average}|labels:judged|zero_division:0|answers:trimmed, else unparseable and wrong"
    return Metric(name=name, kinds=CLASSES, function=function, signature=signature, **{"needs": ("labels",), **more})


def _language(name: str, function: Callable[[Items], Sums], formula: str) -> Metric:
    signature = f"{formula}|all texts together|end of sequence not counted|windows: one token of context"
    return Metric(
        name=name, kinds=DOMAIN, function=function, signature=signature, higher_is_better=False, highest=math.inf
    )


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        _classes("macro_f1", classification.macro_f1, "average:macro over classes with test support", by_class=True),
        _classes("accuracy", classification.accuracy, "all items"),
        _classes("balanced_accuracy", classification.balanced_accuracy, "mean recall", by_class=True),
        _classes("micro_f1", classification.micro_f1, "average:micro", by_class=True),
        _classes("weighted_f1", classification.weighted_f1, "average:weighted", by_class=True),
        _classes(
            "f1", classification.macro_f1, "of the class that the slice names", needs=("labels", "class"), by_class=True
        ),
        _text("rouge1", overlap.rouge("rouge1"), ROUGE),
        _text("rouge2", overlap.rouge("rouge2"), ROUGE),
        _text("rougeL", overlap.rouge("rougeL"), ROUGE),
        _text("rougeLsum", overlap.rouge("rougeLsum"), ROUGE + SENTENCES),
        _text("rouge1_unicode", overlap.rouge("rouge1", unicode_words=True), ROUGE_UNICODE),
        _text("rouge2_unicode", overlap.rouge("rouge2", unicode_words=True), ROUGE_UNICODE),
        _text("rougeL_unicode", overlap.rouge("rougeL", unicode_words=True), ROUGE_UNICODE),
        _text("rougeLsum_unicode", overlap.rouge("rougeLsum", unicode_words=True), ROUGE_UNICODE + SENTENCES),
        _text("bleu", overlap.bleu, "sacrebleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp", 100.0),
        _text("chrf", overlap.chrf, "sacrebleu|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no", 100.0),
        Metric(
            name="exact_match",
            kinds=(*CLASSES, *TEXTS),
            function=overlap.exact_match(overlap.normalise_white_space),
            signature="normaliser:NFC, white space collapsed; case and punctuation count",
        ),
        _text("exact_match_squad", overlap.exact_match(overlap.normalise_squad), "normaliser:SQuAD v1.1"),
        _language("bits_per_byte", language.bits_per_byte, "sum of nats / ln 2 / UTF-8 bytes"),
        _language("perplexity", language.perplexity, "exp(sum of nats / tokens), of this model's tokens"),
        _text("token_f1", overlap.token_f1, "normaliser:SQuAD v1.1|mean F1 of shared words"),
    )
}

USUAL: dict[Kind, tuple[str, ...]] = {
    "classify": ("macro_f1", "accuracy", "balanced_accuracy", "weighted_f1"),
    "extract": ("exact_match", "token_f1"),
    "summarize": ("rougeLsum", "rouge1", "rouge2", "rougeL", "chrf"),
    "instruct": ("chrf", "rougeL", "token_f1"),
    "chat": ("chrf", "rougeL", "token_f1"),
    "domain": ("bits_per_byte", "perplexity"),
}


def find(name: str, kind: Kind | None = None) -> Metric:
    """The metric called `name`. Raises InputError, with the nearest name, if there is none or it cannot judge `kind`."""
    fitting = sorted(m.name for m in METRICS.values() if kind is None or kind in m.kinds)
    if name not in METRICS:
        near = difflib.get_close_matches(name, fitting, n=1)
        raise InputError(
            f"there is no metric {name!r}" + (f". Did you mean {near[0]}?" if near else ""),
            fix=f"choose one of {', '.join(fitting)}",
        )
    if name not in fitting:
        raise InputError(f"{name} cannot judge a {kind} task", fix=f"choose one of {', '.join(fitting) or 'none yet'}")
    return METRICS[name]


def measure(name: str, items: Items) -> Sums:
    """The metric on these items, as sums per item."""
    return find(name).function(items)


def score(
    name: str,
    targets: Sequence[str],
    answers: Sequence[Any],
    *,
    labels: Sequence[str] = (),
    judged: Sequence[str] = (),
) -> float:
    """The metric's value, in its own unit (0–1; bleu and chrf 0–100).

    `answers` are texts or Answers. `labels` are the declared classes (default: those among the targets),
    `judged` those that macro averages run over (default: the labels with a target).
    """
    return measure(name, Items.of(targets, answers, labels=labels, judged=judged)).score


def signature(name: str) -> str:
    """The metric's signature with the version of its reference library."""
    from importlib.metadata import version

    text = find(name).signature
    library = text.split("|")[0]
    return f"{text}|version:{version(library)}" if library in ("scikit-learn", "rouge-score", "sacrebleu") else text


def caution(name: str, targets: Sequence[str]) -> str:
    """One sentence if the metric cannot see some of these targets; "" otherwise."""
    if not name.startswith("rouge") or name.endswith("_unicode"):
        return ""
    blind = sum(1 for t in targets if t.strip() and not overlap.default_words(t))
    if not blind:
        return ""
    return (
        f"{name}: {blind} of {len(targets)} targets have no Latin letter or digit, and its reference tokenizer "
        f"scores such texts 0; use {name}_unicode"
    )
