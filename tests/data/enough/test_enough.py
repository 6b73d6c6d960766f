"""Would more rows help, and are these the right ones? Curves that are nested and repeatable, an honest comparison."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.core.canonical import canonical_json, read_json, write_atomic, write_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Example, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.enough.compare import compare, two_samples
from tunesmith.data.enough.curve import curve, learning_curve, proxy
from tunesmith.data.enough.stages import (
    COMPARE,
    CURVE,
    CompareInputs,
    CompareSpec,
    CurveInputs,
    CurveSpec,
)
from tunesmith.data.enough.words import curve_words

LABELS = ("billing", "delivery", "login", "returns")


def text(generator: np.random.Generator, label: int, words: int = 5) -> str:
    """A word that tells the class, by Zipf's law out of many, among words that do not."""
    telling = f"{LABELS[label]}{min(generator.zipf(1.3), 10**6)}"
    return " ".join([telling, *(f"word{generator.integers(0, 60)}" for _ in range(words))])


def rows(n: int, seed: int, per_group: int = 2, rare: int | None = None) -> list[Row]:
    generator = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = int(generator.integers(0, 4))
        if label == rare and generator.random() < 0.5:
            label = 0
        messages = (Message(role="user", content=text(generator, label)),)
        example = Example(messages=messages, target=LABELS[label])
        found.append(
            Row(
                id=example.id,
                messages=messages,
                target=example.target,
                file="a.csv",
                line=i + 2,
                group=f"{seed}-{i // per_group}",
            )
        )
    return found


def dataset(folder: Path, train: list[Row], validation: list[Row], test: list[Row], kind: str = "classify") -> Path:
    folder.mkdir(parents=True)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        write_lines(folder / f"{name}.jsonl", part)
    facts = {"kind": kind, "counts": {"train": len(train), "validation": len(validation), "test": len(test)}}
    write_atomic(folder / "dataset.json", canonical_json(facts))
    return folder


def drawn(train: list[Row], validation: list[Row], **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"points": 6, "repeats": 3, "classes": 0, "confidence": 0.95, "seed": 0}
    learn = changes.pop("learn", None) or proxy(train, validation, seed=0)
    return learning_curve(train, validation, learn=learn, **{**usual, **changes})


def test_the_stages_are_found_by_their_names() -> None:
    assert (CURVE.resolve(), COMPARE.resolve()) == (curve, compare)


def test_sizes_are_nested_grouped_and_end_with_all_rows() -> None:
    train, validation = rows(200, 1, per_group=4), rows(60, 2)
    asked: list[frozenset[int]] = []

    def learn(places: Any) -> list[str]:
        asked.append(frozenset(places))
        return ["billing"] * len(validation)

    drawn(train, validation, learn=learn, repeats=2)
    by_size = sorted(asked, key=len)
    assert by_size[-1] == frozenset(range(200))
    assert len(asked) == 2 * 5 + 1  # the whole is learned from once
    for places in asked:
        groups = {train[i].group for i in places}
        assert places == {i for i, row in enumerate(train) if row.group in groups}
    first, second = asked[:6], [*asked[6:], by_size[-1]]
    for repeat in (first, second):
        ordered = sorted(repeat, key=len)
        assert all(a < b for a, b in pairwise(ordered))


def test_the_forecast_holds_when_the_rows_are_doubled() -> None:
    everything, validation = rows(2400, 3), rows(400, 4)
    half = everything[:1200]
    found = drawn(half, validation, points=7, repeats=3)
    gain = found["forecast"]["gain"]
    assert gain is not None, found["forecast"]
    truth = drawn(everything, validation, points=1, repeats=1)["points"][-1]["score"] - found["points"][-1]["score"]
    assert gain["low"] <= truth <= gain["high"]
    assert gain["value"] > 0.02
    assert 0 < found["forecast"]["luck"] < 0.15
    assert "points on average; the luck of which rows" in curve_words({**found, "model": "tfidf"})
    assert [p["score"] for p in found["points"]] == sorted(p["score"] for p in found["points"])
    series = found["law_series"]
    assert series[0]["rows"] < series[-1]["rows"] == 2400
    assert all(p["low"] <= p["score"] + 1e-6 and p["score"] <= p["high"] + 1e-6 for p in series[:5])


def test_a_class_curve_varies_that_class_alone() -> None:
    train, validation = rows(500, 5, rare=3), rows(200, 6)
    asked: list[list[int]] = []
    learn = proxy(train, validation, seed=0)

    def watched(places: Any) -> list[str]:
        asked.append(list(places))
        return learn(places)

    found = drawn(train, validation, learn=watched, classes=1, repeats=1, points=5)
    (label,) = found["classes"]
    assert found["class_scores"][label] == min(found["class_scores"].values())
    others = sum(row.target != label for row in train)
    own = [p for p in asked if sum(train[i].target != label for i in p) == others]
    assert len(own) == 5
    assert found["classes"][label]["points"][-1]["rows"] == len(train) - others
    assert set(found["classes_without_curve"]["better"]) == set(LABELS) - {label}


def test_the_order_of_rows_has_no_say(tmp_path: Path) -> None:
    train, validation = rows(120, 7), rows(60, 8)
    one = drawn(train, validation, points=3)
    other = drawn(list(reversed(train)), validation, points=3)
    assert one["points"] == other["points"]


def test_the_stage_writes_its_facts_and_counts_what_it_does_not_use(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", rows(300, 9), rows(80, 10), rows(40, 11))
    spec = CurveSpec(points=4, repeats=2, classes=1, most_rows=200, confidence=0.9, seed=0)
    facts = read_json(curve(spec, CurveInputs(dataset=folder), Workspace(root=tmp_path / "work")).curve / "curve.json")
    assert (facts["train_rows"], facts["rows_not_used"]) == (200, 100)
    assert "macro-F1 on validation with all 200 training rows" in facts["words"]
    assert "doubling all rows: no forecast, because 4 sizes are too few" in facts["words"]
    other = dataset(tmp_path / "chat", rows(4, 1), rows(4, 2), rows(4, 3), kind="chat")
    with pytest.raises(DataError, match="needs classes"):
        curve(spec, CurveInputs(dataset=other), Workspace(root=tmp_path / "work2"))


def samples(n: int, seed: int, shift: float = 0.0, per_group: int = 1) -> list[tuple[str, str]]:
    generator = np.random.default_rng(seed)
    found = []
    for i in range(n):
        said = text(generator, int(generator.integers(0, 4)))
        if generator.random() < shift:
            said += " invoice overdue"
        found.append((f"{seed}-{i // per_group}", said))
    return found


def test_samples_of_one_source_are_not_told_apart_more_often_than_the_p_value_says() -> None:
    p = [two_samples(samples(40, s), samples(40, s + 500), permutations=99, terms=3, seed=s)["p"] for s in range(40)]
    assert sum(v <= 0.1 for v in p) <= 10  # 4 expected; more than 10 in one run of a thousand
    assert 0.3 < float(np.mean(p)) < 0.7


def test_a_difference_is_found_with_the_terms_that_make_it() -> None:
    found = two_samples(samples(200, 1), samples(200, 2, shift=0.5), permutations=199, terms=5, seed=0)
    assert found["p"] <= 0.01
    assert 0.65 < found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"] < 0.9
    (term, *_) = found["terms"]["more_in_real"]
    assert term["term"] in ("invoice", "overdue", "invoice overdue")
    assert 0.35 < term["real"] < 0.65 and term["data"] == 0


def test_the_auc_and_its_out_of_fold_scores_are_scikit_learns() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics import roc_auc_score

    from tunesmith.data.proxy import grouped_folds

    a, b = samples(60, 1, per_group=3), samples(50, 2, shift=0.4)
    groups = [f"data {g}" for g, _ in a] + [f"real {t}" for _, t in b]
    y = np.array([0.0] * 60 + [1.0] * 50)
    x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform([t for _, t in (*a, *b)])
    fold = grouped_folds(groups, y.astype(int).tolist(), folds=5, salt="compare 0")
    scores = np.zeros(110)
    for k in range(5):
        taught = fold != k
        model = KernelRidge(alpha=1.0, kernel="linear").fit(x[taught], y[taught] - y[taught].mean())
        scores[~taught] = model.predict(x[~taught])
    got = two_samples(a, [(t, t) for _, t in b], permutations=9, terms=1, seed=0)["auc"]["value"]
    assert got == pytest.approx(roc_auc_score(y, scores), abs=0.02)


def test_inputs_that_are_in_the_data_already_look_alike() -> None:
    same = samples(120, 3)
    found = two_samples(same, [(t, t) for _, t in same], permutations=99, terms=3, seed=0)
    assert found["p"] > 0.05
    assert abs(found["auc"]["value"] - 0.5) < 0.05


def test_the_stage_compares_training_and_test_rows_with_a_file_of_real_inputs(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", rows(150, 1), rows(30, 2), rows(60, 3))
    source = tmp_path / "sample"
    source.mkdir()
    lines = [t for _, t in samples(80, 9, shift=1.0)]
    (source / "real.txt").write_text("\n".join([*lines, "", lines[0].upper()]) + "\n", encoding="utf-8")
    spec = CompareSpec(text=None, most_rows=100, permutations=99, terms=5, seed=0)
    inputs = CompareInputs(dataset=folder, sample=source)
    facts = read_json(compare(spec, inputs, Workspace(root=tmp_path / "work")).comparison / "compare.json")
    assert facts["sample"] == {"read": 81, "different": 80, "used": 80}
    assert facts["splits"]["train"]["data"] == 100
    assert "more often in real inputs" in facts["words"]
    (source / "more.jsonl").write_text('{"body": "hello there"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"more.jsonl:1: there is no text under"):
        compare(spec, inputs, Workspace(root=tmp_path / "work2"))
    (source / "real.txt").write_text("just one\n", encoding="utf-8")
    named = CompareSpec(text="body", most_rows=100, permutations=99, terms=5, seed=0)
    with pytest.raises(DataError, match="too few to compare"):
        compare(named, inputs, Workspace(root=tmp_path / "work3"))
