"""The card of a data set, in the Hugging Face format: where rows come from, what happened to them, what to mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.export.card import CARD

TASKS = {
    "classify": "text-classification",
    "summarize": "summarization",
    "extract": "token-classification",
    "instruct": "text-generation",
    "chat": "text-generation",
    "domain": "text-generation",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

TEMPLATE = CARD.from_string(
    """---
pretty_name: {{ name | yaml }}
task_categories: [{{ task | yaml }}]
size_categories: [{{ size | yaml }}]
tags: ["tunesmith", {{ facts.kind | yaml }}]
configs:
- config_name: default
  data_files:
{% for split in ("train", "validation", "test") %}
  - {split: {{ split }}, path: "data/{{ split }}-*.parquet"}
{% endfor %}
---

# {{ name | cell }}

{{ "{:,}".format(total) }} rows to {{ facts.kind }}{% if audience %} for {{ audience | cell }}{% endif %}: {{ "{:,}".format(facts.counts.train) }} to learn from, {{ "{:,}".format(facts.counts.validation) }} to choose by, {{ "{:,}".format(facts.counts.test) }} sealed to judge by (SHA-256 `{{ facts.seal }}`).

## Where the rows come from

| file | rows read |
|---|---|
{% for f in files %}
| {{ f.file | cell }} | {{ f.rows }} |
{% endfor %}

## What happened to them

| step | left out | changed |
|---|---|---|
{% for s in steps %}
| {{ s.name }} | {% for reason, n in s.left_out.items() %}{{ "{:,}".format(n) }} {{ reason | cell }}{% if not loop.last %}, {% endif %}{% else %}–{% endfor %} | {% for what, n in s.changed.items() %}{{ "{:,}".format(n) }} {{ what | cell }}{% if not loop.last %}, {% endif %}{% else %}–{% endfor %} |
{% endfor %}

Every one of these rows is listed, with its reason, by `tunesmith data removed`.

## The split

By {{ facts.split.by }}; the shares differ from those asked for by at most {{ "%.1f" | format(facts.split.deviation * 100) }} %.
{% if near %}
No pair of rows with a Jaccard similarity of {{ near.threshold }} or more straddles two splits ({{ near.left_out }} rows were left out for that).
{% if naive %}
A random split would have left {{ "%.1f" | format(naive.share * 100) }} % of the test rows with a twin in the training rows.
{% endif %}
{% endif %}
{% if facts.class_counts %}

## Classes

| class | train | validation | test |
|---|---|---|---|
{% for label, n in facts.class_counts.items() %}
| {{ label | cell }} | {{ n.train }} | {{ n.validation }} | {{ n.test }} |
{% endfor %}
{% endif %}
{% if risks %}

## What to mind

{% for kind, n in risks.items() %}
- {{ kind | cell }}: {{ "{:,}".format(n) }} rows
{% endfor %}
{% endif %}
"""
)


def dataset_card(dataset: Path, *, name: str, audience: str = "") -> str:
    """`dataset`: an artifact of that kind, with the facts of every step so far."""
    facts = read_json(dataset / "dataset.json")
    found = {p.stem: read_json(p) for p in sorted(dataset.glob("*.json")) if p.stem != "dataset"}
    check = found.get("check", {})
    total = sum(facts["counts"].values())
    steps = [
        {"name": step, "left_out": found[step].get("left_out") or {}, "changed": found[step].get("changed") or {}}
        for step in ("check", "clean", "dedup", "audit", "label")
        if step in found
    ]
    earlier = {reason for s in steps for reason in s["left_out"]}
    rest = {reason: n for reason, n in facts["left_out"].items() if reason not in earlier}
    steps.append({"name": "prepare", "left_out": rest, "changed": {}})
    split = facts["split"]
    return TEMPLATE.render(
        name=name,
        audience=audience,
        task=TASKS[facts["kind"]],
        size=next((word for limit, word in SIZES if total < limit), "1M<n<10M"),
        facts=facts,
        total=total,
        files=_files(check),
        steps=steps,
        near=split.get("near"),
        naive=split.get("naive_leak"),
        risks=found.get("audit", {}).get("found", {}),
    )


def _files(check: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"file": f["file"], "rows": f.get("rows", "–")} for f in check.get("files", [])]
