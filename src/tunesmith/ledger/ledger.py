"""What a project knows: artifacts by content, runs, references and notes. The one door to `.tunesmith/`.

.tunesmith/objects/   files by hash
.tunesmith/ledger.db  facts
.tunesmith/views/     an artifact as a folder: links into objects, made again whenever needed
.tunesmith/work/      unfinished stages: live metrics, resumable state
.tunesmith/locks/     who is making what
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Artifact, FileEntry, Run
from tunesmith.ledger.explain import explained
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.objects import Objects, Session, files_of
from tunesmith.ledger.records import Fact, Move, Records, artifact_fact
from tunesmith.ledger.scrub import Scrub
from tunesmith.ledger.verify import Placed, Verifier

STILL_THERE = "take it out of the file, and run the same command again"


class Ledger:
    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        with explained(self.state):
            for folder in (self.views, self.work, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
        self.objects = Objects(self.state / "objects", self.locks / "objects")
        self.records = Records(self.state / "ledger.db")
        self._verifier = Verifier(self.records.database)
        self.scrub = Scrub(self.state, self.objects, self.records)
        self._sweep()

    @classmethod
    def open(cls, state: Path) -> Ledger:
        """Open or create. Removes what killed processes left half-written.

        Raises StorageError if the folder cannot be written or the ledger is newer than this program.
        """
        return cls(state)

    def close(self) -> None:
        self.records.database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def views(self) -> Path:
        return self.state / "views"

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    # artifacts

    def add(self, kind: str, folder: Path, *, move: bool) -> Artifact:
        """Keep a folder's files. `move` for what a stage wrote; the user's own files are copied."""
        return self.add_files(kind, files_of(folder), move=move)

    def add_files(self, kind: str, files: Mapping[str, Path], *, move: bool) -> Artifact:
        """The same for files from several places, by the relative POSIX name each shall have."""
        with self.objects.session() as session:
            artifact = self.store(session, kind, files, move=move)
            self.append_new([artifact])
        return artifact

    def store(self, session: Session, kind: str, files: Mapping[str, Path], *, move: bool) -> Artifact:
        """Put the files into the store. Nothing is acknowledged until `append_new` in the same session."""
        for name, path in files.items():
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError("a file's name must be relative", where=name, fix="leave out / at the start and ..")
            if not path.is_file():
                raise InputError("there is no such file", where=str(path), fix="check the path")
        entries = session.take(files, move=move)
        self._refuse_erased(entries, files)
        return Artifact(kind=kind, files=entries)

    def _refuse_erased(self, entries: Mapping[str, FileEntry], files: Mapping[str, Path]) -> None:
        """What was erased must not come back through the door by which it came."""
        problems = []
        for name, entry in entries.items():
            at = self.records.erased_at(entry.sha256)
            if at is not None:
                with explained(self.state):
                    self.objects.file(entry.sha256).unlink(missing_ok=True)
                what = f"still holds what was forgotten on {at[:10]} (UTC)"
                lines = ", ".join(str(n) for n in self.records.erased_lines().get(entry.sha256, ()))
                where = f"{files[name]}:{lines}" if lines else str(files[name])
                problems.append(Problem(where=where, what=what, fix=STILL_THERE))
        if problems:
            raise InputError(problems)

    def append_new(self, artifacts: list[Artifact], *facts: Fact) -> None:
        """Record artifacts, where new to the store, and further facts, in one transaction."""

        def all_facts() -> list[Fact]:
            new = {a.id: a for a in artifacts if self.records.folder(a.id) != ""}
            return [*(artifact_fact(a, "") for a in new.values()), *facts]

        self.records.append(all_facts)

    def add_external(self, artifact: Artifact, folder: Path) -> Artifact:
        """Record files that stay where they are: a model in the user's cache. Their hashes are checked now."""
        place = str(folder.absolute())
        self._verifier.check(self._placed(artifact, place))
        if self.records.folder(artifact.id) not in ("", place):
            self.records.append([artifact_fact(artifact, place)])
        return artifact

    def artifact(self, id: str) -> Artifact:
        """By id or the start of one. Raises InputError if there is none."""
        found = self.find_artifact(id)
        if found is None:
            raise InputError(f"there is no artifact with the id {id}", fix="tunesmith runs lists what there is")
        return found

    def find_artifact(self, prefix: str) -> Artifact | None:
        """The same, None if there is none. Raises InputError if several ids start so."""
        id = self.records.complete(prefix, "artifacts")
        return None if id is None else self.records.artifact(id)

    def path(self, artifact_id: str) -> Path:
        """A folder with exactly the artifact's files, read-only, verified.

        Raises StorageError naming each file that is missing or damaged, what was expected, what was
        found and what to do.
        """
        artifact = self.artifact(artifact_id)
        files = self.files(artifact)
        self._verifier.check(files.values())
        view = self.views / artifact.id
        links = {name: _link(view / name, file.path, self.state) for name, file in files.items()}
        with explained(view):
            if _links_in(view) != links or not view.is_dir():
                self._build(view, links)
        return view

    def files(self, artifact: Artifact) -> dict[str, Placed]:
        """Where the artifact's files lie and what they must hold."""
        place = self.records.folder(artifact.id) or ""
        files = dict(zip(artifact.files, self._placed(artifact, place), strict=True))
        for name, (sha256, size, at) in self.records.redacted(artifact.id).items():
            if name not in files:
                continue  # a damaged row, which doctor reports
            if sha256 is None:
                files[name] = replace(files[name], path=self.views / artifact.id / name, erased=at)
            else:
                entry = FileEntry(sha256=sha256, bytes=size)
                files[name] = replace(files[name], path=self.objects.file(sha256), entry=entry)
        return files

    def _placed(self, artifact: Artifact, folder: str) -> list[Placed]:
        if folder:
            remedy = f"put the original {artifact.kind} back into {folder}, or remove that folder and fetch it again"
            return [Placed(path=Path(folder) / n, entry=e, remedy=remedy) for n, e in artifact.files.items()]
        remedy = (
            "remove the file and run the same command again, which makes it anew; "
            "your own data and what was made from data you no longer have come back from a backup"
        )
        return [Placed(path=self.objects.file(e.sha256), entry=e, remedy=remedy) for e in artifact.files.values()]

    def is_whole(self, artifact_id: str) -> bool:
        """All files are there with the right size. Cheap; `path` also checks the content."""
        files = self.files(self.artifact(artifact_id)).values()
        return all(not f.erased and f.path.is_file() and f.path.stat().st_size == f.entry.bytes for f in files)

    def _build(self, view: Path, links: dict[str, str]) -> None:
        # the folder itself stays writable, so that `rm -r .tunesmith` works; the files in it are not
        with self.objects.session():
            temporary = self.objects.temporary / f"{uuid.uuid4().hex}.view"
            for name, link in links.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).symlink_to(link)
            temporary.mkdir(exist_ok=True)  # of an artifact without files
            if view.exists():  # outdated, or edited
                view.rename(self.objects.temporary / f"{uuid.uuid4().hex}.view")
            try:
                temporary.rename(view)
            except OSError:
                if _links_in(view) != links:
                    raise
                shutil.rmtree(temporary)  # another process was faster

    # runs

    def runs(self, stage: str | None = None, limit: int | None = None, before: str | None = None) -> list[Run]:
        """Newest first; of one stage; at most `limit`; older than the run `before`, to turn pages."""
        conditions: list[str] = ["1"]
        values: list[Any] = []
        if stage is not None:
            conditions.append("stage = ?")
            values.append(stage)
        if before is not None:
            conditions.append("runs.seq < (SELECT seq FROM runs WHERE id = ?)")
            values.append(self.run(before).id)
        return self.records.runs(" AND ".join(conditions), values, limit)

    def run(self, prefix: str) -> Run:
        """By id or the start of one. Raises InputError if there is none, or several."""
        found = self.find_run(prefix)
        if found is None:
            raise InputError(f"there is no run with the id {prefix}", fix="tunesmith runs lists what there is")
        return found

    def find_run(self, prefix: str) -> Run | None:
        """The same, None if there is none. Raises InputError if several ids start so."""
        id = self.records.complete(prefix, "runs")
        return None if id is None else self.records.runs("id = ?", [id], 1)[0]

    def made_by(self, artifact_id: str) -> Run | None:
        """The newest finished run that wrote this artifact; None for the user's own files and models."""
        writers = "id IN (SELECT run FROM edges WHERE artifact = ? AND direction = 'out') AND status = 'finished'"
        found = self.records.runs(writers, [artifact_id], 1)
        return found[0] if found else None

    def finished(self, key: str) -> Run | None:
        """The newest finished run of this key whose outputs are still there."""
        for run in self.records.runs("key = ? AND status = 'finished'", [key], 1):
            if all(self.is_whole(id) for id in run.outputs.values()):
                return run
        return None

    # references and notes

    def reference(self, name: str) -> str | None:
        moves = self.history(name)
        return moves[0].target if moves else None

    def move_reference(self, name: str, target: str | None, why: str) -> None:
        """Let a name such as `prod` mean an artifact or a run; None takes it away."""
        if (
            target is not None
            and self.records.artifact(target) is None
            and not self.records.runs("id = ?", [target], 1)
        ):
            raise InputError(
                f"there is no artifact or run {target}", where=name, fix="tunesmith runs lists what there is"
            )
        self.records.append([Fact("reference", {"name": name, "target": target, "why": why})])

    def history(self, name: str) -> list[Move]:
        """Newest first."""
        return self.records.moves(name)

    def references(self) -> dict[str, str]:
        """Every name in use and what it means."""
        names = [name for (name,) in self.records.database.read("SELECT DISTINCT name FROM moves ORDER BY name")]
        return {name: target for name in names if (target := self.reference(name)) is not None}

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Append a fact of the caller's own: a look at the test set, a judgment."""
        self.records.append([Fact("note", {"kind": kind, "body": plain(body)})])

    def notes(self, kind: str) -> list[dict[str, Any]]:
        """Oldest first, each with its time under "at"."""
        return self.records.notes(kind)

    def _sweep(self) -> None:
        """What killed processes left: half-written files, unacknowledged objects, work already recorded."""
        self.objects.sweep(self.records.is_referenced)
        self.scrub.resume()
        for folder in self.work.iterdir():
            lock = FileLock(self.locks / folder.name)
            if self.records.runs("key = ? AND status = 'finished'", [folder.name], 1) and lock.try_now():
                with explained(folder):
                    if self.finished(folder.name):  # else somebody makes lost outputs again
                        shutil.rmtree(folder, ignore_errors=True)
                    lock.release(remove=True)


def _link(at: Path, to: Path, state: Path) -> str:
    """Relative inside the state folder, which may be moved; absolute to places outside."""
    return os.path.relpath(to, at.parent) if to.is_relative_to(state) else str(to)


def _links_in(view: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for root, folders, names in os.walk(view):
        for name in names + folders:
            path = Path(root) / name
            if path.is_symlink():
                found[path.relative_to(view).as_posix()] = str(path.readlink())
            elif name in names:
                found[path.relative_to(view).as_posix()] = ""  # no link of ours: makes the view be built again
    return found
