"""Facts of an invented report, as flows/page.py gathers them; hostile text included."""

from __future__ import annotations

import math
from typing import Any

HOSTILE = '<script>document.title="owned"</script>'


def interval(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - width), "high": min(1.0, value + width)}


def arm(value: float, labels: list[str]) -> dict[str, Any]:
    k = len(labels)
    return {
        "metrics": {"macro_f1": interval(value), "accuracy": interval(min(1.0, value + 0.02))},
        "per_class": [
            {
                "label": label,
                "n": 5 + i,
                "precision": value,
                "recall": value,
                "f1": value * (1 - i / 2 / k),
                "f1_low": 0.1,
                "f1_high": 0.9,
            }
            for i, label in enumerate(labels)
        ],
        "confusion": [[7 if i == j else (1 if (i + j) % 5 == 0 else 0) for j in range(k)] + [0] for i in range(k)],
        "seconds": 12.0 * value,
        "prompt_tokens": 12345,
        "answer_tokens": 4321,
        "choice": {},
    }


def make_facts(status: str = "unproven", classes: int = 22) -> dict[str, Any]:
    labels = [
        f"Diseases of the {name} system and its connective tissue" for name in "abcdefghijklmnopqrstuvwxyz"[:classes]
    ]
    log: list[dict[str, Any]] = []
    for step in range(1, 183):
        log.append(
            {
                "step": step,
                "loss": 3 * math.exp(-step / 30) + 0.4 + 0.1 * math.sin(step),
                "lr": 1e-3,
                "grad_norm": 1.0,
                "tokens": 900,
            }
        )
        if step % 45 == 0:
            log.append(
                {
                    "step": step,
                    "validation_loss": 3 * math.exp(-step / 30) + 0.55,
                    "macro_f1": 0.8 * (1 - math.exp(-step / 40)),
                }
            )
    arms = {
        a: arm(v, labels)
        for a, v in [("majority", 0.02), ("tfidf", 0.69), ("zero_shot", 0.12), ("few_shot", 0.24), ("tuned", 0.77)]
    }
    return {
        "project": f"coding {HOSTILE}",
        "id": "7f3a91c0" * 8,
        "at": "2026-11-24 14:02 UTC",
        "kind": "classify",
        "model": "smollm2-135m-instruct",
        "method": "LoRA r16",
        "machine": "2 cores, Invented CPU",
        "version": "0.1.0",
        "versions": "torch 2.13.0",
        "seed": 0,
        "spec": "41c0" * 16,
        "verdict": {
            "status": status,
            "goals": [
                {"goal": "macro_f1 >= 0.7", "metric": "macro_f1", "status": "pass", "measured": interval(0.77), "because": "the lower end clears 0.70", "next": ""},
                {"goal": "beats majority, tfidf", "metric": "macro_f1", "status": status, "measured": interval(0.085), "because": "the difference to TF-IDF may be chance", "next": "about 120 more test items would settle it"},
            ],
            "advice": [f"Advice with {HOSTILE}"],
        },
        "report": {
            "kind": "classify", "metric_names": ["macro_f1", "accuracy"], "n": 362, "clusters": 190, "labels": labels, "judged": labels,
            "not_judged": {"Codes for special purposes": "no test rows"}, "confidence": 0.95, "resamples": 2000, "arms": arms,
            "paired": [{"a": "tuned", "b": "tfidf", "metric": "macro_f1", "difference": {"value": 0.085, "low": -0.01, "high": 0.13}, "p": 0.0004, "p_holm": 0.0016}],
            "mistakes": [{"id": "x", "input": f"Hemolytic-uremic syndrome {HOSTILE}", "target": "Blood", "answer": "Kidney", "confidence": 0.94, "file": "diagnoses.csv", "line": 2117}],
            "seal": "abcdef012345" * 5,
        },
        "threshold": 0.7,
        "dataset": {
            "kind": "classify", "labels": labels, "counts": {"train": 2904, "validation": 359, "test": 362}, "class_counts": {}, "not_judged": {},
            "seal": "abcdef012345" * 5, "split": {"by": "group", "shares": {}, "asked": {}, "deviation": 0.004},
            "tokens": {"prompt": {"mean": 40}, "answer": {"mean": 10}, "total": 180000, "longest": 120}, "left_out": {"duplicate": 3}, "limit": None, "system": "",
        },
        "rows_read": 3628, "files": ["diagnoses.csv"],
        "findings": [{"where": "diagnoses.csv:12", "what": "label differs from another by case only", "fix": "merge them"}],
        "label_name": "chapter", "group_name": "category",
        "training": {"log": log, "metric": "macro_f1", "best": 0.764, "best_step": 135, "best_of_run": 135, "steps": 182, "stopped_early": 0, "summary": {}},
        "made_in": {"how": "trained", "seconds": 370.0},
        "looks": {"total": 5, "tuned": 1, "by_arm": {"tuned": 1}},
        "stages": [{"name": "train", "planned": 300.0, "seconds": 370.2, "words": "tokens 180,000"}],
        "lineage": [{"stage": "check", "made": "abc123abc123", "of": ["def456def456"]}],
        "next": [{"step": "label 45 more", "why": "settles goal 2"}],
        "commands": [{"command": "tunesmith run", "why": "nothing to do"}],
        "settings": "train.lr: 0.001  # tunesmith.yaml:4",
    }  # fmt: skip
