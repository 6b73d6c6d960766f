"""A small project on a tiny real model: the journey in seconds, for tests that need the whole."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORDS = {
    "sports": ["ball", "goal", "team", "match", "coach", "league", "player", "stadium"],
    "business": ["stock", "bank", "profit", "market", "shares", "trade", "merger", "budget"],
    "weather": ["rain", "storm", "sunny", "cloud", "snow", "frost", "wind", "heat"],
}

PROJECT = """\
task: {{kind: classify, text: text, label: label, group: source}}
data: {{files: [rows.csv], split: {{max_deviation: 0.2}}}}
model: {model}
train: {{recipe: sft, method: {{kind: lora, rank: 4}}, lr: 1e-2, epochs: 2, precision: fp32, validate_times: 2}}
evaluate: {{resamples: 200, few_shot: {{counts: [2], draws: 1, rows: 8}}}}
goals:
  - macro_f1 >= 0.10
exec: {{micro_batch_tokens: 2048}}
"""


def write_rows(path: Path, n: int = 150, seed: int = 0) -> None:
    rng = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["text", "label", "source"])
        for i in range(n):
            label = list(WORDS)[i % len(WORDS)]
            text = " ".join(rng.choices(WORDS[label], k=5)) + f" {i}"
            writer.writerow([text, label, f"source {i // 3}"])


def make_project(folder: Path, model: Path, *, n: int = 150, **replace: str) -> Path:
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", n)
    text = PROJECT.format(model=model)
    for old, new in replace.items():
        text = text.replace(old, new)
    (folder / "tunesmith.yaml").write_text(text, encoding="utf-8")
    return folder
