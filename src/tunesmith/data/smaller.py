"""Stage subset: a data set with fewer training rows.

Validation and test rows stay byte for byte, under the same seal, and the training rows are some of those there
were: whatever the split kept apart is apart here too. Classes keep their shares, and a smaller subset is contained
in a larger one. The token counts stay those of the whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.stages import SubsetInputs, SubsetOutputs, SubsetSpec
from tunesmith.data.subset import subset

KEPT = ("validation.jsonl", "test.jsonl")


def smaller(spec: SubsetSpec, inputs: SubsetInputs, work: Workspace) -> SubsetOutputs:
    """Raises DataError if more rows are asked for than there are."""
    lines = (inputs.dataset / "train.jsonl").read_bytes().splitlines(keepends=True)
    rows = [msgspec.json.decode(line, type=Row) for line in lines]
    if spec.rows > len(rows):
        what = f"{spec.rows:,} training rows are wanted, and there are {len(rows):,}"
        raise DataError(what, where="matrix.subset", fix=f"--set matrix.subset={len(rows)}")
    dataset: dict[str, Any] = read_json(inputs.dataset / "dataset.json")
    labels = {label: i for i, label in enumerate(dataset["labels"])}
    classes = [labels.get(row.target, -1) for row in rows]
    chosen = sorted(subset([row.id for row in rows], [0] * len(rows), classes, spec.rows, spec.seed))

    folder = work.scratch / "dataset"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "train.jsonl", b"".join(lines[i] for i in chosen))
    for name in KEPT:
        shutil.copyfile(inputs.dataset / name, folder / name)
    trained = Counter(rows[i].target for i in chosen)
    table = {c: {**n, "train": trained[c]} for c, n in dataset["class_counts"].items()}
    facts = {
        **dataset,
        "counts": {**dataset["counts"], "train": len(chosen)},
        "class_counts": table,
        "untrained": [c for c, n in table.items() if not n["train"] and sum(n.values())],
        "subset": {"rows": len(chosen), "of": len(rows), "seed": spec.seed},
    }
    write_atomic(folder / "dataset.json", canonical_json(facts) + b"\n")
    work.summarize(rows=len(chosen), of=len(rows), classes=len(trained))
    return SubsetOutputs(dataset=folder)
