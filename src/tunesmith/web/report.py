"""The page of a run: verdict first, then the evidence, then how it came about.

`report_page(facts)` is a pure function; flows/page.py says what the facts are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tunesmith.core.goals import METRIC_NAMES
from tunesmith.core.words import duration
from tunesmith.web.charts import ArmPoint, arms_chart, curve_chart

HERE = Path(__file__).parent
STATUS_WORDS = {"pass": "pass", "fail": "fail", "unproven": "not enough evidence"}
TONE = {"pass": "pass", "fail": "fail", "unproven": "wait"}
ARM_NAMES = {
    "majority": "majority",
    "tfidf": "TF-IDF + LR",
    "lead": "lead sentences",
    "zero_shot": "zero-shot",
    "few_shot": "few-shot",
    "tuned": "tuned",
}


def pvalue(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def clip(text: str, most: int) -> str:
    """Shortened on the page only, with a mark that says so."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
PAGES.filters.update(duration=duration, pvalue=pvalue, clip=clip, score=lambda v: f"{v:.3f}")


def report_page(facts: dict[str, Any]) -> str:
    """One self-contained HTML document; nothing in it is fetched or executed."""
    report, training = facts["report"], facts["training"]
    metric = report["metric_names"][0]
    validations = [v for v in training["log"] if "validation_loss" in v]
    return PAGES.get_template("report.html.jinja").render(
        f=facts,
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        headline=headline(facts["verdict"]),
        lead=lead(facts, metric),
        status_words=STATUS_WORDS,
        tone=TONE,
        arm_names=ARM_NAMES,
        arms_svg=arms_svg(facts, metric),
        loss_svg=curve_chart(
            raw=[(v["step"], v["loss"]) for v in training["log"] if "loss" in v],
            validation=[(v["step"], v["validation_loss"]) for v in validations],
            y_label="loss in nats per supervised token",
            best_step=training["best_of_run"],
            title="Training and validation loss",
        ),
        metric_svg=curve_chart(
            raw=[],
            validation=[(v["step"], v[training["metric"]]) for v in validations if training["metric"] in v],
            y_label=f"validation {training['metric']}",
            best_step=training["best_of_run"],
            title=f"{training['metric']} on validation",
        ),
        validations=validations,
        learning_words=learning_words(training, validations),
        general=general_columns(validations),
        classes=sorted(report["arms"]["tuned"].get("per_class", []), key=lambda c: (-c["f1"], c["label"])),
        confusion=confusion(report),
        data_words=data_words(facts),
    )


def headline(verdict: dict[str, Any]) -> str:
    goals = verdict["goals"]
    if not goals:
        return "No goal is set."
    passed = sum(g["status"] == "pass" for g in goals)
    if passed == len(goals):
        return "Passes its goal." if len(goals) == 1 else f"Passes all {len(goals)} goals."
    failed = sum(g["status"] == "fail" for g in goals)
    if failed:
        return f"Fails {failed} of {len(goals)} {'goal' if len(goals) == 1 else 'goals'}."
    return f"Passes {passed} of {len(goals)} {'goal' if len(goals) == 1 else 'goals'}; {len(goals) - passed} unproven."


def lead(facts: dict[str, Any], metric: str) -> str:
    """One sentence with the tuned arm's number beside the best cheaper arm's."""
    arms = facts["report"]["arms"]
    tuned = arms["tuned"]["metrics"][metric]
    text = (
        f"On {facts['report']['n']} held-out items the tuned model reaches {metric} {tuned['value']:.3f} "
        f"({tuned['low']:.3f} – {tuned['high']:.3f})"
    )
    others = {a: v["metrics"][metric]["value"] for a, v in arms.items() if a != "tuned"}
    if others:
        choose = max if METRIC_NAMES[metric].higher_is_better else min
        best = choose(others, key=lambda a: others[a])
        text += f"; the best cheaper approach, {ARM_NAMES.get(best, best)}, reaches {others[best]:.3f}"
    return text + "."


def arms_svg(facts: dict[str, Any], metric: str) -> Markup:
    report = facts["report"]
    points = [
        ArmPoint(
            name=ARM_NAMES.get(name, name) + (f", {facts['method']}" if name == "tuned" else ""),
            is_tuned=name == "tuned",
            **arm["metrics"][metric],
        )
        for name, arm in report["arms"].items()
    ]
    return arms_chart(points, metric=metric, n=report["n"], clusters=report["clusters"], goal=facts["threshold"])


def learning_words(training: dict[str, Any], validations: list[dict[str, Any]]) -> str:
    if not validations:
        return ""
    metric = training["metric"]
    other = training["best_of_run"] != training["best_step"]
    which = "Kept beside the best: validation" if other else "Best validation"
    words = f"{which} {metric} {training['best']:.3f} at step {training['best_step']} of {training['steps']}"
    if other:
        words += f"; the best was at step {training['best_of_run']}"
    if training["stopped_early"]:
        words += f"; nothing better followed, so training stopped early at step {training['stopped_early']}"
    lowest = min(validations, key=lambda v: v["validation_loss"])
    if lowest is not validations[-1]:
        words += f". Validation loss was lowest at step {lowest['step']} and rose afterwards"
    return words + "."


def general_columns(validations: list[dict[str, Any]]) -> list[str]:
    """What the log says of general data at each validation: beside what was gained, what was forgotten."""
    names = dict.fromkeys(name for v in validations for name, value in v.items() if isinstance(value, int | float))
    starts = ("general_", "loss_rise", "accuracy ", "refused ")
    return [name for name in names if name.startswith(starts)]


def confusion(report: dict[str, Any]) -> dict[str, Any] | None:
    """Rows and columns that hold at least one item, numbered so that a wide table stays readable."""
    table = report["arms"]["tuned"].get("confusion")
    if not table:
        return None
    names = [*report["labels"], "unparseable"]
    columns = [j for j in range(len(names)) if j < len(report["labels"]) or any(row[j] for row in table)]
    return {
        "columns": [{"name": names[j], "short": "?" if names[j] == "unparseable" else j + 1} for j in columns],
        "rows": [
            {
                "name": name,
                "short": i + 1,
                "cells": [
                    {"n": table[i][j], "share": table[i][j] / max(1, sum(table[i])), "right": i == j} for j in columns
                ],
            }
            for i, name in enumerate(report["labels"])
        ],
    }


def data_words(facts: dict[str, Any]) -> str:
    d = facts["dataset"]
    kept = sum(d["counts"].values())
    out = sum(d["left_out"].values())
    words = f"{facts['rows_read']:,} rows read from {', '.join(facts['files'])}: {kept:,} kept, {out:,} left out. "
    by = d["split"]["by"]
    unit = f"by {facts['group_name']}" if by == "group" and facts["group_name"] else "row by row"
    words += (
        f"Split {unit}, placed by a salted hash, {d['split']['deviation']:.1%} from the shares asked for at most; "
        f"the test set is sealed as {d['seal'][:12]}. "
    )
    words += f"Longest example {d['tokens']['longest']} tokens, {d['tokens']['total']:,} in all; none was cut."
    return words
