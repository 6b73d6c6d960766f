"""Stage curve: would more rows help? The score on validation against the number of training rows.

    dataset -> curve.json: points with intervals, a fitted power law, "doubling the rows is worth 1 to 3 points",
               and the same for single classes; a refusal with its reason where the curve foretells nothing

Sizes are nested: in each repeat the groups have one random order (by hash) and a size takes the first of them.
A class's own curve varies the rows of that class alone and keeps all others. Intervals resample the repeats
and, by group, the validation rows, with the same weights at every size. The test set is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from tunesmith.core.canonical import canonical_json, read_json, read_lines, write_atomic
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.enough.power_law import Floats, fit_laws, forecast
from tunesmith.data.enough.stages import CurveInputs, CurveOutputs, CurveSpec
from tunesmith.data.enough.words import curve_words
from tunesmith.data.proxy import Ints, fit, rank_of, row_text, vectorizer
from tunesmith.metrics.classification import macro_f1
from tunesmith.metrics.sums import Items, Sums

DRAWS = 500  # of the bootstrap
FEWEST_ROWS = 40  # training rows of a class for a curve of its own
FEWEST_JUDGED = 10  # validation rows of it
CHART_POINTS = 40

Learn = Callable[[Sequence[int]], list[str]]  # places of training rows -> answers to the validation rows


def curve(spec: CurveSpec, inputs: CurveInputs, work: Workspace) -> CurveOutputs:
    """Raises DataError where there is nothing to tell apart."""
    facts = read_json(inputs.dataset / "dataset.json")
    if facts["kind"] != "classify":
        raise DataError(
            f"a learning curve by the cheap model needs classes, and this is a {facts['kind']} task",
            fix="train on data.limit rows, once with half of them, and compare the two reports",
        )
    train = _most(list(read_lines(inputs.dataset / "train.jsonl", Row)), spec.most_rows, spec.seed)
    validation = list(read_lines(inputs.dataset / "validation.jsonl", Row))
    found = learning_curve(
        train,
        validation,
        learn=proxy(train, validation, seed=spec.seed),
        points=spec.points,
        repeats=spec.repeats,
        classes=spec.classes,
        confidence=spec.confidence,
        seed=spec.seed,
        work=work,
    )
    found |= {"model": "tfidf", "rows_not_used": facts["counts"]["train"] - len(train)}
    found["words"] = curve_words(found)
    folder = work.scratch / "curve"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "curve.json", canonical_json(found) + b"\n")
    work.summarize(forecast=found["forecast"])
    return CurveOutputs(curve=folder)


def proxy(train: Sequence[Row], validation: Sequence[Row], *, seed: int) -> Learn:
    """The cheap model. The words and their frequencies are those of all training texts, whatever the size."""
    words = vectorizer()
    x = words.fit_transform(row_text(row) for row in train)
    asked = words.transform([row_text(row) for row in validation])
    names = sorted({row.target for row in train})
    place = {name: k for k, name in enumerate(names)}
    y = np.array([place[row.target] for row in train], dtype=np.int64)
    weight = np.array([row.weight for row in train])

    def learn(places: Sequence[int]) -> list[str]:
        taken = np.asarray(places, dtype=np.int64)
        if len(set(y[taken].tolist())) < 2:
            return [names[y[taken[0]]]] * len(validation)
        model = fit(x[taken], y[taken], seed=seed, weights=weight[taken])
        return [names[k] for k in model.predict(asked)]

    return learn


def _most(rows: list[Row], most: int, seed: int) -> list[Row]:
    """At most so many rows, by whole groups; copies that augmentation made would count a row twice."""
    rows = [row for row in rows if not row.origin.startswith("augment.")]
    if len(rows) <= most:
        return rows
    order = sorted({row.group for row in rows}, key=lambda g: (rank_of(g, f"curve rows {seed}"), g))
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.group] = sizes.get(row.group, 0) + 1
    inside = np.cumsum([sizes[g] for g in order]) <= most
    taken = {g for g, keep in zip(order, inside, strict=True) if keep}
    return [row for row in rows if row.group in taken]


def learning_curve(
    train: Sequence[Row],
    validation: Sequence[Row],
    *,
    learn: Learn,
    points: int,
    repeats: int,
    classes: int,
    confidence: float,
    seed: int,
    work: Workspace | None = None,
) -> dict[str, Any]:
    """JSON-ready facts. `learn` may be the model itself: it is called points × repeats times and more for the
    classes, with places in `train`, and gives one answer for each validation row."""
    if len({row.target for row in train}) < 2:
        raise DataError("the training rows show one class only", fix="add rows of at least one other class")
    measure = _Measure(train, validation, learn, repeats=repeats, confidence=confidence, seed=seed, work=work)
    everything = np.arange(len(train), dtype=np.int64)
    whole = measure.curve(varied=everything, fixed=everything[:0], points=points, label=None)
    judged = measure.judgeable()
    own = sorted(judged, key=lambda c: (whole.per_class[c], c))[:classes]
    curves = {}
    for label in own:
        mine = np.array([i for i, row in enumerate(train) if row.target == label], dtype=np.int64)
        others = np.setdiff1d(everything, mine)
        curves[label] = measure.curve(varied=mine, fixed=others, points=points, label=label).facts
    return {
        "metric": "macro_f1",
        "confidence": confidence,
        "train_rows": len(train),
        "validation_rows": len(validation),
        "repeats": repeats,
        **whole.facts,
        "classes": curves,
        "class_scores": {label: round(score, 6) for label, score in sorted(whole.per_class.items())},
        "classes_without_curve": {
            "better": sorted(judged - set(own)),
            "too_few_rows": sorted(set(whole.per_class) - judged),
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    facts: dict[str, Any]
    per_class: dict[str, float]  # F1 with all rows


class _Measure:
    """Scores of nested subsets and their bootstrap, with the same weights of validation rows everywhere."""

    def __init__(
        self,
        train: Sequence[Row],
        validation: Sequence[Row],
        learn: Learn,
        *,
        repeats: int,
        confidence: float,
        seed: int,
        work: Workspace | None,
    ) -> None:
        self.train, self.validation, self.learn = train, validation, learn
        self.repeats, self.confidence, self.seed, self.work = repeats, confidence, seed, work
        self.targets = [row.target for row in validation]
        self.labels = sorted({row.target for row in train} | set(self.targets))
        names = {g: i for i, g in enumerate(dict.fromkeys(row.group for row in validation))}
        generator = np.random.default_rng(seed)
        by_group = generator.standard_exponential((DRAWS, len(names)))
        self.weights = by_group[:, [names[row.group] for row in validation]]  # (D, V)
        self.chosen = generator.integers(0, repeats, size=(DRAWS, repeats))  # repeats of each draw
        self._answers: dict[bytes, list[str]] = {}  # the largest size is the same in every repeat

    def judgeable(self) -> set[str]:
        def count(rows: Sequence[Row], label: str) -> int:
            return sum(row.target == label for row in rows)

        return {
            c for c in self.labels if count(self.train, c) >= FEWEST_ROWS and count(self.validation, c) >= FEWEST_JUDGED
        }

    def curve(self, *, varied: Ints, fixed: Ints, points: int, label: str | None) -> _Curve:
        """Scores against the number of `varied` rows, the `fixed` ones always present."""
        smallest = 8 if label is None else 2
        wanted = [n for n in (len(varied) / 2 ** (i / 2) for i in reversed(range(points))) if n >= smallest]
        scores = np.zeros((self.repeats, len(wanted)))
        drawn = np.zeros((DRAWS, self.repeats, len(wanted)))
        sizes = np.zeros((self.repeats, len(wanted)))
        answers: list[str] = []
        for r in range(self.repeats):
            order = self._order(varied, r)
            for s, n in enumerate(wanted):
                taken = order[: _up_to_whole_group(self.train, order, round(n))]
                sizes[r, s] = len(taken)
                answers = self._answer(np.sort(np.concatenate([fixed, taken])))
                scores[r, s], drawn[:, r, s] = self._score(answers, label)
        mean_sizes, mean = sizes.mean(axis=0), scores.mean(axis=0)
        resampled = np.take_along_axis(drawn, self.chosen[:, :, None], axis=1).mean(axis=1)  # (D, S)
        found = forecast(mean_sizes, mean, resampled, to=2 * len(varied), confidence=self.confidence)
        found["luck"] = _luck(sizes, scores, self.confidence)
        facts = {
            "points": self._points(mean_sizes, mean, scores, resampled),
            "law_series": self._series(mean_sizes, mean, resampled, found),
            "forecast": found,
        }
        per_class = (
            {c: self._score(answers, c)[0] for c in self.labels if c in set(self.targets)} if label is None else {}
        )
        return _Curve(facts=facts, per_class=per_class)

    def _order(self, rows: Ints, repeat: int) -> Ints:
        """Places by their group's hash in this repeat; rows of a group by their own."""

        def place(i: int) -> tuple[int, str, int]:
            row = self.train[i]
            return rank_of(row.group, f"curve {self.seed} {repeat}"), row.group, rank_of(row.id, "")

        return np.array(sorted(rows.tolist(), key=place), dtype=np.int64)

    def _answer(self, places: Ints) -> list[str]:
        key = places.tobytes()
        if key not in self._answers:
            if self.work is not None:
                self.work.stop_if_asked()
                self.work.progress(len(self._answers), len(self._answers) + 1, "curve", rows=len(places))
            self._answers[key] = self.learn(places.tolist())
        return self._answers[key]

    def _score(self, answers: list[str], label: str | None) -> tuple[float, Floats]:
        """The score and its draws (D,). A class's F1, or macro-F1 over the classes among the targets."""
        judged = [label] if label is not None else [c for c in self.labels if c in set(self.targets)]
        sums: Sums = macro_f1(Items.of(self.targets, answers, labels=self.labels, judged=judged))
        return sums.score, sums.value(self.weights @ sums.per_item)

    def _points(self, sizes: Floats, mean: Floats, scores: Floats, drawn: Floats) -> list[dict[str, Any]]:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, tail, axis=0), np.quantile(drawn, 1 - tail, axis=0)
        return [
            {
                "rows": round(float(sizes[s]), 3),
                "score": round(float(mean[s]), 6),
                "low": round(min(float(low[s]), float(mean[s])), 6),
                "high": round(max(float(high[s]), float(mean[s])), 6),
                "repeats": [round(float(v), 6) for v in scores[:, s]],
            }
            for s in range(len(sizes))
        ]

    def _series(self, sizes: Floats, mean: Floats, drawn: Floats, found: dict[str, Any]) -> list[dict[str, float]]:
        """The law over the sizes it was fitted to and up to what it foretells, ready to be drawn. Empty if it
        foretells nothing."""
        if found["gain"] is None:
            return []
        start = found["sizes_left_out"]
        sizes, mean, drawn = sizes[start:], mean[start:], drawn[:, start:]
        law, laws = fit_laws(sizes, mean[None, :]), fit_laws(sizes, drawn)
        tail = (1 - self.confidence) / 2
        series = []
        for n in np.geomspace(sizes[0], found["to"], CHART_POINTS):
            band = laws.score(n)
            series.append(
                {
                    "rows": round(float(n), 3),
                    "score": round(float(law.score(n)[0]), 6),
                    "low": round(float(np.quantile(band, tail)), 6),
                    "high": round(float(np.quantile(band, 1 - tail)), 6),
                }
            )
        return series


def _up_to_whole_group(train: Sequence[Row], order: Ints, n: int) -> int:
    """The first place at or after n where a group ends: a group is taken whole or not at all."""
    while 0 < n < len(order) and train[order[n]].group == train[order[n - 1]].group:
        n += 1
    return n


def _luck(sizes: Floats, scores: Floats, confidence: float) -> float | None:
    """How far one doubling may fall from the average one, by the luck of which rows were drawn before and after.

    From the scatter of the repeats (R, S) at the three sizes below the largest. Subsets of one pool vary less
    than fresh draws would, by 1 - n/N of the variance (the finite population correction), which is undone. None
    where there are no repeats to tell.
    """
    if len(sizes) < 2 or sizes.shape[1] < 2:
        return None
    share = sizes.mean(axis=0) / sizes[:, -1].mean()
    variance = scores.var(axis=0, ddof=1)[:-1] / np.maximum(1 - share[:-1], 0.1)
    one_draw = float(np.sqrt(variance[-3:].mean()))
    return round(NormalDist().inv_cdf((1 + confidence) / 2) * one_draw * 2**0.5, 6)
