"""Every stored file as `forget` sees it: who has it, what form it has, and which of the user's files its records
come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import CURRENT_FILES
from tunesmith.ledger.records_of import Form, form_of, pieces
from tunesmith.ledger.redact import Standing
from tunesmith.ledger.sought import Sought

# in these a line is a row, or says what became of one; elsewhere (answers, reports) lines stand beside rows
ROWS = frozenset({"source", "made", "examples", "dataset", "pairs", "passages", "judgments"})
ORIGINS = frozenset({"source", "made"})
MADE = frozenset({"corpus.jsonl", "pairs.jsonl"})  # what check reads of a `made` folder, as it reads a user's file
WEIGHTS = frozenset({"checkpoint", "bundle", "model"})
# of a model: a vocabulary holds every name there is, and says nothing of a person
VOCABULARY = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "config.json", "generation_config")
BINARY = frozenset({".safetensors", ".gguf", ".npy", ".npz", ".bin", ".pt", ".onnx"})


@dataclass(frozen=True, slots=True)
class Holder:
    artifact: str
    kind: str
    path: str
    first: str  # SHA-256 of the file when the artifact was made


@dataclass(frozen=True, slots=True)
class Stored:
    sha256: str
    holders: tuple[Holder, ...]
    form: Form

    @property
    def name(self) -> str:
        return self.holders[0].path

    @property
    def rows(self) -> bool:
        return any(h.kind in ROWS for h in self.holders)

    @property
    def keeps_lines(self) -> bool:
        """Rows elsewhere refer to its line numbers."""
        return any(h.kind == "source" or (h.kind == "made" and h.path in MADE) for h in self.holders)


class Stock:
    """Read once, while nobody else writes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        read = ledger.records.database.read
        self.kinds: dict[str, str] = dict(read("SELECT id, kind FROM artifacts"))
        self.parents: dict[str, set[str]] = defaultdict(set)
        checked: set[str] = set()
        for run, stage in read("SELECT id, stage FROM runs WHERE status = 'finished'"):
            edges = ledger.records.edges("run", run)
            inputs = {e.artifact for e in edges if e.direction == "in"}
            for made in (e.artifact for e in edges if e.direction == "out"):
                self.parents[made] |= inputs - {made}
            if stage == "check":
                checked |= {e.artifact for e in edges if e.direction == "in"}
        self._first: dict[str, dict[str, str]] = defaultdict(dict)  # artifact -> path -> SHA-256 at first
        for artifact, path, sha256 in read("SELECT artifact, path, sha256 FROM files"):
            self._first[artifact][path] = sha256
        self.read_as_rows = {sha for a in checked for sha in self._first[a].values()}
        self.files = tuple(self._stored())
        self._origins: dict[str, dict[str, set[str]]] = {}
        self._ancestors: dict[str, frozenset[str]] = {}

    def _stored(self) -> Iterator[Stored]:
        held: dict[str, list[Holder]] = defaultdict(list)
        rows = self._ledger.records.database.read(
            f"SELECT c.artifact, c.path, c.sha256, c.first FROM {CURRENT_FILES} c WHERE c.sha256 IS NOT NULL AND "  # noqa: S608
            "(SELECT folder FROM places p WHERE p.artifact = c.artifact ORDER BY p.seq DESC LIMIT 1) = '' "
            "ORDER BY c.artifact, c.path"
        )
        for artifact, path, sha256, first in rows:
            kind = self.kinds[artifact]
            name = PurePosixPath(path).name
            if PurePosixPath(path).suffix in BINARY or (kind in WEIGHTS and name.startswith(VOCABULARY)):
                continue
            held[sha256].append(Holder(artifact, kind, path, first))
        for sha256, holders in held.items():
            file = self._ledger.objects.file(sha256)
            if file.is_file():  # else doctor says so
                with open(file, "rb") as f:
                    yield Stored(sha256, tuple(holders), form_of(holders[0].path, f))

    def ancestors(self, artifact: str) -> frozenset[str]:
        """What it was made from, itself included."""
        if artifact not in self._ancestors:
            found, waiting = {artifact}, [artifact]
            while waiting:
                new = self.parents.get(waiting.pop(), set()) - found
                found |= new
                waiting += new
            self._ancestors[artifact] = frozenset(found)
        return self._ancestors[artifact]

    def origins(self, artifact: str) -> dict[str, set[str]]:
        """The files that rows of this artifact may say they come from -> SHA-256 of what was read."""
        if artifact not in self._origins:
            found: dict[str, set[str]] = defaultdict(set)
            for id in self.ancestors(artifact):
                kind = self.kinds.get(id, "")
                for path, sha256 in self._first[id].items() if kind in ORIGINS else ():
                    found[path].add(sha256)
                    if kind == "made":
                        found[f"made/{path}"].add(sha256)
            self._origins[artifact] = found
        return self._origins[artifact]

    def come_from(self, stored: Stored, file: str, line: int) -> set[tuple[str, int]]:
        """The places that a record of this file means by (file, line)."""
        return {(sha, line) for h in stored.holders for sha in self.origins(h.artifact).get(file, ())}

    def standing(self, stored: Stored, sought: Sought) -> Standing:
        first = {h.first for h in stored.holders}
        lines = frozenset(line for sha, line in sought.places if sha in first)
        known = {sha for h in stored.holders for shas in self.origins(h.artifact).values() for sha in shas}
        return Standing(
            rows=stored.rows,
            keeps_lines=stored.keeps_lines,
            lines=lines,
            is_one_record=stored.form in ("text", "mail", "html") and not first.isdisjoint(self.read_as_rows),
            referred=frozenset(line for sha, line in sought.places if sha in known),
            refers=lambda file, line: not self.come_from(stored, file, line).isdisjoint(sought.places),
        )

    def record_start(self, sha256: str, line: int) -> int | None:
        """The line on which the record begins that stands on this line; None if the file has no such line."""
        stored = next((s for s in self.files if any(h.first == sha256 for h in s.holders)), None)
        if stored is None or stored.form == "opaque":
            return line
        if stored.form in ("text", "mail", "html") and sha256 in self.read_as_rows:
            return 1
        with open(self._ledger.objects.file(stored.sha256), "rb") as f:
            for piece in pieces(stored.form, f):
                if piece.line <= line < piece.line + piece.lines:
                    return piece.line
        return None

    def newest_source(self, name: str) -> str | None:
        """SHA-256 of the file of this name (or whose path ends so) in the newest source that has it."""
        rows: Iterable[tuple[str]] = self._ledger.records.database.read(
            "SELECT id FROM artifacts WHERE kind = 'source' ORDER BY seq DESC"
        )
        wanted = name.removeprefix("./")
        for (artifact,) in rows:
            paths = self._first[artifact]
            for path in sorted(paths, key=lambda p: (p != wanted, len(p))):
                if path == wanted or path.endswith(f"/{wanted}") or wanted.endswith(f"/{path}"):
                    return paths[path]
        return None
