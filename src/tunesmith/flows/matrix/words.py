"""A matrix as text for a terminal, and the chosen settings as --set words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tunesmith.core.project_file import FILE_NAME
from tunesmith.core.settings import Settings, TrainSettings

CHEAPEST = {
    "trained_weights": "the fewest trained weights",
    "bytes": "the smallest file",
    "peak_mib": "the least memory",
    "seconds": "the shortest training",
}
COLUMNS = ("cell", "rows", "score", "interval", "to the best", "trained", "MiB", "peak MiB", "tokens/s", "min", "path")
VERDICTS = {"pass": "PASS", "fail": "FAIL", "unproven": "NOT ENOUGH EVIDENCE"}


def matrix_words(facts: Mapping[str, Any]) -> str:
    lines = []
    for on in ("subset", "all"):
        cells = [c for c in facts["cells"] if c["on"] == on]
        if not cells:
            continue
        where = f"a subset of {cells[0]['rows']:,} training rows" if on == "subset" else "all training rows"
        lines += [f"on {where}, by {facts['metric']} on {facts['n']:,} validation rows:"]
        lines += [*_table([_row(c) for c in cells]), ""]
    lines += [f"  {c['name']}: {c['failure']}" for c in facts["cells"] if c["failure"]]
    lines += [f"  ! {note}" for note in facts["notes"]]
    level = round(100 * facts["confidence"])
    lines.append(
        f"intervals of {level} %, by group; = is no difference from the best (*) beyond noise, after Holm's correction"
    )
    chosen, look = facts["chosen"], facts["look"]
    if not chosen:
        return "\n".join([*lines, f"nothing is chosen: {facts['why_none']}"])
    lines.append(f"chosen: {chosen['name']}: {chosen['rule']}")
    if look:
        lines += ["", f"on the test set: {VERDICTS[look['status']]}"]
        score = look["arms"]["tuned"]
        if score:
            lines.append(f"  {look['metric']} {score['value']:.3f} ({score['low']:.3f} – {score['high']:.3f})")
        lines += [f"  {g['goal']}: {g['because']}" for g in look["goals"]]
        lines.append(f"  {looks_words(look)}")
    lines.append(f"next:  {chosen['go_on']}   (trained and answered already)")
    return "\n".join(lines)


def looks_words(look: Mapping[str, Any]) -> str:
    n = look["looks"]
    if n == 1:
        return "the first and only look of a tuned model at this test set"
    again = "another look" if look["is_new"] else "no new look: the answers were there"
    return f"{again}; tuned models have looked at this test set {n} times, and the best of several looks is lucky"


def path_word(cell: Mapping[str, Any]) -> str:
    return str(cell["path"]).partition(":")[0]


def _row(c: Mapping[str, Any]) -> tuple[str, ...]:
    if c["failure"]:
        return (c["name"], f"{c['rows']:,}", "failed", *[""] * (len(COLUMNS) - 3))
    score, gap = c["score"], c["difference"]
    mark = "*" if c["is_best"] else "=" if c["is_noise"] else ""
    return (
        c["name"],
        f"{c['rows']:,}",
        f"{score['value']:.3f}{mark or ' '}",
        f"{score['low']:.3f} – {score['high']:.3f}",
        f"{gap['value']:+.3f}" if gap else "",
        f"{c['trained_weights']:,}",
        f"{c['bytes'] / 2**20:,.1f}",
        f"{c['peak_mib']:,}",
        f"{c['tokens_per_s']:,.0f}",
        f"{c['seconds'] / 60:.1f}",
        path_word(c),
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(r[i]) for r in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = [
            v.ljust(w) if i in (0, len(COLUMNS) - 1) else v.rjust(w)
            for i, (v, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def set_words(file: Settings, now: Settings, chosen: TrainSettings) -> list[str]:
    """What differs between the project file and the chosen cell, as this run overrides it: "train.lr=0.001"."""
    before = dict(_leaves(file, ""))
    after = _leaves(now.model_copy(update={"train": chosen, "matrix": file.matrix}), "")
    return [f"{key}={_yaml(value)}" for key, value in after if before[key] != value]


def go_on_words(file: str, words: list[str]) -> str:
    """The command that goes on with what was chosen, in the project's folder."""
    named = [] if file == FILE_NAME else ["--project", file]
    return shlex.join(["tunesmith", "run", *named, *(part for word in words for part in ("--set", word))])


def _leaves(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _yaml(value: Any) -> str:
    """JSON is YAML; plain words need no quotes."""
    return value if isinstance(value, str) and value.replace("_", "").isalnum() else json.dumps(value)
