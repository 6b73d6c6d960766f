"""Write diagnoses.csv: ICD-10-CM diagnosis texts with their chapter and three-character category.

    python examples/icd10.py diagnoses.csv

About 3,600 rows: at most two billable codes of each category, drawn with seed 0, in the order of the
codes. The terms come from the package simple-icd-10-cm and are in the public domain in the United
States. Rows of one category say nearly the same, so a split must keep categories together.
"""

from __future__ import annotations

import csv
import io
import random
import re
import sys
from pathlib import Path

CODE_RANGE = re.compile(r"\s*\([A-Z][\dA-Z]{2}-[A-Z][\dA-Z]{2}\)$")
A_CATEGORY = 2  # rows


def rows(seed: int = 0) -> list[tuple[str, str, str]]:
    """(description, chapter, category) of the drawn codes. The chapter is without its code range."""
    try:
        import simple_icd_10_cm as icd
    except ImportError:
        raise SystemExit("simple-icd-10-cm is not installed: pip install simple-icd-10-cm") from None
    leaves: dict[str, list[str]] = {}
    for code in icd.get_all_codes(with_dots=False):
        if len(code) >= 3 and icd.is_category_or_subcategory(code) and icd.is_leaf(code):
            leaves.setdefault(code[:3], []).append(code)
    draw = random.Random(seed)
    found = []
    for category in sorted(leaves):
        codes = sorted(leaves[category])
        for code in sorted(draw.sample(codes, min(A_CATEGORY, len(codes)))):
            chapter = CODE_RANGE.sub("", icd.get_description(icd.get_ancestors(code)[-1]))
            found.append((icd.get_description(code), chapter, category))
    return found


def write(path: Path, seed: int = 0) -> int:
    """The same bytes on every machine; returns the number of rows."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("description", "chapter", "category"))
    found = rows(seed)
    table.writerows(found)
    path.write_bytes(text.getvalue().encode("utf-8"))
    return len(found)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/icd10.py OUT.csv")
    print(f"{write(Path(sys.argv[1])):,} rows in {sys.argv[1]}")
