"""Stage compare: are these rows like the inputs the model will meet?

    dataset, sample of real inputs -> compare.json, for the training and for the test rows

A classifier two-sample test (Lopez-Paz and Oquab 2017): if nothing can tell the rows from the real inputs,
they are alike as far as words go. The classifier is ridge regression on TF-IDF, because its out-of-fold
scores are linear in the labels: one matrix gives them for every permutation, so the p value is that of the
whole procedure, refitted each time. Groups are never split between folds and are permuted whole.
Real inputs have no groups: a sample full of near-copies of each other looks more different than it is.

Terms: log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, eq. 22), on the number
of texts that have a term.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.canonical import canonical_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.enough.power_law import Floats
from tunesmith.data.enough.stages import CompareInputs, CompareOutputs, CompareSpec
from tunesmith.data.enough.words import compare_words
from tunesmith.data.lines import FileFacts, Record, physical_lines
from tunesmith.data.proxy import Ints, grouped_folds, rank_of, row_text
from tunesmith.data.read import facts_of, read_file
from tunesmith.data.validate import normalised

FOLDS = 5
RIDGE = 1.0  # added to the Gram matrix of unit-length texts
DRAWS = 1_000  # of the AUC's bootstrap
CONFIDENCE = 0.95
FEWEST = 20  # texts of each side
COLUMNS = ("text", "input", "prompt", "question", "message", "content")  # tried where none is named
Z = 3.0  # standard deviations from which a term is listed
PRIOR = 100.0  # texts' worth of prior


def compare(spec: CompareSpec, inputs: CompareInputs, work: Workspace) -> CompareOutputs:
    """Raises DataError for a sample that cannot be read, or with fewer than 20 texts on either side."""
    real, read = sample_texts(inputs.sample, spec.text)
    chosen = _draw([(text, text) for text in real], spec.most_rows, spec.seed)
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        rows = [
            (row.group, row_text(row))
            for row in read_lines(inputs.dataset / f"{split}.jsonl", Row)
            if not row.origin.startswith("augment.")
        ]
        work.stop_if_asked()
        work.progress(len(found), 2, "compare", rows=len(rows))
        found[split] = two_samples(
            _draw(rows, spec.most_rows, spec.seed),
            chosen,
            permutations=spec.permutations,
            terms=spec.terms,
            seed=spec.seed,
        )
    facts: dict[str, Any] = {"sample": {"read": read, "different": len(real), "used": len(chosen)}, "splits": found}
    facts["words"] = compare_words(facts)
    folder = work.scratch / "comparison"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "compare.json", canonical_json(facts) + b"\n")
    work.summarize(auc={split: f["auc"]["value"] for split, f in found.items()})
    return CompareOutputs(comparison=folder)


def sample_texts(folder: Path, column: str | None) -> tuple[list[str], int]:
    """Different texts of the sample in the order of their files, and how many were read. A .txt file has one
    input a line; any other has records. Raises one DataError for all that cannot be read."""
    texts: dict[str, str] = {}  # normalised -> first seen
    read = 0
    problems: list[Problem] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        try:
            for text in _texts_of(path, name, column):
                read += 1
                texts.setdefault(normalised(text), text)
        except DataError as e:
            problems += e.problems
    if problems:
        raise DataError(problems)
    return list(texts.values()), read


def _texts_of(path: Path, name: str, column: str | None) -> Iterator[str]:
    if path.suffix == ".txt":
        with open(path, "rb") as f:
            for line in physical_lines(f, FileFacts(file=name), keep_ends=False):
                if line.fault is not None:
                    raise DataError(line.fault.what, where=f"{name}:{line.number}", fix=line.fault.fix)
                if line.text.strip():
                    yield line.text
        return
    wanted = (column,) if column else COLUMNS
    for record in read_file(path, facts_of(path, name)):
        if not isinstance(record, Record):
            raise DataError(record.fault.what, where=f"{name}:{record.line}", fix=record.fault.fix)
        found = next((record.fields[c] for c in wanted if c in record.fields), None)
        if not isinstance(found, str):
            what = f"there is no text under {' or '.join(wanted)}"
            raise DataError(what, where=f"{name}:{record.line}", fix="name the column with the input")
        if found.strip():
            yield found


def _draw(texts: Sequence[tuple[str, str]], most: int, seed: int) -> list[tuple[str, str]]:
    """At most so many (group, text), chosen and ordered by hash: neither order nor number of the others matters."""
    return sorted(texts, key=lambda t: (rank_of(t[1], f"compare {seed}"), t))[:most]


def two_samples(
    data: Sequence[tuple[str, str]], real: Sequence[tuple[str, str]], *, permutations: int, terms: int, seed: int
) -> dict[str, Any]:
    """JSON-ready facts from (group, text) of either side."""
    for name, side in (("the data", data), ("the sample of real inputs", real)):
        if len(side) < FEWEST:
            raise DataError(f"{len(side)} texts of {name} are too few to compare: {FEWEST} are needed")
    from sklearn.feature_extraction.text import TfidfVectorizer

    groups = [f"data {g}" for g, _ in data] + [f"real {g}" for g, _ in real]
    # an input that is on both sides shares a fold with itself: else its twin would vote against it
    home = {normalised(t): f"data {g}" for g, t in data}
    folded = groups[: len(data)] + [home.get(normalised(t), f"real {g}") for g, t in real]
    texts = [t for _, t in (*data, *real)]
    is_real = np.array([False] * len(data) + [True] * len(real))
    try:
        x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    except ValueError as e:  # scikit-learn's "empty vocabulary"
        raise DataError(f"there are no words to compare: {e}", fix="check the text column") from e
    fold = grouped_folds(folded, is_real.astype(int).tolist(), folds=FOLDS, salt=f"compare {seed}")
    smoother = _out_of_fold_smoother((x @ x.T).toarray(), fold)
    scores = smoother @ is_real.astype(np.float64)
    value = float(_auc(scores[:, None], is_real[:, None])[0])
    generator = np.random.default_rng(seed)
    code = np.unique(groups, return_inverse=True)[1]
    group_is_real = np.zeros(int(code.max()) + 1, dtype=bool)
    group_is_real[code] = is_real
    as_high = 0
    block = 100
    for first in range(0, permutations, block):
        n = min(block, permutations - first)
        permuted = np.stack([generator.permutation(group_is_real)[code] for _ in range(n)], axis=1)
        as_high += int((_auc(smoother @ permuted.astype(np.float64), permuted) >= value - 1e-12).sum())
    low, high = _interval(scores, is_real, code, generator)
    words = {side: float(np.median([len(t.split()) for _, t in s])) for side, s in (("data", data), ("real", real))}
    return {
        "data": len(data),
        "real": len(real),
        "auc": {"value": round(value, 6), "low": round(min(low, value), 6), "high": round(max(high, value), 6)},
        "p": round((1 + as_high) / (permutations + 1), 6),
        "permutations": permutations,
        "terms": _terms(texts, is_real, terms),
        "words_in_a_text": words,
    }


def _out_of_fold_smoother(gram: Floats, fold: Ints) -> Floats:
    """(N, N): row i gives the score of text i, from the labels of the texts outside its fold."""
    n = len(gram)
    smoother = np.zeros((n, n))
    for k in np.unique(fold):
        held, taught = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        inner = gram[np.ix_(taught, taught)] + RIDGE * np.eye(len(taught))
        weights = np.linalg.solve(inner, gram[np.ix_(taught, held)]).T  # (held, taught)
        weights -= weights.mean(axis=1, keepdims=True)  # the labels are centred by their mean among the taught
        smoother[np.ix_(held, taught)] = weights
    return smoother


def _auc(scores: Floats, is_real: np.ndarray) -> Floats:
    """(P,) area under the ROC curve of each column of scores (N, P), ties counted half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    positives = is_real.sum(axis=0)
    negatives = len(is_real) - positives
    return (np.where(is_real, ranks, 0.0).sum(axis=0) - positives * (positives + 1) / 2) / (positives * negatives)


def _interval(scores: Floats, is_real: np.ndarray, group: Ints, generator: np.random.Generator) -> tuple[float, float]:
    """Bootstrap of the AUC over groups, the scores held: how much the texts drawn matter, not the fitting."""
    order = np.argsort(scores, kind="stable")
    s, real = scores[order], is_real[order]
    first = np.searchsorted(s, s, side="left")
    last = np.searchsorted(s, s, side="right")
    draws = np.empty(DRAWS)
    for d in range(DRAWS):
        w = generator.standard_exponential(int(group.max()) + 1)[group][order]
        below = np.concatenate([[0.0], np.cumsum(np.where(real, 0.0, w))])
        wins = (below[first] + below[last]) / 2
        positive = np.where(real, w, 0.0)
        draws[d] = (positive * wins).sum() / (positive.sum() * below[-1])
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(draws, tail)), float(np.quantile(draws, 1 - tail))


def _terms(texts: Sequence[str], is_real: np.ndarray, most: int) -> dict[str, list[dict[str, Any]]]:
    """The terms that differ most, each with the share of texts that have it on either side."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(ngram_range=(1, 2), binary=True, min_df=3)
    try:
        x = counter.fit_transform(texts)
    except ValueError:  # no term is in three texts
        return {"more_in_real": [], "more_in_data": []}
    names = counter.get_feature_names_out()
    real, data = (np.asarray(x[side].sum(axis=0), dtype=np.float64).ravel() for side in (is_real, ~is_real))
    n_real, n_data = float(is_real.sum()), float((~is_real).sum())
    prior = PRIOR * (real + data) / (n_real + n_data)
    odds = [np.log((k + prior) / (n + PRIOR - k - prior)) for k, n in ((real, n_real), (data, n_data))]
    z = (odds[0] - odds[1]) / np.sqrt(1 / (real + prior) + 1 / (data + prior))
    order = sorted(range(len(names)), key=lambda i: (-abs(z[i]), names[i]))
    found: dict[str, list[dict[str, Any]]] = {"more_in_real": [], "more_in_data": []}
    for i in order:
        side = found["more_in_real" if z[i] > 0 else "more_in_data"]
        if abs(z[i]) < Z or len(side) == most or _is_part_of_one_listed(names[i], side):
            continue
        shares = {"real": round(float(real[i]) / n_real, 6), "data": round(float(data[i]) / n_data, 6)}
        side.append({"term": str(names[i]), **shares, "z": round(float(z[i]), 3)})
    return found


def _is_part_of_one_listed(term: str, listed: Sequence[dict[str, Any]]) -> bool:
    """A pair whose word is listed already, or a word of a listed pair, says the same again."""
    words = set(term.split())
    return any(words & set(f["term"].split()) for f in listed)
