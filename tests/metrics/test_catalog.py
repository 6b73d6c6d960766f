"""The catalogue: names, units, tokenizers, and what happens to hostile text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunesmith.core.errors import DataError, InputError
from tunesmith.core.goals import METRIC_NAMES
from tunesmith.core.nouns import Answer
from tunesmith.metrics.catalog import METRICS, USUAL, caution, find, score, signature
from tunesmith.metrics.overlap import UnicodeTokenizer
from tunesmith.metrics.sentences import split_sentences

OF_ANSWERS = sorted(n for n, m in METRICS.items() if m.kinds != ("domain",))  # the others need log-probabilities
HOSTILE = ["", " ", "\x00", "🦀" * 50, "a\u0301" * 20, "\n\n\n", "ignore the labels", "x" * 5000]


def test_the_project_file_knows_the_metrics_of_the_catalogue() -> None:
    assert {n: (m.kinds, m.highest, m.higher_is_better) for n, m in METRICS.items()} == {
        n: (m.kinds, m.highest, m.higher_is_better) for n, m in METRIC_NAMES.items()
    }


def test_the_usual_metrics_can_judge_their_kind() -> None:
    for kind, names in USUAL.items():
        for name in names:
            assert find(name, kind).name == name


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_hostile_answers_score_low_and_raise_nothing(name: str) -> None:
    targets = ["sports"] * len(HOSTILE)
    got = score(name, targets, HOSTILE, labels=["sports", "business"])
    assert 0.0 <= got < 0.05 * METRICS[name].highest


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_answers_equal_to_the_targets_score_highest(name: str) -> None:
    targets = ["the quick brown fox jumps", "over the lazy dog tonight", "the quick brown fox jumps"]
    assert score(name, targets, targets) == pytest.approx(METRICS[name].highest)


def test_answers_may_be_nouns_or_texts() -> None:
    assert score("accuracy", ["a", "b"], [Answer(text="a"), Answer(text="a")]) == 0.5
    assert score("accuracy", ["a", "b"], ["a", "a"]) == 0.5


def test_an_unparseable_answer_is_wrong_and_never_guessed() -> None:
    labels = ["Sports", "Business"]
    assert score("accuracy", ["Sports"] * 4, ["sports", "Sports.", "The answer is Sports", ""], labels=labels) == 0.0
    assert score("accuracy", ["Sports"], [" Sports\n"], labels=labels) == 1.0


def test_a_target_outside_the_labels_is_never_right() -> None:
    """Both would have the code "other"; two unknowns are not a hit."""
    assert score("accuracy", ["zzz", "a"], ["zzz", "a"], labels=["a"]) == 0.5


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"there is no metric 'macrof1'\. Did you mean macro_f1\?"):
        score("macrof1", ["a"], ["a"])
    with pytest.raises(InputError, match="rouge1 cannot judge a classify task"):
        find("rouge1", "classify")


def test_lengths_that_differ_and_no_items_are_refused() -> None:
    with pytest.raises(DataError, match="2 targets and 1 answers"):
        score("accuracy", ["a", "b"], ["a"])
    with pytest.raises(DataError, match="nothing to score"):
        score("accuracy", [], [])
    with pytest.raises(DataError, match="'q' is not among the labels"):
        score("macro_f1", ["a"], ["a"], labels=["a"], judged=["q"])


def test_non_latin_text_scores_zero_with_the_reference_tokenizer_and_one_is_told() -> None:
    targets, answers = ["Мяч круглый", "the ball"], ["Мяч круглый", "the ball"]
    assert score("rouge1", targets, answers) == 0.5
    assert score("rouge1_unicode", targets, answers) == 1.0
    assert caution("rouge1", targets) == (
        "rouge1: 1 of 2 targets have no Latin letter or digit, and its reference tokenizer scores such texts 0; "
        "use rouge1_unicode"
    )
    assert caution("rouge1_unicode", targets) == "" and caution("rouge1", ["plain"]) == ""


def test_the_unicode_tokenizer_keeps_words_of_every_script() -> None:
    words = UnicodeTokenizer().tokenize
    assert words("Für 3 Straßen!") == ["für", "3", "straßen"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("東京へ行くx2") == ["東", "京", "へ", "行", "く", "x2"]
    assert words("") == [] and words("—!") == []


def test_sentences_end_where_the_stated_rule_says() -> None:
    assert split_sentences('He said "stop." Then left! 你好。再见') == [
        'He said "stop."',
        "Then left!",
        "你好。",
        "再见",
    ]
    assert split_sentences("Version 1.2 is out\n\nReally?") == ["Version 1.2 is out", "Really?"]
    assert split_sentences(" \n ") == []


def test_a_signature_names_library_and_version() -> None:
    from importlib.metadata import version

    assert signature("bleu") == f"sacrebleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}"
    assert f"version:{version('rouge-score')}" in signature("rougeL")
    assert signature("exact_match").startswith("normaliser:")


def test_importing_the_catalogue_loads_no_reference_library() -> None:
    code = (
        "import sys, tunesmith.metrics.catalog, tunesmith.metrics.statistics;"
        "print(sorted({'torch', 'sklearn', 'scipy', 'rouge_score', 'sacrebleu', 'nltk'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
