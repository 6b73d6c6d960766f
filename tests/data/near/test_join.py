"""Shingles, the exact join, components and stars against brute force and datasketch."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.near.making import WORDS, brute_pairs, brute_set, families, jaccard
from tunesmith.data.near import join as join_module
from tunesmith.data.near import shingles as module
from tunesmith.data.near.clusters import components, stars
from tunesmith.data.near.join import NEVER, Join, pairs, similarities
from tunesmith.data.near.minhash import bands_for, minhash_keys
from tunesmith.data.near.shingles import Shingles, phrases_of, shingles

THRESHOLDS = st.sampled_from([0.07, 0.3, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0])


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(1, 60))
def test_a_set_depends_on_its_text_alone(texts: list[str], chunk: int) -> None:
    whole = shingles(texts)
    before, module.CHUNK = module.CHUNK, chunk
    try:
        parts = shingles(texts)
    finally:
        module.CHUNK = before
    assert np.array_equal(whole.values, parts.values) and np.array_equal(whole.offsets, parts.offsets)
    for i, text in enumerate(texts):
        alone = shingles([text])
        assert np.array_equal(alone.values, whole.of(i)) and len(alone.values) >= 1
        assert (np.diff(alone.values.astype(np.int64)) > 0).all()


@given(st.lists(st.text(alphabet="abAB12 -.\u00e9\u00c9\ufb01\u2460", max_size=30), min_size=1, max_size=8))
def test_sets_have_the_sizes_and_overlaps_of_real_sets(texts: list[str]) -> None:
    found, want = shingles(texts), [brute_set(t) for t in texts]
    assert found.sizes.tolist() == [len(s) for s in want]
    a, b = np.triu_indices(len(texts))
    got = similarities(found, a, b)
    assert got.tolist() == [len(want[i] & want[j]) / len(want[i] | want[j]) for i, j in zip(a, b, strict=True)]


def test_placement_of_hashes_never_changes() -> None:
    got = shingles(["The quick brown fox", "\u6771\u4eac\u306b\u884c\u304f", "?!", ""])
    assert got.values.tolist() == GOLDEN and got.sizes.tolist() == [3, 4, 1, 1]


def test_text_without_spaces_is_compared_by_characters() -> None:
    one, other = (
        "\u79c1\u306f\u6771\u4eac\u306b\u884c\u304d\u307e\u3059",
        "\u79c1\u306f\u5927\u962a\u306b\u884c\u304d\u307e\u3059",
    )
    sets = shingles([one, other, "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"])
    assert sets.sizes.tolist() == [8, 8, 5]
    assert similarities(sets, np.array([0]), np.array([1])).tolist() == [5 / 11]


def test_short_texts_are_alike_only_when_they_say_the_same() -> None:
    sets = shingles(["ticket 12", "ticket 13", "Ticket  12!", "?!", "!?", "?!"])
    assert pairs(Join(sets, 0.3))[:2][0].tolist() == [0, 3] and pairs(Join(sets, 0.3))[1].tolist() == [2, 5]


@settings(max_examples=150, deadline=None)
@given(families(), THRESHOLDS)
def test_the_join_finds_every_pair_and_no_other(texts: list[str], threshold: float) -> None:
    a, b, alike = pairs(Join(shingles(texts), threshold))
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == brute_pairs(texts, threshold)
    assert alike.tolist() == [jaccard(texts[i], texts[j]) for i, j in zip(a, b, strict=True)]


@settings(max_examples=60, deadline=None)
@given(families(), THRESHOLDS, st.integers(1, 40))
def test_no_pair_is_lost_between_two_blocks(texts: list[str], threshold: float, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_module, "BLOCK", block)
        patch.setattr(join_module, "CACHED_SHINGLES", block)
        a, b, _ = pairs(Join(shingles(texts), threshold))
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == brute_pairs(texts, threshold)


@settings(max_examples=60, deadline=None)
@given(families(), st.data())
def test_only_pairs_between_labels_are_found(texts: list[str], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(NEVER, 2), min_size=len(texts), max_size=len(texts)))
    a, b, _ = pairs(Join(shingles(texts), 0.5), np.array(labels))
    want = {
        (i, j) for i, j in brute_pairs(texts, 0.5) if labels[i] != labels[j] and NEVER not in (labels[i], labels[j])
    }
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == want


@settings(max_examples=60, deadline=None)
@given(families(), st.sampled_from([0.5, 0.7, 0.9]), st.sampled_from([0.9, 1.0]))
def test_components_are_those_of_the_graph(texts: list[str], threshold: float, higher: float) -> None:
    for level in (threshold, higher):
        labels = np.arange(len(texts))
        components(Join(shingles(texts), threshold), labels, level)
        want = list(range(len(texts)))
        for i, j in sorted(brute_pairs(texts, level)) * len(texts):
            want[i] = want[j] = min(want[i], want[j])
        assert labels.tolist() == want


@settings(max_examples=80, deadline=None)
@given(families(), st.sampled_from([0.4, 0.6, 0.8]), st.randoms(use_true_random=False))
def test_stars_are_what_one_pass_in_order_of_rank_gives(texts: list[str], threshold: float, rng: random.Random) -> None:
    n = len(texts)
    rank, answer = np.array(rng.sample(range(n), n)), np.array([rng.randrange(2) for _ in range(n)])
    near = brute_pairs(texts, threshold)
    found = stars(Join(shingles(texts), threshold), rank, answer=answer)
    gone = {m for star in found for m in star.members.tolist()}
    want: set[int] = set()
    for row in np.argsort(rank).tolist():
        others = [o for o in range(n) if (min(o, row), max(o, row)) in near and o not in want and rank[o] > rank[row]]
        if row not in want:
            want |= {o for o in others if answer[o] == answer[row]}
    assert gone == want
    for star in found:
        assert star.kept not in gone
        for member, alike in zip(star.members.tolist(), star.similarity.tolist(), strict=True):
            assert (
                alike == jaccard(texts[star.kept], texts[member]) >= threshold and answer[member] == answer[star.kept]
            )
        assert all(answer[c] != answer[star.kept] for c in star.contrary.tolist())


def documents(n: int, rng: random.Random, copies: float = 0.5) -> list[str]:
    vocabulary = [f"w{i}" for i in range(3_000)]
    texts: list[str] = []
    for _ in range(n):
        if texts and rng.random() < copies:
            words = rng.choice(texts).split()
            for _ in range(rng.randint(0, 12)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
        else:
            words = rng.choices(vocabulary, k=rng.randint(30, 90))
        texts.append(" ".join(words))
    return texts


def test_it_finds_all_that_datasketch_finds_and_what_it_misses() -> None:
    datasketch = pytest.importorskip("datasketch")
    texts = documents(250, random.Random(3))
    lsh = datasketch.MinHashLSH(threshold=0.7, num_perm=128)
    theirs = set()
    for i, text in enumerate(texts):
        minhash = datasketch.MinHash(num_perm=128)
        minhash.update_batch([" ".join(s).encode() for s in brute_set(text)])
        theirs |= {(j, i) for j in lsh.query(minhash) if jaccard(texts[i], texts[j]) >= 0.7}
        lsh.insert(i, minhash)
    a, b, _ = pairs(Join(shingles(texts), 0.7))
    ours = set(zip(a.tolist(), b.tolist(), strict=True))
    assert ours == brute_pairs(texts, 0.7) and len(ours) > 50
    assert theirs <= ours


def test_minhash_candidates_are_right_and_nearly_all() -> None:
    texts = documents(600, random.Random(5))
    sets = shingles(texts)
    exact = set(zip(*(x.tolist() for x in pairs(Join(sets, 0.7))[:2]), strict=True))
    likely = set(zip(*(x.tolist() for x in pairs(Join(sets, 0.7, minhash_keys))[:2]), strict=True))
    assert likely <= exact and len(likely) >= 0.8 * len(exact)
    assert bands_for(0.7) == (14, 9)  # what datasketch chooses for 128 permutations


def test_ten_thousand_copies_take_no_hundred_million_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    base = rng.choices(WORDS + [f"x{i}" for i in range(400)], k=120)
    texts = [" ".join([*base[:60], f"n{i}", *base[60:]]) for i in range(10_000)]
    join = Join(shingles(texts), 0.8)
    compared = 0
    plausible = join._plausible

    def counted(a: object, b: object, labels: object, t: float) -> object:
        nonlocal compared
        compared += len(a)  # type: ignore[arg-type]
        return plausible(a, b, labels, t)  # type: ignore[arg-type]

    monkeypatch.setattr(join, "_plausible", counted)
    labels = np.arange(len(texts))
    components(join, labels)
    assert not labels.any() and compared < 100 * len(texts)
    (star,) = stars(join, np.arange(len(texts)))
    assert star.kept == 0 and len(star.members) == len(texts) - 1


def test_hashes_do_not_depend_on_the_hash_seed() -> None:
    code = "from tunesmith.data.near.shingles import shingles; print(shingles(['The quick brown fox']).values.tolist())"
    for seed in ("0", "7"):
        out = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)  # fmt: skip
        assert out.stdout.strip() == str(GOLDEN[:3])


def test_phrases_are_runs_of_wanted_shingles() -> None:
    wanted = shingles(["contains the development files for"]).values
    assert (
        phrases_of("This package contains the (development) files for Foo.", wanted)[0][0]
        == "contains the (development) files for"
    )
    assert phrases_of("", wanted) == [] and phrases_of("nothing of it", wanted) == []


def test_taking_rows_takes_their_sets() -> None:
    sets = shingles(["a b c", "d", "e f g h"])
    some = sets.take(np.array([2, 0]))
    assert isinstance(some, Shingles) and [some.of(0).tolist(), some.of(1).tolist()] == [
        sets.of(2).tolist(),
        sets.of(0).tolist(),
    ]


@given(families(), st.randoms(use_true_random=False), st.integers(1, 9))
def test_taking_rows_in_the_same_room_takes_their_sets(texts: list[str], rng: random.Random, taken: int) -> None:
    rows = np.array(sorted(rng.sample(range(len(texts)), rng.randint(0, len(texts)))), np.int64)
    want = shingles(texts).take(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TAKEN", taken)
        sets = shingles(texts)
        got = sets.take(rows, overwrite=True)
    assert np.array_equal(got.values, want.values) and np.array_equal(got.offsets, want.offsets)
    assert len(got.values) == 0 or np.shares_memory(got.values, sets.values)


GOLDEN = [496908162, 1391710352, 2192570864, 2010292999, 2954278638, 3850850803, 4038445321, 3761023653, 309448485]
