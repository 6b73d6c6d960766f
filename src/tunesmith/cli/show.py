"""Results on stdout: as JSON, or as text for people. Nothing that came from data can drive a terminal."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from typing import IO, Any

import click

# controls but line feed and tab, and what turns text round: an answer must not move the cursor,
# recolour the screen or make one word look like another
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SHOWN = 100  # characters of one value in a table or a list
MARKS = {"pass": "✓", "fail": "✕", "unproven": "…"}

_kept: list[IO[str]] = []  # the stdout that results go to while everything else is sent elsewhere


@contextmanager
def only_results_on_stdout(as_json: bool) -> Iterator[None]:
    """With `as_json`, what libraries print meanwhile goes to stderr: one such line would spoil the document. DeepSpeed,
    for one, logs to what was stdout when it was imported."""
    if not as_json:
        yield
        return
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def harmless(text: str) -> str:
    r"""Control characters as \x1b or \u202e."""
    return _UNSAFE.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text)


def show(value: Any, as_json: bool) -> None:
    """Print a verb's result."""
    if as_json:
        write_json(value)
    elif value is not None and (text := words(value)):
        click.echo(harmless(text))


def write_json(value: Any) -> None:
    """One JSON document; NaN and infinity, which JSON lacks, as null."""
    from tunesmith.core.canonical import plain

    text = json.dumps(_finite(plain(value)), ensure_ascii=False, indent=2, allow_nan=False)
    click.echo(text, file=_kept[-1] if _kept else None)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value


def words(value: Any) -> str:
    """A result as text: the noun's own words, a table for a list, `key: value` lines for the rest."""
    if isinstance(value, str):
        return value
    if known := WORDS.get(type(value).__name__):
        return known(value)
    has_words = "__str__" in vars(type(value))
    if has_words or isinstance(value, int | float):
        return str(value)
    if isinstance(value, Sequence):
        return _list_words(value)
    return "\n".join(_lines(_mapping(value)))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns; numbers to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    right = [all(isinstance(row.get(n), int | float) for row in rows) for n in names]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in (names, *cells)
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text.replace("\n", "↵").replace("\t", " ")
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _list_words(values: Sequence[Any]) -> str:
    if not values:
        return "nothing yet"
    if all(type(v).__name__ == "Run" for v in values):
        return table([_run_row(v) for v in values])
    if all(isinstance(v, Mapping) for v in values):
        return table(values)
    return "\n".join(words(v) for v in values)


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return {type(value).__name__: str(value)}


def _lines(value: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    for key, item in value.items():
        if isinstance(item, Mapping) or is_dataclass(item):
            inner = _mapping(item)
            yield f"{indent}{key}:{'' if inner else ' –'}"
            yield from _lines(inner, indent + "  ")
        elif isinstance(item, list | tuple) and any(isinstance(v, Mapping) or is_dataclass(v) for v in item):
            yield f"{indent}{key}:"
            for entry in item:
                first, *rest = list(_lines(_mapping(entry), indent + "    ")) or [""]
                yield f"{indent}  - {first.strip()}"
                yield from rest
        elif isinstance(item, list | tuple):
            yield f"{indent}{key}: {', '.join(_cell(v) for v in item) or '–'}"
        else:
            yield f"{indent}{key}: {_cell(item)}"


def _run_row(run: Any) -> dict[str, Any]:
    arm = run.spec.get("arm") if run.stage == "answer" else None
    return {
        "id": run.id[:12],
        "stage": f"{run.stage} {arm}" if arm else run.stage,
        "status": "reused" if run.reused else run.status,
        "started": run.started[:19].replace("T", " "),
        "seconds": round(run.seconds, 1),
        "made": next((made[:12] for name, made in run.outputs.items() if name != "metrics"), None),
    }


def _run_words(run: Any) -> str:
    facts = [f"{k.replace('_', ' ')} {_cell(v)}" for k, v in run.metrics.items() if not isinstance(v, dict | list)]
    kept = [
        {"beside it": k["output"], "checkpoint": run.outputs[k["output"]][:12], "validation": k["validation"]}
        for k in run.metrics.get("kept", ())
        if k["output"] in run.outputs
    ]
    said = [" · ".join(facts)] if facts else []
    return "\n".join(
        [table([_run_row(run)]), *said, *([table(kept)] if kept else []), *([run.error] if run.error else [])]
    )


def _verdict_words(verdict: Any) -> str:
    lines = [{"pass": "PASS", "fail": "FAIL", "unproven": "NOT ENOUGH EVIDENCE"}[verdict.status]]
    for goal in verdict.goals:
        m = goal.measured
        numbers = f"  {m.value:.3f} ({m.low:.3f} – {m.high:.3f})" if m else ""
        lines.append(f"  {MARKS[goal.status]} {goal.goal}{numbers}: {goal.because}")
        if goal.next:
            lines.append(f"      {goal.next}")
    return "\n".join([*lines, *(f"  ! {advice}" for advice in verdict.advice)])


def _answer_words(answer: Any) -> str:
    """The answer alone on its first lines, so that it can be piped; its confidence after a blank line."""
    sure = "" if answer.confidence is None else f"\n\nconfidence {answer.confidence:.2f}"
    cut = "\nstopped at the longest answer allowed" if answer.finish == "length" else ""
    return f"{answer.text}{sure}{cut}"


def _health_words(health: Any) -> str:
    found = [f"{f.severity}: {f.where}: {f.what}\n  fix:   {f.fix}" for f in health.findings]
    state = "everything is what it was" if health.is_clean else "something is damaged"
    size = health.bytes / 2**20
    return "\n".join([*found, f"{state}: {health.facts:,} facts, {health.objects:,} objects, {size:,.1f} MiB read"])


def _lineage_words(lineage: Any) -> str:
    """Each run as one line, oldest first: what it took, what it made."""
    kind = {id: a.kind for id, a in lineage.artifacts.items()}
    lines = [f"source  {name}  {sha256[:12]}" for name, sha256 in lineage.sources.items()]
    for run in sorted(lineage.runs.values(), key=lambda r: r.started):
        sides = {
            side: ", ".join(
                f"{kind[e.artifact]} {e.artifact[:12]}"
                for e in lineage.edges
                if e.run == run.id and e.direction == side and kind[e.artifact] != "metrics"
            )
            for side in ("in", "out")
        }
        row = _run_row(run)
        lines.append(f"{row['id']}  {row['stage']}: {sides['in']} → {sides['out']}")
    return "\n".join([*lines, *(f"{name} → {target[:12]}" for name, target in lineage.references.items())])


def _predicted_words(predicted: Any) -> str:
    kept = f", {predicted.reused:,} of them from before" if predicted.reused else ""
    return f"{predicted.rows:,} rows answered into {predicted.out}{kept} (columns {', '.join(predicted.columns)})"


def _backup_words(backup: Any) -> str:
    size = f"{backup.facts:,} facts and {backup.objects:,} objects, {backup.bytes / 2**20:,.1f} MiB"
    outside = [f"not in it, because it lies outside the project: {folder}" for folder in backup.left_out]
    return "\n".join([f"{size}, in {backup.folder}", *outside])


WORDS: dict[str, Callable[[Any], str]] = {  # by name: importing these nouns would import their rooms
    "Run": _run_words,
    "Verdict": _verdict_words,
    "Answer": _answer_words,
    "Health": _health_words,
    "Lineage": _lineage_words,
    "Predicted": _predicted_words,
    "Backup": _backup_words,
}
