"""The labels as a tree: what is shared, what is inner, and which label sets cannot be told apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import InputError
from tunesmith.model.trie import LabelTrie

STOP = 0
labels_of = st.lists(st.lists(st.integers(1, 3), max_size=5).map(tuple), min_size=1, max_size=8, unique=True)


@given(labels_of)
def test_every_label_is_spelled_by_its_path(sequences: list[tuple[int, ...]]) -> None:
    whole = [(*s, STOP) for s in sequences]
    trie = LabelTrie([str(s) for s in sequences], whole)
    for label, path in enumerate(trie.paths):
        assert tuple(trie.tokens[n] for n in path) == whole[label]
        assert [trie.depths[n] for n in path] == list(range(1, len(path) + 1))
        assert not trie.children[path[-1]], "a label is a leaf, also where it begins another"
        assert set(path[:-1]) <= set(trie.inner)
    prefixes = {s[:k] for s in sequences for k in range(1, len(s) + 1)}
    assert len(trie.inner) == len(prefixes), "each shared beginning is one node"
    for node in trie.inner:
        assert sorted(trie.below[node]) == [k for k, p in enumerate(trie.paths) if node in p]


@given(labels_of)
def test_edges_end_at_forks_and_cover_the_tree(sequences: list[tuple[int, ...]]) -> None:
    trie = LabelTrie([str(s) for s in sequences], [(*s, STOP) for s in sequences])
    for node in trie.inner:
        edge = trie.edge(node)
        assert edge[0] == node
        for a, b in pairwise(edge):
            assert list(trie.children[a].values()) == [b]
        last = trie.children[edge[-1]].values()
        assert len(last) > 1 or not trie.children[next(iter(last))]


def test_ancestors_include_the_node_and_the_root() -> None:
    trie = LabelTrie(["a", "b"], [[5, 6, 7, STOP], [5, 8, STOP]])
    assert [trie.tokens[n] for n in trie.ancestors(trie.paths[0][2])] == [7, 6, 5, -1]


def test_labels_that_cannot_be_told_apart_are_refused_together() -> None:
    with pytest.raises(InputError) as e:
        LabelTrie(["cat", "dog", "cat", "hound"], [[1, STOP], [2, STOP], [1, STOP], [2, STOP]])
    assert len(e.value.problems) == 2
    assert "label 'cat': is given twice" in str(e.value)
    assert "label 'hound': has the same tokens as 'dog'" in str(e.value)


def test_a_label_that_holds_the_stop_token_of_another_is_refused() -> None:
    with pytest.raises(InputError, match="is the start of another label"):
        LabelTrie(["a", "b"], [[1, STOP], [1, STOP, 3, STOP]])


def test_no_labels_is_refused() -> None:
    with pytest.raises(InputError, match="there are none"):
        LabelTrie([], [])
