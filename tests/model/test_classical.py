"""The cheap opponents: the commonest class, and TF-IDF with logistic regression, equal to scikit-learn by hand."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message, Row
from tunesmith.model.classical import STRENGTHS, Majority, TfidfLogistic, text_of

WORDS = {
    "sport": ["ball", "team", "goal", "match", "coach"],
    "business": ["share", "bank", "profit", "market", "trade"],
    "politics": ["vote", "party", "law", "senate", "minister"],
}
LABELS = [*sorted(WORDS), "weather"]


def rows(count: int, seed: int, noise: float = 0.2) -> list[Row]:
    rng = random.Random(seed)
    everything = [w for words in WORDS.values() for w in words]
    found = []
    for i in range(count):
        label = rng.choice([*WORDS, "sport"])
        words = [rng.choice(everything if rng.random() < noise else WORDS[label]) for _ in range(6)]
        messages = (Message(role="system", content="ball vote"), Message(role="user", content=" ".join(words)))
        found.append(Row(id=str(i), messages=messages, target=label, file="a.csv", line=i + 1, group=str(i)))
    return found


def test_majority_gives_the_shares_in_the_order_of_the_labels() -> None:
    train = rows(200, 0)
    model = Majority.fit(train, LABELS)
    answers = model.choose([train[0].messages, train[1].messages], LABELS, batch_tokens=64)
    shares = [sum(r.target == label for r in train) / 200 for label in LABELS]
    assert [a.text for a in answers] == ["sport", "sport"]
    assert answers[0].probabilities == pytest.approx(shares)
    assert answers[0].confidence == max(shares)
    assert shares[LABELS.index("weather")] == 0
    with pytest.raises(DataError, match="no training rows"):
        Majority.fit([], LABELS)


def test_ties_go_to_the_earlier_label() -> None:
    two = [r for r in rows(50, 0) if r.target == "sport"][:2] + [r for r in rows(50, 0) if r.target == "politics"][:2]
    assert Majority.fit(two, ["sport", "politics"]).choose([()], ["sport", "politics"])[0].text == "sport"
    assert Majority.fit(two, ["politics", "sport"]).choose([()], ["politics", "sport"])[0].text == "politics"


def test_tfidf_equals_scikit_learn_by_hand() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    train, validation, test = rows(150, 0, 0.5), rows(60, 1, 0.5), rows(40, 2, 0.5)
    model = TfidfLogistic.fit(train, validation, LABELS, seed=0)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x = vectorizer.fit_transform([text_of(r.messages) for r in train])
    best, chosen = -1.0, None
    for strength in STRENGTHS:
        by_hand = LogisticRegression(C=strength, max_iter=2000).fit(x, [r.target for r in train])
        guesses = by_hand.predict(vectorizer.transform([text_of(r.messages) for r in validation]))
        score = f1_score([r.target for r in validation], guesses, labels=sorted(WORDS), average="macro")
        if score > best:
            best, chosen = score, by_hand
    assert chosen is not None
    assert model.strength == chosen.C
    answers = model.choose([r.messages for r in test], LABELS, batch_tokens=64)
    want = chosen.predict_proba(vectorizer.transform([text_of(r.messages) for r in test]))
    got = np.array([a.probabilities for a in answers])
    assert np.abs(got[:, :3] - want[:, [list(chosen.classes_).index(c) for c in sorted(WORDS)]]).max() < 1e-12
    assert (got[:, LABELS.index("weather")] == 0).all(), "a class unseen in training has probability 0"
    assert [a.text for a in answers] == [LABELS[k] for k in got.argmax(1)]
    assert sum(a.text == r.target for a, r in zip(answers, test, strict=True)) > 25


def test_the_system_prompt_is_not_looked_at_and_seeds_repeat() -> None:
    train, validation = rows(80, 0), rows(30, 1)
    first = TfidfLogistic.fit(train, validation, LABELS, seed=0)
    plain = [m for m in train[0].messages if m.role == "user"]
    assert text_of(train[0].messages) == plain[0].content
    second = TfidfLogistic.fit(train, validation, LABELS, seed=0)
    prompts = [r.messages for r in validation]
    assert [a.probabilities for a in first.choose(prompts, LABELS)] == [
        a.probabilities for a in second.choose(prompts, LABELS)
    ]
    assert first.choose([], LABELS) == []


def test_what_cannot_be_learned_is_refused_in_words() -> None:
    one_class = [r for r in rows(50, 0) if r.target == "sport"]
    with pytest.raises(DataError, match="one class only"):
        TfidfLogistic.fit(one_class, one_class, LABELS, seed=0)
    empty = [
        Row(id=str(i), messages=(Message(role="user", content="? !"),), target=t, file="a", line=i + 1, group=str(i))
        for i, t in enumerate(["sport", "politics"] * 3)
    ]
    with pytest.raises(DataError, match="no words to learn from"):
        TfidfLogistic.fit(empty, empty, LABELS, seed=0)


def test_classical_models_load_no_torch() -> None:
    code = "import sys, tunesmith.model.classical; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
