"""`tunesmith data look`: what is in a folder, what is wrong with it, and what to do, before there is a project.

Runs the stages check, dedup and audit and the first pass of the split in a scratch folder, with policies that
list and never refuse. Nothing is kept but the page.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Kind, LeftOut, Row
from tunesmith.core.settings import Settings, TaskSettings
from tunesmith.core.sources import expand
from tunesmith.core.stage import Clock, Workspace, no_progress
from tunesmith.data.audit.stages import AuditInputs, AuditSpec
from tunesmith.data.check import Detected, check, detect
from tunesmith.data.lines import Record, excerpt
from tunesmith.data.near.dedup import dedup
from tunesmith.data.near.stages import DedupInputs, DedupSpec
from tunesmith.data.read import facts_of, read_file, source_files
from tunesmith.data.stages import CheckInputs, CheckSpec, PrepareSpec

SAMPLE = 400  # records from which columns are guessed
MOST_VALUES = 10_000  # different values of a column that are counted
MOST_CLASSES = 200  # more distinct values are no classes
CHATS = ("messages", "sharegpt", "preference", "chosen_rejected", "trace")
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was found, for the page and for the terminal."""

    facts: dict[str, Any]

    def __str__(self) -> str:
        from tunesmith.web.look import look_words

        return look_words(self.facts)

    @property
    def page(self) -> str:
        from tunesmith.web.look import look_page

        return look_page(self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """How the rows are read: said by the user, or guessed from the first ones and said."""

    kind: Kind
    text: str | None
    label: str | None
    group: str | None
    shape: str | None
    why: str


def look(
    place: Path,
    *,
    kind: Kind | None = None,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    near: float = 0.8,
    against: Sequence[Path] = (),
    progress: Callable[..., None] = no_progress,
) -> Look:
    """`place` is a file or a folder. Raises InputError if there is nothing in it that can be read."""
    if not place.exists():
        raise InputError("there is no such file or folder", where=str(place), fix="tunesmith data look FOLDER")
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="tunesmith-look-") as scratch:
        source = _linked(place, Path(scratch) / "source")
        found = detect([source], kind or "instruct", text=text, label=label, group=group)
        meaning = _meaning(source, found, kind, text, label, group)
        found = detect([source], meaning.kind, text=meaning.text, label=meaning.label, group=meaning.group)
        unread = [d for d in found if d.problems or (meaning.shape and d.shape != meaning.shape)]
        for d in unread:
            (source / d.file).unlink(missing_ok=True)
        if len(unread) == len(found):
            raise DataError([p for d in unread for p in d.problems])
        seen = _Seen(Path(scratch), meaning, near, against, progress)
        facts = seen.facts(source)
    facts |= {
        "folder": place.resolve().name,
        "unread": [_unread(d, meaning) for d in unread],
        "seconds": round(clock.seconds, 1),
        "next": [f"tunesmith init NAME {_words(place, meaning)}", "tunesmith data split"],
    }
    return Look(facts=facts)


def _linked(place: Path, folder: Path) -> Path:
    """The files under their names, as links: nothing is copied, and what cannot be read can be taken out."""
    entry = place.name if place.is_dir() else str(place.resolve())
    files = expand(place.resolve().parent if place.is_dir() else Path(), [entry]).files
    for name, path in files.items():
        inside = name.removeprefix(f"{place.resolve().name}/") if place.is_dir() else name
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        (folder / inside).symlink_to(path)
    if not files:
        raise InputError("has no files", where=str(place), fix="name a folder with data in it")
    return folder


def _meaning(
    source: Path, found: Sequence[Detected], kind: Kind | None, text: str | None, label: str | None, group: str | None
) -> Meaning:
    if text or label:
        return Meaning(
            kind=kind or ("classify" if label else "domain"),
            text=text,
            label=label,
            group=group,
            shape=None,
            why="as you said",
        )
    shapes = Counter(d.shape for d in found if d.shape)
    if shapes:
        shape = shapes.most_common(1)[0][0]
        guessed: Kind = "chat" if shape in CHATS else "domain" if shape == "text" else "instruct"
        if shape == "text_label":
            guessed = "classify"
        why = f"{shapes[shape]} of {len(found)} files have the shape {shape}"
        return Meaning(kind=kind or guessed, text=None, label=None, group=group, shape=shape, why=why)
    tables = [d for d in found if d.columns]
    if not tables:
        raise DataError([p for d in found for p in d.problems])
    columns = Counter(tuple(d.columns) for d in tables).most_common(1)[0][0]
    name = next(d.file for d in tables if tuple(d.columns) == columns)
    guess_text, guess_label = _guess(source / name, columns)
    why = f"guessed from the first rows of {name}: say --text and --label if it is wrong"
    usual: Kind = "classify" if guess_label else "domain"
    return Meaning(kind=kind or usual, text=guess_text, label=guess_label, group=group, shape=None, why=why)


def _guess(path: Path, columns: Sequence[str]) -> tuple[str, str | None]:
    """The column with the longest texts, and that with the fewest values among the others."""
    values: dict[str, list[str]] = {c: [] for c in columns}
    for n, record in enumerate(read_file(path, facts_of(path))):
        if n == SAMPLE:
            break
        if isinstance(record, Record):
            for column in columns:
                value = record.fields.get(column)
                values[column].append(value if isinstance(value, str) else "" if value is None else str(value))
    length = {c: sum(map(len, v)) / max(1, len(v)) for c, v in values.items()}
    text = max(columns, key=lambda c: (length[c], c))
    distinct = {c: len(set(v)) for c, v in values.items() if c != text and v}
    classes = [c for c, n in distinct.items() if 2 <= n <= min(MOST_CLASSES, len(values[c]) // 3)]
    return text, min(classes, key=lambda c: (distinct[c], c), default=None)


def _unread(d: Detected, meaning: Meaning) -> dict[str, str]:
    if d.problems:
        p = d.problems[0]
        return {"file": d.file, "reason": p.what, "fix": p.fix}
    return {
        "file": d.file,
        "reason": f"has the shape {d.shape}, most files have {meaning.shape}",
        "fix": "look at it alone",
    }


def _words(place: Path, m: Meaning) -> str:
    said = [f"--kind {m.kind}", f"--data {place}"]
    said += [f"--{name} {value}" for name, value in (("text", m.text), ("label", m.label), ("group", m.group)) if value]
    return " ".join(said)


class _Seen:
    """The stages, run in a scratch folder."""

    def __init__(
        self, scratch: Path, meaning: Meaning, near: float, against: Sequence[Path], progress: Callable[..., None]
    ) -> None:
        self.scratch, self.meaning, self.near, self.against, self.progress = scratch, meaning, near, against, progress
        task = TaskSettings(kind=meaning.kind, text=meaning.text, label=meaning.label, group=meaning.group)
        self.data = Settings(task=task).data
        self.rows_of: Counter[str] = Counter()  # records, by file and by folder

    def _work(self, name: str) -> Workspace:
        return Workspace(root=self.scratch / name, progress=self.progress)

    def facts(self, source: Path) -> dict[str, Any]:
        examples = check(self._check_spec(), CheckInputs(source=source), self._work("check")).examples
        checked = read_json(examples / "check.json")
        near = self._near(examples)
        audited, findings = self._audit(examples)
        columns = self._columns(source)
        facts = {
            "files": [self._file(f) for f in checked["files"]],
            "rows": checked["read"],
            "kept": checked["kept"],
            "left_out": checked["left_out"],
            "left_out_samples": _samples(examples),
            "columns": columns,
            "lengths": _lengths(examples / "rows.jsonl"),
            "classes": checked["class_counts"],
            "duplicates": {"exact": checked["left_out"].get("duplicate", 0), "near": near},
            "leaks": self._leaks(examples, near),
            "languages": audited["languages"].get("rows", audited["languages"]),
            "risks": findings,
            "findings": checked["findings"],
            "settings": self._settings(),
        }
        return facts

    def _check_spec(self) -> CheckSpec:
        m = self.meaning
        return CheckSpec(
            kind=m.kind, text=m.text, label=m.label, group=m.group, weight=None, shape=m.shape, query=None, sheet=None, keep=(),
            labels=(), variants={}, unlabelled="refuse", forgotten=(), bad_rows="leave_out", duplicates="leave_out", contradictions="leave_out",
            min_class_rows=self.data.min_class_rows, restored=(),
        )  # fmt: skip

    def _near(self, examples: Path) -> dict[str, Any]:
        spec = DedupSpec(
            kind=self.meaning.kind, near=self.near, across=True, keep="first", newest_by=None, templates=True,
            contradictions="review", candidates="exact", against=0.8, semantic=0.0, restored=(),
        )  # fmt: skip
        folder = None
        if self.against:
            folder = self.scratch / "against"
            folder.mkdir()
            for path in self.against:
                (folder / path.name).symlink_to(path.resolve())
        made = dedup(spec, DedupInputs(examples=examples, against=folder), self._work("dedup")).examples
        facts = read_json(made / "dedup.json")
        members: dict[str, list[str]] = {c["kept"]: c["members"] for c in read_lines(made / "clusters.jsonl")}
        wanted = {w for c in facts["largest"][:SHOWN] for w in members.get(c["kept"], [])[:SHOWN]}
        texts = _texts_at(examples / "rows.jsonl", wanted)
        largest = [
            {"size": c["rows"], "kept": c["kept"], "text": c["text"],
             "members": [_at(w, texts.get(w, "")) for w in members.get(c["kept"], [])[:SHOWN]]}
            for c in facts["largest"][:SHOWN]
        ]  # fmt: skip
        return {
            "threshold": self.near,
            "clusters": facts["clusters"],
            "rows": sum(facts["left_out"].get(r, 0) for r in ("near_duplicate", "duplicate")),
            "largest": largest,
            "templates": facts["templates"],
            "contaminated": facts["left_out"].get("contaminated", 0),
            "against": facts.get("against"),
        }

    def _leaks(self, examples: Path, near: dict[str, Any]) -> dict[str, Any]:
        from tunesmith.data.placing import place_rows
        from tunesmith.data.survey import look as survey

        m, split = self.meaning, self.data.split
        spec = PrepareSpec(
            kind=m.kind, labels=(), train=split.train, validation=split.validation, test=split.test,
            by="group" if m.group else "random", near=self.near, time_field=None, field=None, test_values=(), folds=5,
            fold=0, salt="", max_deviation=1.0, small_classes="keep", min_class_rows=1, limit=None, seed=0,
            max_tokens=1 << 30, over_long="leave_out", system="", restored=(),
        )  # fmt: skip
        contamination = []
        if near["against"]:
            names = ", ".join(p.name for p in self.against)
            contamination = [
                {"against": names, "rows": near["contaminated"], "texts_found": near["against"]["texts_found"]}
            ]
        try:
            placed = place_rows(spec, survey(examples / "rows.jsonl", spec), has_previous=False)
        except DataError as e:  # too few rows for three splits: there is no leak to speak of
            return {"why_not": str(e), "contamination": contamination}
        naive = placed.facts.get("naive_leak") or {}
        if naive:
            texts = _texts_at(examples / "rows.jsonl", {w for p in naive["pairs"] for w in (p["test"], p["train"])})
            naive = naive | {
                "pairs": [
                    {"a": _at(p["test"], texts.get(p["test"], "")), "b": _at(p["train"], texts.get(p["train"], "")),
                     "similarity": p["similarity"]}
                    for p in naive["pairs"]
                ]
            }  # fmt: skip
        proven = {
            "test_rows": placed.assessment.rows[2],
            "with_twin": 0,  # place_rows raises otherwise
            "left_out": sum(1 for reason, _ in placed.left_out.values() if reason == "bridge"),
        }
        return {"naive": naive, "proven": proven, "contamination": contamination}

    def _audit(self, examples: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        from tunesmith.data.audit.audit import audit
        from tunesmith.data.audit.catalogue import CONTENT, DEFAULT_KINDS, PII

        said = self.data.audit
        spec = AuditSpec(
            kind=self.meaning.kind,
            restored=(),
            policies=dict.fromkeys(DEFAULT_KINDS, "flag"),
            regions=tuple(said.regions),
            expected_languages=(),
            **said.model_dump(exclude={"enabled", "pii", "regions", "expected_languages"}),
        )
        made = audit(spec, AuditInputs(examples=examples), self._work("audit")).examples
        facts = read_json(made / "audit.json")
        what = {c.kind: (c.what, c in PII) for c in (*PII, *CONTENT)}
        risks = []
        for kind, found in sorted(facts["findings"].items(), key=lambda f: (not what[f[0]][1], -f[1]["rows"])):
            words, personal = what[kind]
            setting = (
                f"data.audit: {{enabled: true, pii: {{{kind}: redact}}}}"
                if personal
                else "tunesmith data audit lists each"
            )
            risks.append(
                {"kind": f"{kind.replace('_', ' ')}: {words}", "count": found["rows"],
                 "severity": "high" if personal else "note", "fix": setting,
                 "rows": [{"file": f["file"], "line": f["line"], "text": f["excerpt"]} for f in found["first"]]}
            )  # fmt: skip
        return facts, risks

    def _file(self, f: dict[str, Any]) -> dict[str, Any]:
        return {"file": f["file"], "format": f["format"], "rows": self.rows_of[f["file"]], "bytes": f["bytes"],
                "shape": f["shape"], "why": f["why"], "notes": f["notes"]}  # fmt: skip

    def _columns(self, source: Path) -> list[dict[str, Any]]:
        """Over all files: how many rows have a value in each column, how many different ones, and some of them."""
        filled: Counter[str] = Counter()
        values: dict[str, dict[str, None]] = {}
        for path, facts in source_files(source)[0]:
            for record in read_file(path, facts):
                self.rows_of[facts.file] += 1
                if "/" in facts.file:
                    self.rows_of[facts.file.rpartition("/")[0] + "/"] += 1  # small files are shown as their folder
                if not isinstance(record, Record):
                    continue
                for name, value in record.fields.items():
                    text = value if isinstance(value, str) else "" if value is None else excerpt(str(value))
                    seen = values.setdefault(name, {})
                    filled[name] += bool(text.strip())
                    if text and len(seen) < MOST_VALUES:
                        seen[excerpt(text)] = None
        found = []
        for name, seen in values.items():
            n = len(seen)
            distinct = n if n < MOST_VALUES else f"{MOST_VALUES:,} or more"
            found.append({"name": name, "filled": filled[name], "distinct": distinct, "examples": list(seen)[:3]})
        return found

    def _settings(self) -> str:
        m = self.meaning
        task = [f"kind: {m.kind}"] + [
            f"{k}: {v}" for k, v in (("text", m.text), ("label", m.label), ("group", m.group)) if v
        ]
        lines = [f"# {m.why}", "task: {" + ", ".join(task) + "}", "data:", f"  files: [{'FOLDER/'}]"]
        lines += [f"  shape: {m.shape}"] if m.shape else []
        lines += [
            "  bad_rows: leave_out",
            "  contradictions: leave_out",
            f"  dedup: {{enabled: true, near: {self.near:g}}}",
        ]
        return "\n".join(lines) + "\n"


def _samples(examples: Path) -> list[dict[str, Any]]:
    shown: Counter[str] = Counter()
    found = []
    for gone in read_lines(examples / "left_out.jsonl", LeftOut):
        shown[gone.reason] += 1
        if shown[gone.reason] <= 3:
            found.append(
                {"file": gone.file, "line": gone.line, "reason": gone.reason, "detail": gone.detail, "text": gone.text}
            )
    return found


def _texts_at(rows_file: Path, places: set[str]) -> dict[str, str]:
    return {
        f"{row.file}:{row.line}": excerpt(row.example.input)
        for row in read_lines(rows_file, Row)
        if f"{row.file}:{row.line}" in places
    }


def _at(where: str, text: str) -> dict[str, Any]:
    file, _, line = where.rpartition(":")
    return {"file": file, "line": int(line), "text": text}


def _lengths(rows_file: Path) -> dict[str, Any]:
    """Of the inputs, in characters and words, with a histogram on powers of two."""
    characters: list[int] = []
    words: list[int] = []
    for row in read_lines(rows_file, Row):
        text = row.example.input
        characters.append(len(text))
        words.append(text.count(" ") + text.count("\n") + 1)
    edges: Counter[int] = Counter(1 << max(0, n - 1).bit_length() for n in characters)
    return {"characters": _spread(characters), "words": _spread(words), "histogram": sorted(edges.items())}


def _spread(values: list[int]) -> dict[str, float]:
    ordered = sorted(values) or [0]
    n = len(ordered)
    return {
        "mean": round(sum(ordered) / n, 1),
        "p50": ordered[(n - 1) // 2],
        "p95": ordered[int(0.95 * (n - 1))],
        "max": ordered[-1],
    }
