"""The model card, in the Hugging Face format: what it is for, what it reaches, what it was not judged on."""

from __future__ import annotations

import json
from typing import Any

import jinja2

from tunesmith.export.stages import BundleSpec

STATUS = {"pass": "passes its goals", "fail": "fails its goals", "unproven": "has not enough evidence for its goals"}

CARD = jinja2.Environment(
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 (Markdown, not HTML; values are escaped by `cell`)
)


def cell(text: object) -> str:
    """User text inside a Markdown table or sentence: no line breaks, no markup of its own."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_[]<>|#":
        plain = plain.replace(mark, "\\" + mark)
    return plain


CARD.filters["cell"] = cell
CARD.filters["yaml"] = lambda value: json.dumps(value, ensure_ascii=False)  # JSON is YAML
CARD.filters["score"] = lambda value: f"{value:.3f}"

TEMPLATE = CARD.from_string(
    """---
library_name: {{ library }}
base_model: {{ spec.base_name | yaml }}
base_model_relation: {{ relation }}
license: {{ spec.base_license | yaml }}
pipeline_tag: text-generation
tags: ["tunesmith", {{ spec.kind | yaml }}]
model-index:
- name: {{ spec.name | yaml }}
  results:
  - task: {type: text-generation, name: {{ spec.kind | yaml }}}
    dataset: {type: private, name: {{ ("sealed test set " ~ report.seal[:12]) | yaml }}}
    metrics:
{% for name in report.metric_names %}
    - {type: {{ name | yaml }}, value: {{ tuned.metrics[name].value }}}
{% endfor %}
---

# {{ spec.name | cell }}

{{ spec.base_name | cell }}, fine-tuned ({{ method }}) to {{ spec.kind }}{% if spec.audience %} for {{ spec.audience | cell }}{% endif %}{% if spec.tone %}, in a {{ spec.tone | cell }} tone{% endif %}.
It **{{ status }}**.

## Goals

| goal | measured | interval | verdict | because |
|---|---|---|---|---|
{% for g in verdict.goals %}
| {{ g.goal | cell }} | {% if g.measured %}{{ g.measured.value | score }} | {{ g.measured.low | score }} – {{ g.measured.high | score }}{% else %}– | –{% endif %} | {{ g.status }} | {{ g.because | cell }} |
{% endfor %}
{% for a in verdict.advice %}

> {{ a | cell }}
{% endfor %}

## What each approach reaches on the same {{ report.n }} test items

| arm | {% for m in report.metric_names %}{{ m }} | {% endfor %}

|---|{% for m in report.metric_names %}---|{% endfor %}

{% for arm, facts in report.arms.items() %}
| {{ arm }} | {% for m in report.metric_names %}{{ facts.metrics[m].value | score }} ({{ facts.metrics[m].low | score }} – {{ facts.metrics[m].high | score }}) | {% endfor %}

{% endfor %}

Intervals: {{ (report.confidence * 100) | round | int }} %, bootstrap over {{ report.clusters }} independent groups, {{ report.resamples }} resamples.

## Data

{{ dataset.counts.train }} training, {{ dataset.counts.validation }} validation and {{ dataset.counts.test }} test rows, split by {{ dataset.split.by }}. The rows themselves are not part of this bundle.
{% if report.not_judged %}

Not judged, so expect nothing of them:
{% for label, why in report.not_judged.items() %}
- {{ label | cell }}: {{ why | cell }}
{% endfor %}
{% endif %}
{% if dataset.labels %}

Labels: {% for l in dataset.labels %}{{ l | cell }}{% if not loop.last %}; {% endif %}{% endfor %}.
{% endif %}

## Use

The system prompt it was trained with is part of the model:

```text
{{ spec.system }}
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
{% if relation == "adapter" %}
from peft import PeftModel
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{{ spec.base_name }}"), ".")
{% else %}
model = AutoModelForCausalLM.from_pretrained(".")
{% endif %}
tokenizer = AutoTokenizer.from_pretrained(".")
```

## Limits

Measured on held-out rows of the same source as the training data; other inputs are not covered by the numbers above.
{% if spec.kind == "classify" %}
It knows only the labels listed above and will choose one of them for any text.
{% endif %}
"""
)


def model_card(
    spec: BundleSpec,
    dataset: dict[str, Any],
    report: dict[str, Any],
    verdict: dict[str, Any],
    checkpoint: dict[str, Any],
) -> str:
    kind = checkpoint["method"]["kind"]
    is_full = kind == "full"
    method = (
        "full fine-tuning"
        if is_full
        else f"{kind.upper() if kind == 'lora' else kind}, rank {checkpoint['method']['rank']}"
    )
    return TEMPLATE.render(
        spec=spec,
        dataset=dataset,
        report=report,
        verdict=verdict,
        tuned=report["arms"]["tuned"],
        method=method.replace("LORA", "LoRA"),
        status=STATUS[verdict["status"]],
        library="transformers" if is_full else "peft",
        relation="finetune" if is_full else "adapter",
    )
