"""Texts with near-duplicates in them, brute-force answers, and the stage dedup for the tests of this room."""

from __future__ import annotations

import random
import re
import unicodedata
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.data.making import Checked, jsonl, run_check
from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.near.dedup import dedup
from tunesmith.data.near.stages import DedupInputs, DedupSpec

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def brute_set(text: str) -> frozenset[tuple[str, ...]]:
    """Word pairs by regular expression, for texts of letters and digits in scripts with spaces."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
    if len(words) < 2:
        return frozenset([tuple(words) or ("", " ".join(text.split()))])
    return frozenset(pairwise(words))


def jaccard(a: str, b: str) -> float:
    left, right = brute_set(a), brute_set(b)
    return len(left & right) / len(left | right)


def brute_pairs(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    return {(i, j) for (i, a), (j, b) in combinations(enumerate(texts), 2) if jaccard(a, b) >= threshold}


# few words and a grammar of copies: many pairs near any threshold
sentence = st.lists(st.sampled_from(WORDS), min_size=0, max_size=14).map(" ".join)


@st.composite
def families(draw: st.DrawFn, most: int = 30) -> list[str]:
    """Texts, some of which are edited copies of others."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    texts: list[str] = []
    for _ in range(draw(st.integers(1, most))):
        if texts and rng.random() < 0.7:
            words = rng.choice(texts).split()
            for _ in range(rng.randint(0, 2)):
                if words and rng.random() < 0.5:
                    words[rng.randrange(len(words))] = rng.choice(WORDS)
                else:
                    words.insert(rng.randint(0, len(words)), rng.choice(WORDS))
            texts.append(" ".join(words))
        else:
            texts.append(" ".join(rng.choices(WORDS, k=rng.randint(0, 18))))
    return texts


def dedup_spec(**changes: Any) -> DedupSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "near": 0.7,
        "across": True,
        "keep": "first",
        "newest_by": None,
        "templates": True,
        "contradictions": "review",
        "candidates": "exact",
        "against": 0.8,
        "semantic": 0.0,
        "restored": (),
    }
    return DedupSpec(**{**usual, **changes})


class Deduped:
    """What the stage dedup wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_json(folder / "dedup.json")
        self.rows: list[Row] = list(read_lines(folder / "rows.jsonl", Row))
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))
        self.clusters: list[Any] = list(read_lines(folder / "clusters.jsonl"))
        self.review: list[Any] = list(read_lines(folder / "review.jsonl"))

    @property
    def kept(self) -> list[int]:
        return [row.line for row in self.rows]

    def reasons(self, step: str = "dedup") -> dict[str, tuple[str, str]]:
        return {f"{g.file}:{g.line}": (g.reason, g.detail) for g in self.left_out if g.step == step}


def run_dedup(root: Path, examples: Path, **changes: Any) -> Deduped:
    folders = {name: changes.pop(name) for name in ("against", "sealed", "encoder") if isinstance(changes.get(name), Path)}  # fmt: skip
    return Deduped(dedup(dedup_spec(**changes), DedupInputs(examples=examples, **folders), Workspace(root=root)).examples)  # fmt: skip


def examples_of(root: Path, rows: list[tuple[str, str]], **changes: Any) -> Checked:
    """Check's examples with every row in, duplicates too, one line each."""
    body = jsonl({"text": text, "label": label} for text, label in rows)
    return run_check(root, {"rows.jsonl": body}, duplicates="keep", text="text", label="label", **changes)


def write_examples(folder: Path, rows: list[Row]) -> Path:
    """An examples folder as a step finds it."""
    from tunesmith.core.canonical import canonical_json, write_lines

    folder.mkdir(parents=True)
    write_lines(folder / "rows.jsonl", rows)
    write_lines(folder / "left_out.jsonl", [])
    (folder / "check.json").write_bytes(canonical_json({"groups": {"by": "row"}}) + b"\n")
    return folder


def row(text: str, label: str = "a", *, line: int, file: str = "r.jsonl", group: str = "", **changes: Any) -> Row:
    from tunesmith.core.nouns import Example, Message

    example = Example(messages=(Message(role="user", content=text),), target=label)
    return Row(
        id=example.id,
        messages=example.messages,
        target=label,
        file=file,
        line=line,
        group=group or example.id,
        **changes,
    )
