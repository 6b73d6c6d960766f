"""What `tunesmith check` says, as lines for a terminal."""

from __future__ import annotations

from typing import Any

CLASSES_SHOWN = 30
FINDINGS_SHOWN = 20


def checked_words(facts: dict[str, Any], dataset: dict[str, Any] | None, warnings: tuple[str, ...]) -> str:
    out = sum(facts["left_out"].values()) if facts["left_out"] else 0
    lines = [f"{facts['read']:,} rows read, {facts['kept']:,} usable, {out:,} left out"]
    lines += [f"  {n:,} {reason.replace('_', ' ')}" for reason, n in facts["left_out"].items()]
    if facts.get("shape_words"):
        lines.append(facts["shape_words"])
    if dataset:
        lines += split_words(dataset)
        if dataset["class_counts"]:
            lines += class_words(dataset)
    findings = facts["findings"]
    if findings:
        lines += ["", f"{len(findings)} {'finding' if len(findings) == 1 else 'findings'}:"]
        for f in findings[:FINDINGS_SHOWN]:
            where = f"{f['where']}: " if f.get("where") else ""
            lines.append(f"  {where}{f['what']}")
            if f.get("fix"):
                lines.append(f"    fix:   {f['fix']}")
        if len(findings) > FINDINGS_SHOWN:
            lines.append(f"  and {len(findings) - FINDINGS_SHOWN} more (tunesmith check --json lists them)")
    lines += [f"! {w}" for w in warnings]
    return "\n".join(lines)


def split_words(dataset: dict[str, Any]) -> list[str]:
    counts, split, tokens = dataset["counts"], dataset["split"], dataset["tokens"]
    by = "group: no group straddles a split" if split["by"] == "group" else "row"
    return [
        f"split by {by}: {counts['train']:,} train, {counts['validation']:,} validation, {counts['test']:,} test "
        f"({split['deviation']:.1%} from the shares asked for at most); test set sealed {dataset['seal'][:12]}",
        f"tokens: {tokens['total']:,} in all, longest example {tokens['longest']}, "
        f"prompt {tokens['prompt']['mean']:.0f} and answer {tokens['answer']['mean']:.0f} on average; none is cut",
    ]


def class_words(dataset: dict[str, Any]) -> list[str]:
    counts, not_judged = dataset["class_counts"], dataset["not_judged"]
    names = sorted(counts, key=lambda c: -sum(counts[c].values()))
    width = min(60, max(len(n) for n in names))
    lines = [f"{'class':<{width}} {'train':>6} {'valid':>6} {'test':>6}"]
    for name in names[:CLASSES_SHOWN]:
        c = counts[name]
        note = f"  not judged: {not_judged[name]}" if name in not_judged else ""
        lines.append(f"{name[:width]:<{width}} {c['train']:>6} {c['validation']:>6} {c['test']:>6}{note}")
    if len(names) > CLASSES_SHOWN:
        lines.append(f"and {len(names) - CLASSES_SHOWN} more classes")
    return lines
