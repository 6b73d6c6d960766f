"""Secrets and personal data in the rows stay in the rows: nowhere in ledger, logs, card or errors."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest

from tests.small import WORDS, make_project
from tunesmith.cli.app import run

CANARIES = [f"sk-canary-{i:04d}-d41d8cd98f00b204" for i in range(25)] + [
    f"jane.canary{i}@example.org" for i in range(25)
]


def test_fifty_planted_secrets_appear_nowhere_but_in_the_data(
    tmp_path: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_project(tmp_path / "news", tiny_llama)
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["text", "label", "source"])
        for i in range(150):
            label = list(WORDS)[i % 3]
            writer.writerow([f"{' '.join(WORDS[label][:4])} {CANARIES[i % 50]} {i}", label, f"source {i // 3}"])
    for verb in (["check"], ["run"], ["report"], ["runs"], ["doctor"], ["plan"]):
        assert run([*verb, "--project", str(folder)]) in (0, 1, 3)
    with open(folder / "rows.csv", "a", encoding="utf-8") as f:
        f.write(f"{CANARIES[0]},,source x\n")
    assert run(["check", "--project", str(folder)]) == 2
    printed = capfd.readouterr()

    state = folder / ".tunesmith"
    db = sqlite3.connect(state / "ledger.db")
    facts = "\n".join(str(row) for row in db.execute("SELECT * FROM facts"))
    db.close()
    cards = "".join(p.read_text() for p in (state / "views").rglob("README.md"))
    metrics = "".join(p.read_text() for p in (state / "views").rglob("metrics.jsonl"))
    for canary in CANARIES:
        for where, text in {
            "stdout": printed.out,
            "stderr": printed.err,
            "ledger": facts,
            "card": cards,
            "metrics": metrics,
        }.items():
            assert canary not in text, where
