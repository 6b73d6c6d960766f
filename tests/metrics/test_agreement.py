"""Agreement equals the published tables and scikit-learn, and its intervals mean what they say."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tunesmith.core.errors import DataError
from tunesmith.metrics.agreement import (
    Ratings,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from tunesmith.metrics.agreement_facts import agreement_facts, agreement_words
from tunesmith.metrics.coincidence import Scale

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
PUBLISHED: dict[Scale, float] = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}
# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses
DIAGNOSES = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501 30012
51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""
# the worked example of Wikipedia's article on Fleiss' kappa: 10 subjects, 14 raters, 5 categories
SUBJECTS = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip


def observers() -> Ratings:
    return Ratings.of([[None if c == "." else int(c) for c in unit] for unit in zip(*OBSERVERS, strict=True)])


def from_counts(table: list[tuple[int, ...]]) -> Ratings:
    return Ratings.of([[k for k, n in enumerate(row) for _ in range(n)] for row in table])


def value(found: object) -> float:
    assert found is not None
    return found.value  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("scale", list(PUBLISHED))
def test_alpha_is_krippendorffs_own(scale: Scale) -> None:
    assert round(value(krippendorff_alpha(observers(), scale=scale)), 3) == PUBLISHED[scale]


def test_fleiss_kappa_is_the_published_one() -> None:
    diagnoses = [tuple(map(int, row)) for row in DIAGNOSES.split()]
    assert np.array(diagnoses).sum(axis=0).tolist() == [26, 26, 30, 55, 43]  # as the paper's margins say
    assert round(value(fleiss_kappa(from_counts(diagnoses))), 3) == 0.430
    assert round(value(fleiss_kappa(from_counts(SUBJECTS))), 3) == 0.210


def test_cohen_kappa_is_the_published_one() -> None:
    table = [(88, 10, 2), (14, 40, 6), (18, 10, 12)]  # Cohen 1960, table 1, as frequencies of 200
    rows = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    assert round(value(cohen_kappa(Ratings.of(rows))), 3) == 0.492


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(5))
def test_cohen_kappa_is_scikit_learns(weights: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 5, 80)
    second = np.where(generator.random(80) < 0.6, first, generator.integers(0, 5, 80))
    rows = list(zip(first.tolist(), second.tolist(), strict=True))
    want = cohen_kappa_score(first, second, labels=range(5), weights=None if weights == "none" else weights)
    got = cohen_kappa(Ratings.of([*rows, (1, None)], order=range(5)), weights=weights)  # type: ignore[arg-type]
    assert value(got) == pytest.approx(want, abs=1e-12)


def slow_alpha(rows: list[list[float | None]], scale: str) -> float:
    """Straight from the definition, pair by pair."""
    units = [[v for v in row if v is not None] for row in rows]
    units = [u for u in units if len(u) > 1]
    n = {v: sum(u.count(v) for u in units) for v in sorted({v for u in units for v in u})}
    total = sum(n.values())

    def d(c: float, k: float) -> float:
        if scale == "nominal":
            return float(c != k)
        if scale == "interval":
            return (c - k) ** 2
        if scale == "ratio":
            return ((c - k) / (c + k)) ** 2 if c + k else 0.0
        low, high = min(c, k), max(c, k)
        return (sum(m for g, m in n.items() if low <= g <= high) - (n[c] + n[k]) / 2) ** 2

    observed = sum(d(a, b) / (len(u) - 1) for u in units for i, a in enumerate(u) for j, b in enumerate(u) if i != j)
    expected = sum(n[c] * n[k] * d(c, k) for c in n for k in n) / (total - 1)
    return 1 - observed / expected


@pytest.mark.parametrize("scale", list(PUBLISHED))
@pytest.mark.parametrize("seed", range(4))
def test_alpha_equals_its_definition_with_any_ratings_missing(scale: Scale, seed: int) -> None:
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 6, (30, 1)) + generator.integers(-1, 2, (30, 5))
    rows = [[None if generator.random() < 0.4 else float(abs(v)) for v in row] for row in base]
    assert value(krippendorff_alpha(Ratings.of(rows), scale=scale)) == pytest.approx(slow_alpha(rows, scale), abs=1e-12)


def test_alpha_of_pairs_without_missing_ratings_is_near_fleiss_and_percent_is_the_share_of_equal_pairs() -> None:
    rows = [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]]
    assert value(percent_agreement(Ratings.of(rows))) == 0.75
    three = Ratings.of([["a", "a", "b"], ["a", None, None], ["c", "c", None]])
    assert value(percent_agreement(three)) == pytest.approx((1 / 3 + 1) / 2)


def test_what_has_no_meaning_is_none_and_what_is_wrong_is_refused() -> None:
    alone, same = Ratings.of([["a", None], [None, "b"]]), Ratings.of([["a", "a"]] * 3)
    for ratings in (alone, same):
        assert krippendorff_alpha(ratings, scale="nominal") is None
        assert cohen_kappa(ratings) is None
    assert percent_agreement(alone) is None
    assert fleiss_kappa(same) is None
    with pytest.raises(DataError, match="same number of ratings"):
        fleiss_kappa(Ratings.of([["a", "b"], ["a", None]]))
    with pytest.raises(DataError, match="two annotators"):
        cohen_kappa(Ratings.of([["a", "b", "c"]]))
    with pytest.raises(DataError, match="interval scale needs numbers"):
        krippendorff_alpha(Ratings.of([["a", "b"], ["a", "a"]]), scale="interval")
    with pytest.raises(DataError, match="from zero up"):
        krippendorff_alpha(Ratings.of([[-1, 2], [2, 2]]), scale="ratio")
    with pytest.raises(DataError) as e:
        Ratings.of([["a", "z"], ["a"]], order=("a", "b"))
    assert len(e.value.problems) == 2
    with pytest.raises(DataError, match="two ratings"):
        Ratings.of_votes([("i", "ann", "a"), ("i", "ann", "b")])


def test_votes_in_any_order_give_the_same_ratings() -> None:
    votes = [("i1", "a", "x"), ("i1", "b", "y"), ("i2", "b", "x")]
    one, other = Ratings.of_votes(votes), Ratings.of_votes(reversed(votes))
    assert one.codes.tolist() == other.codes.tolist() == [[0, 1], [-1, 0]]


def test_perfect_agreement_of_a_few_items_is_not_certain() -> None:
    few = Ratings.of([["a", "a"], ["b", "b"]] * 3)
    many = Ratings.of([["a", "a"], ["b", "b"]] * 300)
    low, high = (krippendorff_alpha(r, scale="nominal") for r in (few, many))
    assert low is not None and high is not None
    assert low.value == high.value == low.high == 1.0
    assert low.low < 0.7 < 0.98 < high.low


def test_intervals_are_repeatable_and_hold_the_truth_as_often_as_they_say() -> None:
    """Raters who are right with 0.8: the alpha of very many items is the truth."""

    def draw(generator: np.random.Generator, items: int) -> Ratings:
        truth = generator.integers(0, 3, (items, 1))
        wrong = generator.integers(0, 3, (items, 3))
        codes = np.where(generator.random((items, 3)) < 0.8, truth, wrong)
        return Ratings(codes=codes, values=("a", "b", "c"))

    truth = value(krippendorff_alpha(draw(np.random.default_rng(0), 200_000), scale="nominal", resamples=100))
    held = 0
    for seed in range(200):
        found = krippendorff_alpha(draw(np.random.default_rng(seed + 1), 40), scale="nominal", resamples=400)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held >= 180  # 95 % asked for; 90 % would be seen here in one run of a thousand
    ratings = draw(np.random.default_rng(5), 30)
    assert krippendorff_alpha(ratings, scale="ordinal") == krippendorff_alpha(ratings, scale="ordinal")


def test_words_say_what_the_numbers_mean() -> None:
    words = agreement_words(agreement_facts(observers(), scale="nominal"))
    assert "11 of 12 items have two ratings or more, 4 annotators" in words
    assert "Krippendorff's alpha  0.743" in words and "not proven" in words
    assert "nothing can be said" in agreement_words(agreement_facts(Ratings.of([["a", None]]), scale="nominal"))


def test_the_ratings_of_pyrit_have_their_known_alpha() -> None:
    found = importlib.util.find_spec("pyrit")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pyrit is not installed: its human ratings are the data of this test")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "scorer_evals" / "harm"
    for name, items, alpha in (("hate_speech", 199, 0.861), ("violence", 187, 0.766)):
        with open(folder / f"{name}_multi_score.csv", encoding="utf-8", newline="") as f:
            f.readline()  # a comment with versions
            rows = [[float(r[f"human_score_{i}"]) for i in (1, 2, 3)] for r in csv.DictReader(f)]
        assert len(rows) == items
        got = krippendorff_alpha(Ratings.of(rows), scale="ordinal")
        assert round(value(got), 3) == alpha
