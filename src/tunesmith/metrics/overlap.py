"""Scores of free text against one reference: ROUGE, exact match, token F1, BLEU and chrF.

ROUGE is computed by rouge-score itself, item by item, and averaged. BLEU and chrF are corpus scores in
0–100, as sacrebleu prints them: an item's contribution is its n-gram counts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

import numpy as np

from tunesmith.metrics.sentences import split_sentences
from tunesmith.metrics.sums import Array, Items, Sums, divide, mean_of

BLEU_ORDER = 4  # word n-grams
CHRF_ORDER = 6  # character n-grams
CHRF_BETA = 2.0  # recall counts twice as much as precision


class UnicodeTokenizer:
    """Lower-cased runs of letters, marks and digits of any script; each Han, Kana or Thai-like character alone.

    rouge-score's own tokenizer keeps a–z and 0–9 only, so Cyrillic, Arabic or Chinese text scores 0 with it
    and `für` becomes `f r`.
    """

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        word = ""
        for character in unicodedata.normalize("NFC", text).lower():
            if _stands_alone(character):
                tokens += [word, character] if word else [character]
                word = ""
            elif unicodedata.category(character)[0] in "LMN":
                word += character
            elif word:
                tokens.append(word)
                word = ""
        return [*tokens, word] if word else tokens


def _stands_alone(character: str) -> bool:
    """Scripts written without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Khmer, Burmese."""
    c = ord(character)
    spans = (
        (0x0E00, 0x0EFF),
        (0x1000, 0x109F),
        (0x1780, 0x17FF),
        (0x3040, 0x30FF),
        (0x3400, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    )
    return any(low <= c <= high for low, high in spans) and unicodedata.category(character)[0] in "LN"


def rouge(kind: str, *, unicode_words: bool = False) -> Callable[[Items], Sums]:
    """Mean F of rouge-score's `kind`, no stemming. For rougeLsum both texts are split into sentences first."""

    def measure(items: Items) -> Sums:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=False, tokenizer=UnicodeTokenizer() if unicode_words else None)
        split = (lambda text: "\n".join(split_sentences(text))) if kind == "rougeLsum" else (lambda text: text)
        pairs = zip(items.targets, items.answers, strict=True)
        return mean_of([scorer.score(split(t), split(a))[kind].fmeasure for t, a in pairs])

    return measure


def default_words(text: str) -> list[str]:
    """What rouge-score's default tokenizer keeps of a text."""
    return re.findall(r"[a-z0-9]+", text.lower())


def normalise_white_space(text: str) -> str:
    """NFC, runs of white space as one space, trimmed. Case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalise_squad(text: str) -> str:
    """SQuAD's: lower case, ASCII punctuation and the articles a, an, the removed, white space collapsed.

    Source: Rajpurkar et al. 2016, evaluate-v1.1.py.
    """
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(normalise: Callable[[str], str]) -> Callable[[Items], Sums]:
    """Share of answers equal to their target after `normalise`."""

    def measure(items: Items) -> Sums:
        pairs = zip(items.targets, items.answers, strict=True)
        return mean_of([float(normalise(t) == normalise(a)) for t, a in pairs])

    return measure


def token_f1(items: Items) -> Sums:
    """Mean F1 of shared words after SQuAD's normaliser; two empty texts agree fully."""
    return mean_of([_words_f1(t, a) for t, a in zip(items.targets, items.answers, strict=True)])


def _words_f1(target: str, answer: str) -> float:
    wanted, said = normalise_squad(target).split(), normalise_squad(answer).split()
    if not wanted or not said:
        return float(wanted == said)
    shared = sum((Counter(wanted) & Counter(said)).values())
    return 2 * shared / (len(wanted) + len(said))


def bleu(items: Items) -> Sums:
    """sacrebleu's corpus BLEU with its defaults: 13a tokens, 4-grams, exponential smoothing. In 0–100.

    An item's numbers: answer length, target length, matching n-grams (4), n-grams in the answer (4).
    """
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True)  # counts are the same; this only spares a warning an item
    rows = []
    for target, answer in zip(items.targets, items.answers, strict=True):
        s = scorer.sentence_score(answer, [target])
        rows.append([s.sys_len, s.ref_len, *s.counts, *s.totals])
    per_item = np.asarray(rows, dtype=np.float64)
    average = per_item.mean(axis=0)
    totals_of_target = np.maximum(average[1] - np.arange(BLEU_ORDER), 0.0)
    worst = np.concatenate([average[:2], np.zeros(BLEU_ORDER), average[2 + BLEU_ORDER :]])
    best = np.concatenate([average[[1, 1]], totals_of_target, totals_of_target])
    return Sums(per_item=per_item, value=bleu_of_totals, worst=lambda _: worst, best=lambda _: best, highest=100.0)


def bleu_of_totals(totals: Array) -> Array:
    """Papineni et al. 2002 with mteval's smoothing: the k-th order without a match counts 1/2^k of a match."""
    said, wanted = totals[..., 0], totals[..., 1]
    correct, total = totals[..., 2 : 2 + BLEU_ORDER], totals[..., 2 + BLEU_ORDER :]
    misses = np.cumsum(correct <= 0, axis=-1)
    smoothed = np.where(correct > 0, correct, 0.5**misses)
    precisions = np.where(total > 0, divide(smoothed, total), 0.0)
    with np.errstate(divide="ignore"):
        mean_log = np.log(precisions).mean(axis=-1)
        brevity = np.where(said < wanted, np.exp(1 - wanted / np.where(said > 0, said, 1e-9)), 1.0)
    any_match = (correct > 0).any(axis=-1)
    return np.where(any_match & (said > 0), 100 * brevity * np.exp(mean_log), 0.0)


def chrf(items: Items) -> Sums:
    """sacrebleu's corpus chrF2: character 1- to 6-grams, white space left out, no word n-grams. In 0–100.

    An item's numbers: n-grams in the answer (6), in the target (6), shared (6).
    """
    per_item = np.array(
        [_character_counts(t, a) for t, a in zip(items.targets, items.answers, strict=True)], dtype=np.float64
    )
    average = per_item.mean(axis=0)
    wanted = average[CHRF_ORDER : 2 * CHRF_ORDER]
    worst = np.concatenate([average[: 2 * CHRF_ORDER], np.zeros(CHRF_ORDER)])
    best = np.concatenate([wanted, wanted, wanted])
    return Sums(per_item=per_item, value=chrf_of_totals, worst=lambda _: worst, best=lambda _: best, highest=100.0)


def _character_counts(target: str, answer: str) -> list[int]:
    target, answer = "".join(target.split()), "".join(answer.split())
    said, wanted, shared = [], [], []
    for n in range(1, CHRF_ORDER + 1):
        a = Counter(answer[i : i + n] for i in range(len(answer) - n + 1))
        t = Counter(target[i : i + n] for i in range(len(target) - n + 1))
        said.append(sum(a.values()) if t else 0)  # as sacrebleu: no target n-gram of this order, none counted
        wanted.append(sum(t.values()))
        shared.append(sum((a & t).values()))
    return [*said, *wanted, *shared]


def chrf_of_totals(totals: Array) -> Array:
    """Popović 2015: F-beta of precision and recall averaged over the orders that occur on both sides."""
    said, wanted, shared = (totals[..., i * CHRF_ORDER : (i + 1) * CHRF_ORDER] for i in range(3))
    present = ((said > 0) & (wanted > 0)).astype(np.float64)
    orders = present.sum(axis=-1)
    precision = divide((divide(shared, said) * present).sum(axis=-1), orders)
    recall = divide((divide(shared, wanted) * present).sum(axis=-1), orders)
    weight = CHRF_BETA**2
    return 100 * divide((1 + weight) * precision * recall, weight * precision + recall)
