"""What a step of the data room did, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStep:
    """One finished step: its facts, and where its rows are."""

    step: str
    facts: dict[str, Any]  # <step>.json
    folder: Path  # the artifact, read-only
    run: str
    reused: bool
    next: str = ""

    def __str__(self) -> str:
        if whole := whole_words(self.step, self.facts):
            return whole + (f"\nnext:  {self.next}" if self.next else "")
        lines = [count_words(self.step, self.facts)]
        lines += [f"  left out   {n:,} {reason.replace('_', ' ')}" for reason, n in _numbers(self.facts, "left_out")]
        lines += [f"  altered    {n:,} by {what}" for what, n in _numbers(self.facts, "changed")]
        lines += [f"  restored   {len(self.facts['restored']):,}"] if self.facts.get("restored") else []
        lines += OWN[self.step](self.facts) if self.step in OWN else []
        lines += [f"next:  {self.next}"] if self.next else []
        return "\n".join(lines)


def _numbers(facts: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    found = facts.get(name) or {}
    return sorted(((k, v) for k, v in found.items() if isinstance(v, int)), key=lambda kv: (-kv[1], kv[0]))


def count_words(step: str, facts: Mapping[str, Any]) -> str:
    if "read" in facts and "kept" in facts:
        return f"{step}: {facts['read']:,} rows in, {facts['kept']:,} kept, {facts['read'] - facts['kept']:,} left out"
    counts = [
        f"{v:,} {k.replace('_', ' ')}" for k, v in facts.items() if isinstance(v, int) and not isinstance(v, bool)
    ]
    return f"{step}: {', '.join(counts[:6])}"


def _clean(facts: dict[str, Any]) -> list[str]:
    lines = []
    for found in facts.get("steps", []):
        for sample in found.get("samples", [])[:1]:
            lines += [f"  {found['name']}:", f"    - {_flat(sample['before'])}", f"    + {_flat(sample['after'])}"]
    return lines


def _dedup(facts: dict[str, Any]) -> list[str]:
    lines = [f"  {facts['clusters']:,} clusters"] if isinstance(facts.get("clusters"), int) else []
    for cluster in facts.get("largest", [])[:3]:
        lines.append(f"    {cluster['rows']:,} rows like {cluster['kept']}: {_flat(cluster.get('text', ''))}")
    for template in facts.get("templates", [])[:3]:
        lines.append(f"    a template, left out of the similarity: {_flat(str(template.get('text', template)))}")
    return lines


def _audit(facts: dict[str, Any]) -> list[str]:
    found = facts.get("found") or facts.get("findings") or {}
    numbers = [(k, v["rows"] if isinstance(v, dict) else v) for k, v in found.items()]
    return [f"  found      {n:,} rows with {kind.replace('_', ' ')}" for kind, n in numbers if n]


OWN = {"clean": _clean, "dedup": _dedup, "audit": _audit}


def whole_words(step: str, facts: dict[str, Any]) -> str:
    """Of the steps that say everything themselves; "" for the others."""
    if step == "label":
        from tunesmith.data.labels.label import label_words

        return label_words(facts)
    if step == "augment":
        from tunesmith.data.augment.augment import augment_words

        return augment_words(facts)
    if step == "prepare":
        from tunesmith.flows.words import class_words, split_words

        return "\n".join([*split_words(facts), *(class_words(facts) if facts["class_counts"] else [])])
    return ""


def _flat(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:99] + "…"
