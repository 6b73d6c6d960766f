"""What a million rows of 1 KB take: check, clean, exact and near dedup, audit and split, each in a process of its own.

    python benchmarks/million.py [--rows 1000000] [--stages check,clean,...] [--audit-rows N] [--folder FOLDER]

For each stage: rows, processor seconds (children included), and the most memory that the process held
(getrusage), of which the interpreter and the libraries are part; and how often it reported progress. The rows are
made up from a seed: English-looking texts of about 1 KB with names, numbers and a few e-mail addresses, in 20
classes; every tenth is a near-copy of an earlier row (up to six words changed) and one in a hundred an exact
one. `dedup_exact`, `dedup`, `audit` and `split` all read what `clean` wrote, so that every one of them meets
every row. `split` is what prepare does before it counts tokens: read, place in whole units, prove that no near pair straddles two splits.

Writes benchmarks/results/million.json, one stage after another, keeping what other stages said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np  # noqa: E402 - after the thread policy

RESULT = Path(__file__).parent / "results" / "million.json"
LIMIT_MIB = 4096
STAGES = ("check", "clean", "dedup_exact", "dedup", "audit", "split")
NEAR_COPIES, COPIES = 0.10, 0.01
LABELS = tuple(f"topic_{i:02d}" for i in range(20))
COMMON = (
    "the of and to a in is that for it was on are as with they be at have this from or had by but not what all were we "
    "when your can said there use an each which she do how their if will up other about out many then them these so "
    "some her would make like him into time has look two more write go see number no way could people my than first "
    "been call who its now find long down day did get come made may part over new after also back any good me give most "
    "us our just name very through where much before line right too means old same tell follow came want show every"
)
SYLLABLES = "an ter con re in pro ment ver sta lo mi ra ti on per der sen for ga el ca na pre si tor den mar lin"


class Tracked:
    """A progress sink that counts: a stage that says nothing for minutes looks hung."""

    def __init__(self) -> None:
        self.reports, self.longest, self._last = 0, 0.0, time.perf_counter()

    def __call__(self, done: float, total: float, label: str, **facts: Any) -> None:
        now = time.perf_counter()
        self.reports += 1
        self.longest = max(self.longest, now - self._last)
        self._last = now


def made_up(rows: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(text, label)"""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    syllables = SYLLABLES.split()
    words = [*COMMON.split(), *("".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(60_000))]
    weights = np.cumsum(1 / (np.arange(len(words)) + 3.0) ** 1.05)
    weights /= weights[-1]
    recent: list[tuple[list[str], str]] = []
    for i in range(rows):
        luck = rng.random()
        if recent and luck < COPIES + NEAR_COPIES:
            tokens, label = recent[rng.randrange(len(recent))]
            tokens = list(tokens)
            if luck >= COPIES:
                for _ in range(rng.randint(1, 6)):
                    tokens[rng.randrange(len(tokens))] = words[int(np.searchsorted(weights, rng.random()))]
        else:
            drawn = np.searchsorted(weights, numbers.random(rng.randint(110, 190))).tolist()
            tokens, label = [words[w] for w in drawn], LABELS[int(20 * rng.random() ** 1.5)]
            for at in range(0, len(tokens), rng.randint(9, 17)):
                tokens[at] = ("" if at == 0 else ". ") + tokens[at].capitalize()
            if luck > 0.7:
                tokens[rng.randrange(len(tokens))] = f"{rng.randrange(10_000_000):,}"
            if luck > 0.98:
                tokens.append(
                    f"Write to {rng.choice(words)}.{i}@mail-{i % 97}.org or call +44 20 7946 0{i % 1000:03d}."
                )
        if len(recent) < 5_000:
            recent.append((tokens, label))
        else:
            recent[rng.randrange(5_000)] = (tokens, label)
        yield " ".join(tokens).replace(" . ", ". "), label


def write_source(folder: Path, rows: int) -> int:
    folder.mkdir(parents=True)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as f:
        return sum(f.write(json.dumps({"text": text, "label": label}) + "\n") for text, label in made_up(rows))


def check(source: Path, work: Any) -> Path:
    from tunesmith.data.check import check as stage
    from tunesmith.data.stages import CheckInputs, CheckSpec

    spec = CheckSpec(
        kind="classify", text="text", label="label", group=None, weight=None, shape=None, query=None, sheet=None, keep=(), labels=(),
        variants={}, unlabelled="refuse", forgotten=(), bad_rows="refuse", duplicates="keep", contradictions="leave_out",
        min_class_rows=1, restored=(),
    )  # fmt: skip
    return stage(spec, CheckInputs(source=source), work).examples


def clean(examples: Path, work: Any) -> Path:
    from tunesmith.data.clean.clean import clean as stage
    from tunesmith.data.clean.stages import CleanInputs, CleanSpec

    spec = CleanSpec(
        kind="classify", steps=("encoding", "control", "whitespace"), fields=("input",), boilerplate_rows=100,
        boilerplate_share=0.02, boilerplate_unit="line", restored=(),
    )  # fmt: skip
    return stage(spec, CleanInputs(examples=examples), work).examples


def dedup(examples: Path, work: Any, near: float = 0.8) -> Path:
    from tunesmith.data.near.dedup import dedup as stage
    from tunesmith.data.near.stages import DedupInputs, DedupSpec

    spec = DedupSpec(
        kind="classify", near=near, across=True, keep="first", newest_by=None, templates=True, contradictions="review",
        candidates="exact", against=0.8, semantic=0.0, restored=(),
    )  # fmt: skip
    return stage(spec, DedupInputs(examples=examples), work).examples


def dedup_exact(examples: Path, work: Any) -> Path:
    return dedup(examples, work, near=0.0)


def audit(examples: Path, work: Any) -> Path:
    from tunesmith.data.audit.audit import audit as stage
    from tunesmith.data.audit.catalogue import DEFAULT_KINDS
    from tunesmith.data.audit.stages import AuditInputs, AuditSpec

    spec = AuditSpec(
        kind="classify", restored=(), policies=dict.fromkeys(DEFAULT_KINDS, "redact"), salt="", regions=("US", "GB"),
        min_score=0.5, toxicity="flag", max_toxicity=0.8, languages="flag", expected_languages=(),
        min_language_share=0.05, injection="flag", leakage="flag", damage="flag", triggers="flag", outliers="flag",
        outlier_z=6.0, balance="flag", max_imbalance=10.0, bias="flag", max_counterfactuals=1_000, alpha=0.01,
    )  # fmt: skip
    return stage(spec, AuditInputs(examples=examples), work).examples


def split(examples: Path, work: Any) -> Path:
    from tunesmith.data.placing import place_rows
    from tunesmith.data.stages import PrepareSpec
    from tunesmith.data.survey import look

    spec = PrepareSpec(
        kind="classify", labels=(), train=0.8, validation=0.1, test=0.1, by="random", near=0.8, time_field=None,
        field=None, test_values=(), folds=5, fold=0, salt="", max_deviation=0.05, small_classes="keep",
        min_class_rows=1, limit=None, seed=0, max_tokens=1024, over_long="refuse", system="", restored=(),
    )  # fmt: skip
    survey = look(examples / "rows.jsonl", spec, work=work)
    placed = place_rows(spec, survey, has_previous=False, work=work)
    work.summarize(**placed.facts)
    return examples


RUN: dict[str, Callable[[Path, Any], Path]] = {
    "check": check,
    "clean": clean,
    "dedup_exact": dedup_exact,
    "dedup": dedup,
    "audit": audit,
    "split": split,
}


def one(stage: str, examples: Path, root: Path, workers: int) -> dict[str, Any]:
    """In a process of its own: what the stage took."""
    from tunesmith.core.stage import Workspace

    base, progress = _peak(), Tracked()
    work = Workspace(root=root, progress=progress)
    started, used = time.perf_counter(), _processor()
    out = RUN[stage](examples, work)
    with open(out / "rows.jsonl", "rb") as f:
        kept = sum(1 for _ in f)
    return {
        "kept": kept,
        "processor_seconds": round(_processor() - used, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "peak_mib": _peak(),
        "interpreter_mib": base,
        "progress_reports": progress.reports,
        "longest_silence_seconds": round(progress.longest, 1),
        "summary": {k: v for k, v in work.summary.items() if k in ("left_out", "changed", "near", "naive_leak")},
    }


def first_rows(examples: Path, folder: Path, rows: int) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in examples.iterdir():
        with open(path, "rb") as whole, open(folder / path.name, "wb") as part:
            part.writelines(itertools.islice(whole, rows))
    return folder


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _processor() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--audit-rows", type=int, help="rows of the audit, the first so many; all if absent")
    parser.add_argument("--folder", type=Path, help="where rows are kept for another run; a temporary one if absent")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        stage, examples, root = asked.one
        print(json.dumps(one(stage, Path(examples), Path(root), asked.workers)))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(asked, asked.folder or Path(name))


def measure(asked: argparse.Namespace, folder: Path) -> None:
    known = json.loads(asked.result.read_text("utf-8")) if asked.result.exists() else {"stages": {}}
    known |= {
        "limit_mib": LIMIT_MIB,
        "versions": {"numpy": version("numpy"), "python": platform.python_version()},
        "made_up": {"near_copies": NEAR_COPIES, "copies": COPIES, "seed": 0},
    }
    source = folder / f"source-{asked.rows}"
    if not source.exists():
        write_source(source, asked.rows)
    size = (source / "rows.jsonl").stat().st_size
    for stage in asked.stages.split(","):
        root = folder / f"{stage}-{asked.rows}"
        before = {"check": source, "clean": folder / f"check-{asked.rows}" / "out" / "examples"}
        examples = before.get(stage, folder / f"clean-{asked.rows}" / "out" / "examples")
        if stage == "audit" and asked.audit_rows:
            examples = first_rows(examples, folder / f"first-{asked.audit_rows}", asked.audit_rows)
        shutil.rmtree(root, ignore_errors=True)
        command = [sys.executable, __file__, "--one", stage, str(examples), str(root), "--workers", str(asked.workers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        with open(examples / "rows.jsonl", "rb") as f:
            rows = sum(1 for _ in f)
        found = {"rows": rows, "bytes_a_row": round(size / asked.rows), **json.loads(done.stdout)}
        found["rows_a_processor_second"] = round(rows / max(found["processor_seconds"], 0.1))
        found["within_limit"] = found["peak_mib"] <= LIMIT_MIB
        known["stages"][stage] = found
        print(stage, json.dumps(found), flush=True)
        asked.result.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
        if stage not in ("check", "clean"):
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
