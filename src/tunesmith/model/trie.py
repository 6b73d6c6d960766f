"""The labels as a tree of tokens, so that what labels share is computed once. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tunesmith.core.errors import InputError, Problem


class LabelTrie:
    """Node 0 is the end of the prompt; every other node is a token after its parent's.

    A label ends in its stop token, so it is always a leaf, also where one label begins another. Inner
    nodes are those whose next-token distribution is needed; leaves never enter the model.
    """

    def __init__(self, labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
        """`sequences[i]` are the tokens of `labels[i]`, stop token last. Raises InputError for equal ones."""
        self.labels = tuple(labels)
        self.tokens = [-1]
        self.parents = [-1]
        self.depths = [0]  # tokens after the prompt
        self.children: list[dict[int, int]] = [{}]
        self.leaves: list[int] = []  # label → leaf
        owner: dict[int, int] = {}
        problems = []
        for label, sequence in enumerate(sequences):
            node = 0
            for token in sequence:
                if token not in self.children[node]:
                    self.children[node][token] = self._add(token, node)
                node = self.children[node][token]
            if node in owner:
                problems.append(_same(labels[owner[node]], labels[label]))
            owner[node] = label
            self.leaves.append(node)
        for label, leaf in enumerate(self.leaves):
            if self.children[leaf] and not problems:
                problems.append(
                    Problem(where=f"label {labels[label]!r}", what="is the start of another label, stop token included")
                )
        if not sequences:
            problems.append(Problem(where="labels", what="there are none", fix="declare at least two classes"))
        if problems:
            raise InputError(problems)

    def _add(self, token: int, parent: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.children.append({})
        return len(self.tokens) - 1

    @cached_property
    def inner(self) -> list[int]:
        """Every node but the root that has children: what a full evaluation feeds to the model."""
        return [n for n in range(1, len(self.tokens)) if self.children[n]]

    @cached_property
    def paths(self) -> list[list[int]]:
        """Label → its nodes, from the first token to the leaf."""
        found = []
        for leaf in self.leaves:
            path = [leaf]
            while self.parents[path[-1]] > 0:
                path.append(self.parents[path[-1]])
            found.append(path[::-1])
        return found

    @cached_property
    def below(self) -> list[list[int]]:
        """Node → the labels whose path goes through it."""
        found: list[list[int]] = [[] for _ in self.tokens]
        for label, path in enumerate(self.paths):
            for node in path:
                found[node].append(label)
        return found

    def edge(self, node: int) -> list[int]:
        """From an inner node down to the next fork: nothing is decided between them, so they go together."""
        nodes = [node]
        while len(self.children[nodes[-1]]) == 1:
            (child,) = self.children[nodes[-1]].values()
            if not self.children[child]:
                break
            nodes.append(child)
        return nodes

    def ancestors(self, node: int) -> list[int]:
        """The node, its parents, and the root."""
        found = [node]
        while found[-1] != 0:
            found.append(self.parents[found[-1]])
        return found


def _same(first: str, second: str) -> Problem:
    what = "is given twice" if first == second else f"has the same tokens as {first!r}: no model can tell them apart"
    return Problem(where=f"label {second!r}", what=what, fix="give each class a name of its own")
