"""Consensus: nothing guessed, equal to crowd-kit, better than majority where annotators differ."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from tunesmith.core.errors import DataError
from tunesmith.metrics.consensus import SMOOTHING, Vote, Votes, consensus, dawid_skene, majority
from tunesmith.review.consensus import consensus_facts, consensus_words
from tunesmith.review.reliability import reliability, reliability_words

LABELS = ("a", "b", "c", "d")


def crowd(seed: int, items: int = 200, annotators: int = 8, each: int = 5) -> tuple[list[Vote], list[str]]:
    """Annotators right with a probability of their own; wrong ones say any label."""
    generator = np.random.default_rng(seed)
    truth = [LABELS[k] for k in generator.integers(0, len(LABELS), items)]
    skill = generator.uniform(0.35, 0.95, annotators)
    votes = []
    for i, label in enumerate(truth):
        for who in generator.choice(annotators, each, replace=False):
            said = label if generator.random() < skill[who] else LABELS[generator.integers(0, len(LABELS))]
            votes.append((f"item{i:04}", f"ann{who:02}", said))
    return votes, truth


def right(votes: list[Vote], truth: list[str], method: str) -> float:
    found = consensus(votes, method=method, threshold=0.0)  # type: ignore[arg-type]
    return sum(d.label == t for d, t in zip(found, truth, strict=True)) / len(truth)


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_without_a_prior_is_crowd_kits(seed: int) -> None:
    pandas = pytest.importorskip("pandas")
    aggregation = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is the oracle of this test")
    votes, _ = crowd(seed, items=80)
    table = Votes.of(votes)
    data = pandas.DataFrame(votes, columns=["task", "worker", "label"])
    # crowd-kit's own stop comes early where its clipped bound wavers, so both take the same number of steps
    oracle = aggregation.DawidSkene(n_iter=25, tol=-1e9).fit(data)
    got = dawid_skene(table, smoothing=0.0, steps=25)
    want = oracle.probas_.loc[list(table.items), list(table.labels)].to_numpy()
    assert np.abs(got.probabilities - want).max() < 1e-8
    assert np.abs(got.probabilities.mean(axis=0) - oracle.priors_[list(table.labels)].to_numpy()).max() < 1e-8
    shares = aggregation.MajorityVote().fit_predict_proba(data).loc[list(table.items), list(table.labels)].to_numpy()
    assert np.abs(majority(table) - shares).max() < 1e-12


def test_dawid_skene_finds_more_of_the_truth_than_majority_and_its_prior_helps_where_votes_are_few() -> None:
    gain = [right(*crowd(s), "dawid_skene") - right(*crowd(s), "majority") for s in range(6)]
    assert np.mean(gain) > 0.02
    few = [crowd(s + 50, items=150, annotators=40, each=3) for s in range(6)]
    truth = [[LABELS.index(t) for t in t_] for _, t_ in few]
    scores = {
        smoothing: np.mean(
            [
                (dawid_skene(Votes.of(v), smoothing=smoothing).probabilities.argmax(axis=1) == t).mean()
                for (v, _), t in zip(few, truth, strict=True)
            ]
        )
        for smoothing in (0.0, SMOOTHING)
    }
    assert scores[SMOOTHING] > scores[0.0]


def test_a_single_vote_is_never_outvoted_by_what_is_usual_and_is_as_sure_as_its_annotator() -> None:
    alone = [(f"i{n}", "only", "rare" if n % 20 == 0 else "usual") for n in range(100)]
    found = consensus(alone, method="dawid_skene", threshold=0.9)
    assert [d.label for d in found] == [label for _, _, label in sorted(alone)]
    assert all(d.probability == 1.0 and not d.disputed for d in found)
    generator = np.random.default_rng(0)
    shared = [(f"s{n}", who, LABELS[n % 4]) for n in range(60) for who in ("good", "better", "best")]
    shared += [(f"s{n}", "guesser", LABELS[generator.integers(0, 4)]) for n in range(60)]
    single = [("x1", "good", "a"), ("x2", "guesser", "a"), ("x3", "newcomer", "a")]
    by_item = {d.item: d for d in consensus([*shared, *single], method="dawid_skene", threshold=0.7)}
    assert {by_item[i].label for i in ("x1", "x2", "x3")} == {"a"}
    assert by_item["x2"].probability < 0.5 < by_item["x3"].probability < by_item["x1"].probability
    assert by_item["x2"].disputed and not by_item["x1"].disputed


def test_the_likelihood_never_falls() -> None:
    votes = Votes.of(crowd(3, items=60)[0])
    steps = [dawid_skene(votes, smoothing=0.0, steps=n).loglikelihood for n in range(1, 12)]
    assert all(b >= a - 1e-9 for a, b in pairwise(steps))
    assert dawid_skene(votes).converged


def test_a_tie_is_said_and_never_broken() -> None:
    votes = [("i1", "x", "a"), ("i1", "y", "b"), ("i2", "x", "a"), ("i2", "y", "a"), ("i2", "z", "b")]
    tie, clear = consensus(votes, method="majority", threshold=0.6)
    assert (tie.label, tie.disputed, tie.tied, tie.probability) == (None, True, ("a", "b"), 0.5)
    assert (clear.label, clear.disputed, clear.votes) == ("a", False, {"a": 2, "b": 1})
    assert consensus(votes, method="majority", threshold=0.7)[1].disputed


def test_the_order_of_votes_changes_nothing() -> None:
    votes, _ = crowd(1, items=60)
    shuffled = votes[:]
    random.Random(1).shuffle(shuffled)
    for method in ("majority", "dawid_skene"):
        one, other = (consensus(v, method=method, threshold=0.8) for v in (votes, shuffled))  # type: ignore[arg-type]
        assert one == other


def test_adjudication_settles_an_item_and_teaches_the_estimate() -> None:
    votes, truth = crowd(2, items=60)
    known = {f"item{i:04}": t for i, t in enumerate(truth) if i < 30}
    found = {
        d.item: d for d in consensus(votes, method="dawid_skene", threshold=0.9, adjudicated={**known, "new": "a"})
    }
    assert all((found[i].label, found[i].how, found[i].disputed) == (t, "adjudicated", False) for i, t in known.items())
    assert (found["new"].label, found["new"].votes) == ("a", {})
    table = Votes.of(votes)
    place = {i: LABELS.index(t) for i, t in enumerate(truth)}
    taught = dawid_skene(table, known=place, smoothing=0.0).confusion
    a = 0
    mine = (table.annotator == a) & (np.array(truth)[table.item] == "a")
    assert taught[a, 0, 0] == pytest.approx((table.label[mine] == 0).mean())


def test_all_that_is_wrong_with_votes_is_said_at_once() -> None:
    with pytest.raises(DataError) as e:
        Votes.of([("i", "x", "a"), ("i", "x", "b"), ("j", "y", "q")], labels=("a", "b"))
    assert len(e.value.problems) == 2
    with pytest.raises(DataError, match="adjudicated as 'q'"):
        consensus([], method="majority", threshold=0.5, labels=("a",), adjudicated={"i": "q"})
    assert consensus([], method="majority", threshold=0.5) == []


def test_reliability_does_not_flatter_and_finds_who_guesses() -> None:
    votes, truth = crowd(7, items=300, annotators=6, each=4)
    votes = [(i, w, v) for i, w, v in votes if w != "ann00"]
    generator = np.random.default_rng(0)
    votes += [(f"item{i:04}", "guesser", LABELS[generator.integers(0, 4)]) for i in range(300)]
    facts = reliability(votes, method="majority")
    found = facts["annotators"]["guesser"]
    assert found["compared"] + found["not_compared"] == found["votes"] == 300
    assert found["accuracy"]["low"] < 0.25 + 0.1 and found["accuracy"]["high"] < 0.5
    assert sum(n for row in found["confusion"].values() for n in row.values()) == found["compared"]
    with_truth = reliability(votes, method="majority", adjudicated={f"item{i:04}": t for i, t in enumerate(truth)})
    for name, f in with_truth["annotators"].items():
        mine = [(truth[int(i[4:])], v) for i, w, v in votes if w == name]
        assert f["accuracy"]["value"] == pytest.approx(sum(a == b for a, b in mine) / len(mine), abs=1e-6)
    assert reliability_words(facts).splitlines()[1].strip().startswith("guesser")


def test_two_annotators_who_disagree_are_each_compared_with_the_other_alone() -> None:
    facts = reliability([("i", "x", "a"), ("i", "y", "b"), ("j", "x", "a")], method="dawid_skene")
    assert facts["annotators"]["x"]["confusion"] == {"b": {"a": 1}}
    assert facts["annotators"]["x"]["not_compared"] == 1
    alone = reliability([("j", "x", "a")], method="majority")
    assert alone["annotators"]["x"]["accuracy"] is None
    assert "give the same items to somebody else" in reliability_words(alone)


def test_words_name_the_disputed_items() -> None:
    votes = [("i1", "x", "a"), ("i1", "y", "b"), ("i2", "x", "a"), ("i2", "y", "a")]
    facts = consensus_facts(votes, method="majority", threshold=0.6, adjudicated={"i3": "b"})
    assert (facts["items"], facts["ties"], facts["unanimous"], facts["adjudicated"]) == (3, 1, 1, 1)
    assert "i1  a tie between a and b; votes: a 1, b 1" in consensus_words(facts)
