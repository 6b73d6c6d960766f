"""A messy folder to practise on: real diagnoses (ICD-10-CM) as three clinics might export them.

    python examples/messy.py practice

    exports/north.csv        duplicates, labels spelled in two ways, one text with two answers, mojibake
    exports/south.jsonl.gz   HTML, invisible characters, contact details in free text, a footer on every row
    exports/west.parquet     the same cases as north.csv in other words: near copies
    held-out/2025.jsonl      last year's exam questions, which must not be trained on; some are in the exports

Everything is seeded: the same folder each time. Needs the extras `demo` and `tables`.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

FOOTER = "Printed by the ward system. Confidential."
FIRST = ("Maria", "John", "Wei", "Fatima", "Peter", "Anna")
LAST = ("Miller", "Schmidt", "Okafor", "Rossi", "Novak", "Jones")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "practice")
    (folder / "exports").mkdir(parents=True, exist_ok=True)
    (folder / "held-out").mkdir(exist_ok=True)
    rng = random.Random(0)
    rows = diagnoses(rng)
    north, south, west, exam = rows[:900], rows[900:1600], rows[:250], rows[1600:1640]
    write_north(folder / "exports" / "north.csv", north, rng)
    write_south(folder / "exports" / "south.jsonl.gz", [*south, *exam[:12]], rng)
    write_west(folder / "exports" / "west.parquet", west, rng)
    lines = [json.dumps({"description": r["description"]}, ensure_ascii=False) for r in exam]
    (folder / "held-out" / "2025.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {folder}/exports (north.csv, south.jsonl.gz, west.parquet) and {folder}/held-out/2025.jsonl")


def diagnoses(rng: random.Random) -> list[dict[str, str]]:
    """Of six chapters, six leaves a category at most, in a seeded order."""
    import simple_icd_10_cm as icd

    wanted = {"Neoplasms", "Diseases of the eye and adnexa", "Diseases of the ear and mastoid process",
              "Diseases of the respiratory system", "Diseases of the digestive system",
              "Diseases of the skin and subcutaneous tissue"}  # fmt: skip
    by_category: dict[str, list[dict[str, str]]] = {}
    for code in icd.get_all_codes():
        if icd.is_leaf(code):
            lineage = icd.get_ancestors(code)
            chapter = icd.get_description(lineage[-1]).rsplit(" (", 1)[0]
            if chapter in wanted:
                row = {"description": icd.get_description(code), "chapter": chapter, "category": code[:3]}
                by_category.setdefault(code[:3], []).append(row)
    rows = [row for leaves in by_category.values() for row in rng.sample(leaves, min(6, len(leaves)))]
    rng.shuffle(rows)
    return rows


def write_north(path: Path, rows: list[dict[str, str]], rng: random.Random) -> None:
    out = [dict(row) for row in rows]
    for row in rng.sample(out, 40):
        row["chapter"] = rng.choice(
            [row["chapter"].upper(), row["chapter"] + " ", row["chapter"].replace("e", "ee", 1)]
        )
    for row in rng.sample(out, 30):
        row["description"] = f"Ménière’s clinic: {row['description']}".encode().decode("cp1252")  # mojibake
    out += [dict(row) for row in rng.sample(out, 60)]
    torn = dict(rows[5], chapter="Neoplasms" if rows[5]["chapter"] != "Neoplasms" else rows[6]["chapter"])
    out.append(torn)
    out.append({"description": "", "chapter": rows[0]["chapter"], "category": rows[0]["category"]})
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, ["description", "chapter", "category"], delimiter=";")
        writer.writeheader()
        writer.writerows(out)


def write_south(path: Path, rows: list[dict[str, str]], rng: random.Random) -> None:
    lines = []
    for row in rows:
        text = row["description"]
        if rng.random() < 0.15:
            text = f"<p>{text.replace('&', '&amp;')}</p>"
        if rng.random() < 0.1:
            text = text.replace(" ", "\u200b ", 1)
        if rng.random() < 0.08:
            name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
            mail = name.lower().replace(" ", ".") + "@example.org"
            text += f". Call {name} on +1 212 555 {rng.randrange(100, 200):04d} or write to {mail}"
        lines.append(json.dumps({**row, "description": f"{text}\n{FOOTER}"}, ensure_ascii=False))
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write(("\n".join(lines) + "\n").encode("utf-8"))


def write_west(path: Path, rows: list[dict[str, str]], rng: random.Random) -> None:
    """The same cases, a word more or another side: what a random split would leak."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def reworded(text: str) -> str:
        swapped = text.replace("left", "right") if "left" in text else text.replace("right", "left")
        return rng.choice([f"{swapped}, as seen", f"Known {swapped[:1].lower()}{swapped[1:]}", f"{swapped} (old case)"])

    table: dict[str, list[Any]] = {
        "description": [reworded(r["description"]) for r in rows],
        "chapter": [r["chapter"] for r in rows],
        "category": [r["category"] for r in rows],
    }
    parquet.write_table(pa.table(table), path)


if __name__ == "__main__":
    main()
