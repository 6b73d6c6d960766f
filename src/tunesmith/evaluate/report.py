"""The report: every arm on the same sealed test set, with intervals and paired comparisons.

Refuses unless the test set still has the hash it was sealed with, and every arm answered exactly its rows
in their order: a comparison over different items is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.canonical import canonical_json, file_id, read_json, read_lines, write_atomic, write_lines
from tunesmith.core.errors import DataError, Problem, StorageError
from tunesmith.core.nouns import Answer, Interval, Row
from tunesmith.core.stage import Workspace
from tunesmith.evaluate import held_out
from tunesmith.evaluate.measured import Measured
from tunesmith.evaluate.stages import EvaluateInputs, EvaluateOutputs, EvaluateSpec
from tunesmith.metrics import catalog, classification
from tunesmith.metrics.statistics import difference, holm, sign_flip, spread
from tunesmith.metrics.sums import Items, divide

DECIMALS = 10  # of reported numbers: finer ones depend on how a machine adds up


def evaluate(spec: EvaluateSpec, inputs: EvaluateInputs, work: Workspace) -> EvaluateOutputs:
    """Raises StorageError for a broken seal, DataError for answers that do not match the test set."""
    dataset = read_json(inputs.dataset / "dataset.json", dict[str, Any])
    rows = read_sealed(inputs.dataset, dataset)
    answers, about = read_answers(inputs.answers, rows, dataset)
    measured = Measured(
        kind=dataset["kind"],
        targets=tuple(r.target for r in rows),
        groups=tuple(r.group for r in rows),
        answers={arm: tuple(a if dataset["kind"] == "domain" else a.text for a in s) for arm, s in answers.items()},
        labels=tuple(dataset["labels"]),
        not_judged=without_support(dataset, rows),
        resamples=spec.resamples,
        seed=spec.seed,
    )
    names, notes = measurable(spec.metrics, measured)
    report: dict[str, Any] = {
        "kind": measured.kind,
        "metric_names": names,
        "n": len(rows),
        "clusters": len(set(measured.groups)),
        "labels": list(measured.labels),
        "judged": list(measured.judged),
        "not_judged": dict(measured.not_judged),
        "confidence": spec.confidence,
        "resamples": spec.resamples,
        "seal": dataset["seal"],
        "signatures": {name: catalog.signature(name) for name in names},
        "notes": notes,
        "arms": {},
    }
    for done, arm in enumerate(answers):
        work.progress(done, len(answers), "measuring", arm=arm)
        report["arms"][arm] = {**measure_arm(arm, names, measured, spec), **about[arm]}
        work.stop_if_asked()
    report["paired"] = paired(names, measured, spec)
    report |= instructions(inputs.dataset, rows, names[0], measured, spec)
    report["mistakes"] = mistakes(rows, answers, measured, names[0])[: spec.mistakes] if "tuned" in answers else []
    first = {arm: facts["metrics"][names[0]]["value"] for arm, facts in report["arms"].items()}
    work.summarize(metric=names[0], **first)
    return EvaluateOutputs(report=write_report(work.scratch / "report", report, rows, answers))


def read_sealed(folder: Path, dataset: Mapping[str, Any]) -> list[Row]:
    """The test rows. Raises StorageError if they are not those that were sealed, DataError if there are none."""
    path = folder / "test.jsonl"
    if file_id(path) != dataset["seal"]:
        raise StorageError(
            "the test set is not the one that was sealed: it changed after the split was made",
            where=str(path),
            fix="tunesmith doctor, then tunesmith prepare",
        )
    rows = list(read_lines(path, Row))
    if not rows:
        raise DataError(
            "the test set is empty: there is nothing to measure",
            where=str(path),
            fix="add rows, or raise data.split.test",
        )
    return rows


def read_answers(
    folders: Mapping[str, Path], rows: Sequence[Row], dataset: Mapping[str, Any]
) -> tuple[dict[str, list[Answer]], dict[str, dict[str, Any]]]:
    """Answers by arm in row order, and each arm's cost and choice. Raises DataError naming every mismatch."""
    answers: dict[str, list[Answer]] = {}
    about: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for arm, folder in folders.items():
        head = read_json(folder / "answers.json", dict[str, Any])
        said = list(read_lines(folder / "answers.jsonl", dict[str, Any]))
        problems += mismatch(arm, head, [s.pop("id") for s in said], rows, dataset)
        answers[arm] = [answer_of(s) for s in said]
        about[arm] = {k: head[k] for k in ("seconds", "prompt_tokens", "answer_tokens", "choice")}
    if not folders:
        problems.append(Problem(where="answers", what="no arm has answered the test set", fix="tunesmith baselines"))
    if problems:
        raise DataError(problems)
    return answers, about


def answer_of(record: dict[str, Any]) -> Answer:
    probabilities = record.get("probabilities")
    return Answer(**{**record, "probabilities": None if probabilities is None else tuple(probabilities)})


def mismatch(
    arm: str, head: Mapping[str, Any], ids: Sequence[str], rows: Sequence[Row], dataset: Mapping[str, Any]
) -> list[Problem]:
    fix = "tunesmith evaluate, which answers again what has changed"
    found = []
    if head["arm"] != arm:
        found.append(f"answers.json says they are of the arm {head['arm']}")
    if head["split"] != "test":
        found.append(f"they answer the {head['split']} split, not the test set")
    if head["seal"] != dataset["seal"]:
        found.append("they answer another test set: its seal differs")
    wanted = [r.id for r in rows]
    if ids != wanted:
        first = next(
            (i for i, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b), min(len(ids), len(wanted))
        )
        found.append(f"{len(ids)} answers for {len(wanted)} rows; they part at item {first + 1}")
    return [Problem(where=f"answers of {arm}", what=what, fix=fix) for what in found]


def without_support(dataset: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """The classes that cannot be judged, and why: those the data set names, and those without a test item."""
    support = {r.target for r in rows}
    missing = {label: "no test item" for label in dataset["labels"] if label not in support}
    return dict(sorted({**missing, **dataset["not_judged"]}.items()))


def measurable(asked: Sequence[str], measured: Measured) -> tuple[list[str], list[str]]:
    """The metrics that can be measured on the whole set, and notes on those that cannot or see only a part.

    Raises InputError for a metric that does not exist or cannot judge this kind, DataError if none is left.
    """
    names, notes = [], []
    for name in asked:
        catalog.find(name, measured.kind)
        part = measured.slice("all", name)
        if isinstance(part, Measured):
            names.append(name)
            notes += [c for c in [catalog.caution(name, measured.targets)] if c]
        else:
            notes.append(f"{name} is not reported for the whole test set: {part}")
    if not names:
        why = "; ".join(notes) or f"no metric can judge a {measured.kind} task yet"
        raise DataError(f"there is nothing to report: {why}", where="evaluate.metrics", fix="name another metric")
    return names, notes


def measure_arm(arm: str, names: Sequence[str], measured: Measured, spec: EvaluateSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"metrics": {}}
    for name in names:
        interval = measured.spread(arm, name, confidence=spec.confidence).interval(spec.confidence)
        found["metrics"][name] = _rounded(interval)
    if measured.kind == "classify":
        items = Items.of(measured.targets, measured.answers[arm], labels=measured.labels, judged=measured.judged)
        found["confusion"] = classification.confusion(items).tolist()
        found["per_class"] = per_class(arm, measured, spec)
    return found


def per_class(arm: str, measured: Measured, spec: EvaluateSpec) -> list[dict[str, Any]]:
    """Judged classes only: a score of a class without support would be made up."""
    resampler = measured.resampler(spec.confidence)
    table = []
    for label in measured.judged:
        sums = replace(measured, only=(label,)).sums(arm, "macro_f1")
        hit, truth, said = sums.per_item.sum(axis=0)
        f1 = spread(sums, resampler).interval(spec.confidence)
        rates = divide(np.array([hit, hit]), np.array([said, truth]))
        table.append(
            {
                "label": label,
                "n": int(truth),
                "precision": round(float(rates[0]), DECIMALS),
                "recall": round(float(rates[1]), DECIMALS),
                "f1": round(f1.value, DECIMALS),
                "f1_low": round(f1.low, DECIMALS),
                "f1_high": round(f1.high, DECIMALS),
            }
        )
    return table


def paired(names: Sequence[str], measured: Measured, spec: EvaluateSpec) -> list[dict[str, Any]]:
    """The tuned arm against each other, by metric; Holm over the arms of one metric."""
    others = [arm for arm in measured.answers if arm != "tuned"]
    if "tuned" not in measured.answers or not others:
        return []
    table = []
    resampler = measured.resampler(spec.confidence)
    for name in names:
        sums = {arm: measured.sums(arm, name) for arm in measured.answers}
        found = {arm: difference(sums["tuned"], sums[arm], resampler) for arm in others}
        for (arm, gap), adjusted in zip(found.items(), holm([s.p() for s in found.values()]), strict=True):
            table.append(
                {
                    "a": "tuned",
                    "b": arm,
                    "metric": name,
                    "difference": _rounded(gap.interval(spec.confidence)),
                    "p": gap.p(),
                    "p_holm": adjusted,
                    "p_permutation": sign_flip(sums["tuned"], sums[arm], resampler),
                }
            )
    return table


def instructions(
    dataset: Path, rows: Sequence[Row], metric: str, measured: Measured, spec: EvaluateSpec
) -> dict[str, Any]:
    """{"held_out": ...} where the test set has tasks that were not trained, and both models answered; else nothing."""
    arms = {"zero_shot", "tuned"}
    if measured.kind not in held_out.KINDS or not arms <= set(measured.answers):
        return {}
    trained = (
        row
        for split in ("train", "validation")
        if (dataset / f"{split}.jsonl").exists()
        for row in read_lines(dataset / f"{split}.jsonl", Row)
    )
    tasks = held_out.held_out_tasks(trained, rows)
    if not tasks:
        return {}
    facts = held_out.before_and_after(tasks, rows, measured, metric, confidence=spec.confidence)
    return {"held_out": facts}


def mistakes(
    rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], measured: Measured, metric: str
) -> list[dict[str, Any]]:
    """Of the tuned arm. Classes: wrong answers, the most confident first. Texts: the worst by `metric`."""
    said = answers["tuned"]
    if measured.kind == "classify":
        wrong = [i for i, row in enumerate(rows) if said[i].text.strip() != row.target]
        order = sorted(wrong, key=lambda i: (-(said[i].confidence or 0.0), i))
    else:
        sums = measured.sums("tuned", metric)
        each = sums.value(sums.per_item)
        sign = 1 if catalog.find(metric).higher_is_better else -1
        order = sorted(
            (i for i in range(len(rows)) if each[i] < sums.highest), key=lambda i: (sign * float(each[i]), i)
        )
    return [
        {
            "id": rows[i].id,
            "input": rows[i].example.input,
            "target": rows[i].target,
            "answer": said[i].text if measured.kind != "domain" else f"{metric} {float(each[i]):.3f}",
            "confidence": said[i].confidence,
            "file": rows[i].file,
            "line": rows[i].line,
        }
        for i in order
    ]


def write_report(
    out: Path, report: Mapping[str, Any], rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]]
) -> Path:
    out.mkdir(exist_ok=True)
    write_lines(
        out / "items.jsonl",
        (
            {
                "id": row.id,
                "file": row.file,
                "line": row.line,
                "group": row.group,
                "input": row.example.input,
                "target": row.target,
                "answers": {arm: _item(a[i], kind=report["kind"]) for arm, a in answers.items()},
            }
            for i, row in enumerate(rows)
        ),
    )
    write_atomic(out / "report.json", canonical_json(report))
    return out


def _item(answer: Answer, *, kind: str) -> dict[str, Any]:
    """An arm's answer in items.jsonl: all that the gate needs to measure again."""
    kept: dict[str, Any] = {"text": answer.text, "confidence": answer.confidence}
    return kept if kind != "domain" else {**kept, "logprob": answer.logprob, "tokens": answer.answer_tokens}


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in asdict(interval).items()}
