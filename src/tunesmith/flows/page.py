"""The facts of a report: everything the page says, gathered from the ledger by walking back from a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id, read_json, read_lines
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.goals import ARMS
from tunesmith.core.nouns import Run
from tunesmith.ledger.ledger import Ledger

MAKERS = ("sft", "domain", "merge")
SHOWN_VERSIONS = ("torch", "transformers", "peft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """The runs behind one verdict."""

    gate: Run
    evaluate: Run
    answers: dict[str, Run]  # by arm
    checkpoint: str  # artifact id of what was judged
    train: Run | None  # what made it: a training or a merge; None: it came from elsewhere
    data: tuple[Run, ...]  # every step from the files to the data set, in order
    bundle: Run | None

    @property
    def check(self) -> Run:
        return next(r for r in self.data if r.stage == "check")

    @property
    def prepare(self) -> Run:
        return next(r for r in self.data if r.stage == "prepare")

    @property
    def in_order(self) -> list[Run]:
        cheap = [self.answers[arm] for arm in in_order(self.answers) if arm != "tuned"]
        train = [self.train] if self.train else []
        last = [self.bundle] if self.bundle else []
        return [*self.data, *cheap, *train, self.answers["tuned"], self.evaluate, self.gate, *last]


def latest_gate(ledger: Ledger) -> Run:
    for run in ledger.runs(stage="gate"):
        if run.status == "finished":
            return run
    raise InputError(Problem(where="", what="no run has reached the gate yet", fix="tunesmith run"))


def trail(ledger: Ledger, gate: Run) -> Trail:
    """Walk from a gate run back to the raw file."""
    evaluate = maker(ledger, gate.inputs["report"])
    answers = {arm: maker(ledger, made) for arm, made in evaluate.inputs["answers"].items()}
    checkpoint = answers["tuned"].inputs["checkpoint"]
    made = ledger.made_by(checkpoint)
    bundles = (r for r in ledger.runs(stage="bundle") if r.inputs.get("verdict") == gate.outputs["verdict"])
    return Trail(
        gate=gate,
        evaluate=evaluate,
        answers=answers,
        checkpoint=checkpoint,
        train=made if made is not None and made.stage in MAKERS else None,
        data=tuple(data_runs(ledger, evaluate.inputs["dataset"])),
        bundle=next((r for r in bundles if r.status == "finished"), None),
    )


def maker(ledger: Ledger, artifact: str) -> Run:
    """The run that made an artifact."""
    run = ledger.made_by(artifact)
    if run is None:
        raise InputError(Problem(where=artifact[:12], what="no run in the ledger made this", fix="tunesmith doctor"))
    return run


FROM = ("dataset", "examples", "made", "pairs", "passages")  # inputs that a step of the data room made


def data_runs(ledger: Ledger, dataset: str) -> list[Run]:
    """From a data set back to the files it was made from; oldest first."""
    found: list[Run] = []
    waiting = [dataset]
    while waiting:
        run = maker(ledger, waiting.pop(0))
        found.insert(0, run)
        waiting += [made for name in FROM if (made := run.inputs.get(name)) is not None]
    return found


def looks(ledger: Ledger, seal: str, trail_: Trail) -> dict[str, Any]:
    """How often the sealed test set was answered: each finished or begun `answer` run on it is one look."""
    by_arm: dict[str, int] = {}
    for run in ledger.runs(stage="answer"):
        if run.spec.get("split") != "test":
            continue
        same = run.inputs["dataset"] == trail_.evaluate.inputs["dataset"] or (
            dataset_facts(ledger, run.inputs["dataset"])["seal"] == seal
        )
        if same:
            arm = run.spec["arm"]
            by_arm[arm] = by_arm.get(arm, 0) + 1
    return {"total": sum(by_arm.values()), "tuned": by_arm.get("tuned", 0), "by_arm": by_arm}


def dataset_facts(ledger: Ledger, artifact: str) -> dict[str, Any]:
    return read_json(ledger.path(artifact) / "dataset.json")


def planned_seconds(ledger: Ledger, dataset: str) -> dict[str, float]:
    """Seconds by step, as the first plan that named the step said them for this data set."""
    found: dict[str, float] = {}
    for note in ledger.notes("plan"):
        if note["dataset"] == dataset:
            found = {**note["seconds"], **found}
    return found


def page_facts(ledger: Ledger, gate: Run, *, project: str, settings_text: str) -> dict[str, Any]:
    """Everything web/report.py draws."""
    t = trail(ledger, gate)
    planned = planned_seconds(ledger, t.evaluate.inputs["dataset"])
    folder = {name: ledger.path(artifact) for name, artifact in artifacts(t).items()}
    dataset = read_json(folder["dataset"] / "dataset.json")
    check = read_json(folder["examples"] / "check.json")
    checkpoint = read_json(folder["checkpoint"] / "checkpoint.json")
    verdict = read_json(folder["verdict"] / "verdict.json")
    report = read_json(folder["report"] / "report.json")
    report["arms"] = {arm: report["arms"][arm] for arm in in_order(report["arms"])}
    made = t.train or t.evaluate
    thresholds = [
        g["threshold"] for g in gate.spec["goals"] if g["op"] == ">=" and g["metric"] == report["metric_names"][0]
    ]
    environment = made.environment
    return {
        "project": project,
        "id": gate.id,
        "at": gate.started[:16].replace("T", " ") + " UTC",
        "kind": dataset["kind"],
        "model": checkpoint["base"],
        "method": checkpoint_words(t.train, checkpoint),
        "machine": machine_words(environment),
        "version": environment.get("tunesmith", ""),
        "versions": ", ".join(f"{p} {v}" for p, v in sorted(environment["libraries"].items()) if p in SHOWN_VERSIONS),
        "seed": made.spec["seed"],
        "spec": content_id(made.spec),
        "verdict": verdict,
        "report": report,
        "threshold": thresholds[0] if thresholds else None,
        "dataset": dataset,
        "rows_read": check["read"],
        "files": [Path(f).name for f in sorted(ledger.artifact(t.check.inputs["source"]).files)],
        "findings": check["findings"],
        "label_name": t.check.spec["label"] or "label",
        "group_name": t.check.spec["group"] or "",
        "training": training_facts(t.train, checkpoint, folder.get("metrics")),
        "made_in": {"how": "merged" if t.train.stage == "merge" else "trained", "seconds": t.train.seconds}
        if t.train
        else None,
        "looks": looks(ledger, dataset["seal"], t),
        "stages": stage_rows(t, planned),
        "lineage": lineage_rows(t),
        "next": next_steps(verdict, report, dataset),
        "commands": commands(t),
        "settings": settings_text,
    }


def in_order(arms: Iterable[str]) -> list[str]:
    """From the cheapest to the tuned one, as people compare them; canonical JSON has them by name."""
    known = [*ARMS, "tuned"]
    return sorted(arms, key=lambda arm: (known.index(arm) if arm in known else -1, arm))


def artifacts(t: Trail) -> dict[str, str]:
    found = {
        "examples": t.prepare.inputs["examples"],
        "dataset": t.evaluate.inputs["dataset"],
        "checkpoint": t.checkpoint,
        "report": t.gate.inputs["report"],
        "verdict": t.gate.outputs["verdict"],
    }
    if t.train is not None and "metrics" in t.train.outputs:
        found["metrics"] = t.train.outputs["metrics"]
    return found


def training_facts(run: Run | None, checkpoint: dict[str, Any], metrics: Path | None) -> dict[str, Any]:
    """The curve of the training; empty for what was merged or came from elsewhere."""
    log = list(read_lines(metrics / "metrics.jsonl", dict[str, Any])) if metrics else []
    last = max((line["step"] for line in log if "loss" in line), default=0)
    steps = checkpoint.get("steps", 0)
    return {
        "log": log,
        "metric": checkpoint.get("metric", ""),
        "best": checkpoint.get("best"),
        "best_step": checkpoint.get("best_step", 0),
        "best_of_run": checkpoint.get("best_of_run", checkpoint.get("best_step", 0)),
        "steps": steps,
        "stopped_early": last if last < steps else 0,
        "summary": run.metrics if run else {},
    }


def checkpoint_words(made: Run | None, checkpoint: dict[str, Any]) -> str:
    """The method of a checkpoint, and of a merged one how it was merged."""
    if made is None or made.stage != "merge":
        return method_words(checkpoint["method"])
    how, merged = made.spec["how"], len(made.inputs["checkpoints"])
    if how == "whole":
        return f"{method_words(checkpoint['merged']['of'][0]['method'])}, merged whole"
    return f"{method_words(checkpoint['method'])}, {how} of {merged}"


def method_words(method: dict[str, Any]) -> str:
    if method["kind"] in ("lora", "qlora"):
        return f"{'QLoRA' if method['kind'] == 'qlora' else 'LoRA'} r{method['rank']}"
    return "full fine-tuning" if method["kind"] == "full" else str(method["kind"]).replace("_", "-")


def machine_words(environment: dict[str, Any]) -> str:
    return f"{environment.get('cores', '?')} cores, {environment.get('cpu', 'unknown CPU')}"


def step_name(run: Run) -> str:
    names = {"sft": "train", "domain": "train"}
    return f"answer {run.spec['arm']}" if run.stage == "answer" else names.get(run.stage, run.stage)


def stage_rows(t: Trail, planned: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": step_name(r),
            "planned": planned.get(step_name(r)),
            "seconds": r.seconds,
            "words": ", ".join(f"{k.replace('_', ' ')} {short(v)}" for k, v in r.metrics.items() if is_simple(k, v)),
        }
        for r in t.in_order
    ]


def is_simple(key: str, value: Any) -> bool:
    simple = isinstance(value, int | float) or (isinstance(value, str) and len(value) < 40)
    return simple and key not in ("arm", "seconds")


def short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def lineage_rows(t: Trail) -> list[dict[str, Any]]:
    rows = []
    for r in t.in_order:
        sources = [v for v in r.inputs.values() if isinstance(v, str)]
        for family in (v for v in r.inputs.values() if isinstance(v, dict)):
            sources += family.values()
        made = [a for name, a in r.outputs.items() if name != "metrics"]
        rows.append({"stage": step_name(r), "made": made[0][:12], "of": [s[:12] for s in sources]})
    return rows


def next_steps(verdict: dict[str, Any], report: dict[str, Any], dataset: dict[str, Any]) -> list[dict[str, str]]:
    """What would help most, each with the evidence it rests on."""
    found = [{"step": g["next"], "why": g["goal"]} for g in verdict["goals"] if g["next"]]
    weak = [c for c in report["arms"]["tuned"].get("per_class", []) if c["n"] >= 3]
    if weak:
        worst = min(weak, key=lambda c: c["f1"])
        found.append(
            {
                "step": f"collect more rows of {worst['label']}",
                "why": f"lowest F1, {worst['f1']:.2f} on {worst['n']} items, "
                f"with {dataset['class_counts'][worst['label']]['train']} training rows",
            }
        )
    if report["not_judged"]:
        names = ", ".join(report["not_judged"])
        found.append({"step": f"add rows of {names}, or merge them into another class", "why": "too few to judge"})
    if verdict["status"] == "pass" and not dataset["limit"]:
        found.append(
            {"step": "serve it and watch real inputs", "why": "the test set is of the same source as the data"}
        )
    if dataset["limit"]:
        found.append({"step": "run on all rows", "why": f"this was a proof of concept on {dataset['limit']}"})
    return found or [{"step": "nothing is missing", "why": "every goal is decided"}]


def commands(t: Trail) -> list[dict[str, str]]:
    shown = []
    if t.train is not None:
        why = "spec, environment and metrics of what made the model"
        shown.append({"command": f"tunesmith show {t.train.id[:12]}", "why": why})
    return [
        {"command": "tunesmith run", "why": "nothing to do: every stage is in the ledger"},
        {
            "command": f"tunesmith lineage {t.checkpoint[:12]}",
            "why": "rows, split, checkpoint, report",
        },
        *shown,
        {"command": "tunesmith doctor", "why": "re-hash everything it rests on"},
    ]


def report_json(facts: dict[str, Any]) -> dict[str, Any]:
    """What `tunesmith report --json` prints."""
    arms = {
        name: {**arm["metrics"], **{k: arm[k] for k in ("seconds", "prompt_tokens", "answer_tokens")}}
        for name, arm in facts["report"]["arms"].items()
    }
    return {
        "project": facts["project"],
        "id": facts["id"],
        "verdict": facts["verdict"]["status"],
        "goals": facts["verdict"]["goals"],
        "advice": facts["verdict"]["advice"],
        "arms": arms,
        "paired": facts["report"]["paired"],
        "n": facts["report"]["n"],
        "not_judged": facts["report"]["not_judged"],
        "rows": facts["dataset"]["counts"],
        "looks": facts["looks"],
        "seal": facts["report"]["seal"],
        "stages": [{k: s[k] for k in ("name", "planned", "seconds")} for s in facts["stages"]],
    }
