"""The commands that the documents show, ready to be run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def blocks(document: str, language: str = "bash") -> list[tuple[str, str]]:
    """(project name or "", text) of each fenced block; `<!-- project: NAME -->` above one names it."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(rf"(?:<!-- project: (\w+) -->\n)?```{language}\n(.*?)```", text, re.S)
    return [(m[1] or "", m[2]) for m in found]


def sh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a person would paste it; a verdict of fail or not enough evidence does not end the script."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    allowing = 'tunesmith() { code=0; command tunesmith "$@" || code=$?; case $1:$code in run:1|run:3) return 0;; *) return $code;; esac; }'
    return subprocess.run(
        ["bash", "-e", "-c", f"{allowing}\n{script}"], cwd=folder, capture_output=True, text=True, env=environment
    )
