"""`Project`: one thin method a verb. Each opens what it needs, calls one flow, returns a noun."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api_data import Data
from tunesmith.core import project_file
from tunesmith.core.canonical import read_json, read_lines, write_atomic
from tunesmith.core.errors import InputError, Problem, StorageError
from tunesmith.core.nouns import Answer, Kind, Message, Row, Run, Verdict
from tunesmith.core.project_file import ProjectFile
from tunesmith.core.stage import no_progress
from tunesmith.flows import compare, page
from tunesmith.flows.context import Context
from tunesmith.ledger.ledger import Ledger

if TYPE_CHECKING:
    from tunesmith.flows.matrix.matrix import MatrixResult
    from tunesmith.flows.matrix.plan import MatrixPlan
    from tunesmith.flows.plan import Plan
    from tunesmith.flows.run import RunResult
    from tunesmith.serve.bundle import LoadedBundle

STATE = ".tunesmith"
REPORT = "report.html"
MATRIX = "matrix.html"
PROD = "prod"
LATEST = "latest"  # the newest candidate, whatever its verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is in the data, what is wrong with it and how it will be split."""

    facts: dict[str, Any]  # check.json
    dataset: dict[str, Any] | None  # dataset.json, where the split could be made
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        from tunesmith.flows.words import checked_words

        return checked_words(self.facts, self.dataset, self.warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPage:
    """The page of a run and the facts on it."""

    path: Path
    facts: dict[str, Any]  # verdict, goals, arms, ... as `report --json` prints them

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(g['goal'])}</td><td>{escape(g['status'])}</td><td>{escape(g['because'])}</td></tr>"
            for g in self.facts["goals"]
        )
        return f"<p><b>{escape(self.facts['verdict'])}</b> · {escape(str(self.path))}</p><table>{rows}</table>"


class Project:
    """A folder with `tunesmith.yaml`, data, and `.tunesmith/`, where everything it has learnt is kept."""

    def __init__(
        self,
        file: ProjectFile,
        overrides: Sequence[str] = (),
        *,
        progress: Callable[..., None] = no_progress,
        stop: threading.Event | None = None,
    ):
        self.file = file
        self._overrides = tuple(overrides)
        self.root = file.folder
        self._progress = progress
        self._stop = stop or threading.Event()

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r}, {self.file.settings.task.kind})"

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        overrides: Sequence[str] = (),
        *,
        progress: Callable[..., None] = no_progress,
        stop: threading.Event | None = None,
    ) -> Project:
        """The project at `path`, or the nearest one above the current folder. `overrides`: "train.lr=1e-4"."""
        found = project_file.find_project(Path.cwd() if path is None else Path(path))
        return cls(project_file.load(found, overrides), overrides, progress=progress, stop=stop)

    @classmethod
    def create(cls, path: str | Path, *, data: Any, kind: Kind, **said: Any) -> Project:
        """A new project folder. `data`: a file or several, a DataFrame, a `datasets.Dataset` or a list of
        dicts; `said`: text, label, group, model, goals, audience, tone."""
        from tunesmith.flows.create import create

        create(Path(path), data=data, kind=kind, **said)
        return cls.open(path)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.open(self.root / STATE)

    @cached_property
    def context(self) -> Context:
        return self._context(self.file)

    @cached_property
    def data(self) -> Data:
        """The verbs of `tunesmith data`."""
        return Data(self.context)

    def _context(self, file: ProjectFile) -> Context:
        return Context(
            root=self.root,
            settings=file.settings,
            task=file.task(),
            goals=file.goals(),
            ledger=self.ledger,
            progress=self._progress,
            stop=self._stop,
        )

    # The journey, stage by stage

    def check(self) -> Checked:
        """What is in the data, what is wrong with it, how it will be split, what it can prove."""
        from tunesmith.flows.run import walk

        journey = walk(self.context, "check")
        facts = read_json(journey.folder("check", "examples") / "check.json")
        prepared = walk(self.context, "prepare")
        return Checked(facts=facts, dataset=prepared.dataset, warnings=self.warnings())

    def warnings(self) -> tuple[str, ...]:
        return tuple(self.file.warnings())

    def plan(self, gpus: Sequence[str] = (), probe: bool = True) -> Plan:
        """Stages, examples, tokens, steps, memory, minutes, disk; what is cached already. `gpus`: to be named beside
        this machine. `probe`: take three real steps at the longest batch, once."""
        from tunesmith.flows.run import plan

        return plan(self.context, probe=probe, gpus=tuple(gpus))

    def plan_methods(self, gpus: Sequence[str] = (), probe: bool = True) -> Any:
        """Every method here and on named GPUs, those that fit first, with what would make the others fit."""
        from tunesmith.flows.cost.elsewhere import methods
        from tunesmith.flows.run import walk

        return methods(walk(self.context, "prepare"), tuple(gpus), probe=probe)

    def prepare(self) -> Run:
        return self._last("prepare", "prepare")

    def baselines(self) -> list[Run]:
        from tunesmith.flows.run import walk

        return [r for name, r in walk(self.context, "baselines").runs.items() if name.startswith("answer ")]

    def train(self) -> Run:
        return self._last("train", "train")

    def lr(self, low: float = 1e-6, high: float = 1.0, steps: int = 40) -> Any:
        """A short sweep over rising learning rates, and the one where the loss falls fastest."""
        from tunesmith.flows.lr import lr_range

        return lr_range(self.context, low=low, high=high, steps_tried=steps)

    def matrix_plan(self) -> MatrixPlan:
        """The cells of the matrix, which of them are in the ledger, and how long the others will take."""
        from tunesmith.flows.matrix.plan import plan_matrix

        return plan_matrix(self.context)

    def matrix(self, choose: str | None = None, look: bool = True, so_far: bool = False) -> MatrixResult:
        """Every cell compared on validation, one chosen (`choose`: by name) and, with `look`, judged on test once.
        `so_far`: the cells that are done, and no choice."""
        from dataclasses import replace

        from tunesmith.flows.matrix.matrix import matrix
        from tunesmith.web.matrix import matrix_page

        said = project_file.load(self.file.path) if self._overrides else self.file
        result = matrix(self.context, choose=choose, look=look, so_far=so_far, file=said)
        path = self.root / MATRIX
        write_atomic(path, matrix_page(result.facts).encode("utf-8"))
        return replace(result, page=str(path))

    def evaluate(self, checkpoint: str | None = None) -> Run:
        """`checkpoint`, here and in gate and bundle: an id, such as of what `merge` made, in place of the trained one."""
        return self._last("evaluate", "evaluate", checkpoint)

    def gate(self, checkpoint: str | None = None) -> Verdict:
        run = self._last("gate", "gate", checkpoint)
        verdict: Verdict = read_json(self.ledger.path(run.outputs["verdict"]) / "verdict.json", Verdict)
        return verdict

    def bundle(self, checkpoint: str | None = None) -> Run:
        return self._last("bundle", "bundle", checkpoint)

    def _last(self, verb: str, step: str, checkpoint: str | None = None) -> Run:
        from tunesmith.flows.run import walk
        from tunesmith.flows.steps import checkpoint_of

        given = None if checkpoint is None else checkpoint_of(self.context, checkpoint, where="--checkpoint")
        return walk(self.context, verb, checkpoint=given).runs[step]

    def merge(
        self,
        *checkpoints: str,
        how: str | None = None,
        weights: Sequence[float] = (),
        density: float = 1.0,
        rank: int = 0,
        seed: int = 0,
        prompts_of: int | None = None,
        precision: str = "fp32",
        out: str | Path | None = None,
    ) -> Run:
        """One adapter into whole weights, or several checkpoints into one; the result is a checkpoint like a trained
        one. `checkpoints`: ids, aliases or projects' folders; none: this project's newest. `out`: a copy of it."""
        from tunesmith.flows.merge import merge

        return merge(
            self.context,
            checkpoints or (self._newest_checkpoint(),),
            how=how or ("whole" if len(checkpoints) < 2 else "average"),
            weights=weights,
            density=density,
            rank=rank,
            seed=seed,
            prompts_of=prompts_of,
            precision=precision,
            out=None if out is None else Path(out),
        )

    def _newest_checkpoint(self) -> str:
        for run in self.ledger.runs():
            if run.stage in ("sft", "domain") and run.status == "finished":
                return run.outputs["checkpoint"]
        raise InputError(Problem(where="merge", what="nothing has been trained yet", fix="tunesmith train"))

    def run(self, limit: int | None = None) -> RunResult:
        """The whole journey. `limit`: a proof of concept on a seeded subset of so many rows first."""
        from dataclasses import replace

        from tunesmith.flows.run import run

        context = self.context
        if limit is not None:
            context = self._context(project_file.load(self.file.path, [*self._overrides, f"data.limit={limit}"]))
        result = run(context)
        gate = next(s.run for s in result.steps if s.name == "gate")  # the newest verdict may be of something else
        return replace(result, report=str(self.report(gate).path))

    def report(self, run: str | None = None) -> ReportPage:
        """Write the page of the latest verdict (or of gate run `run`) and say where it is."""
        from tunesmith.web.report import report_page

        gate = page.latest_gate(self.ledger) if run is None else self.ledger.run(run)
        if gate.stage != "gate":
            raise InputError(
                Problem(
                    where=run or "", what=f"is a {gate.stage} run, not a verdict", fix="tunesmith runs --stage gate"
                )
            )
        facts = page.page_facts(
            self.ledger, gate, project=self.root.resolve().name, settings_text=config_text(self.config())
        )
        path = self.root / REPORT
        write_atomic(path, report_page(facts).encode("utf-8"))
        return ReportPage(path=path, facts=page.report_json(facts))

    # The model that came out

    def model(self, name: str = PROD) -> LoadedBundle:
        """The bundle behind an alias, or with an id (or its beginning), loaded and checked; "latest": the newest."""
        from tunesmith.serve.bundle import LoadedBundle

        bundle = self._bundle_id(name)
        folder = self.ledger.path(bundle)
        base = self.ledger.path(read_json(folder / "tunesmith.json")["base"]["artifact"])
        return LoadedBundle.load(folder, base, device=self.context.settings.exec.device)

    def _bundle_id(self, name: str) -> str:
        target = self._id(name)
        artifact = self.ledger.find_artifact(target)
        if artifact and artifact.kind == "bundle":
            return artifact.id
        if name == LATEST:
            raise InputError(Problem(where=LATEST, what="no bundle has been made yet", fix="tunesmith run"))
        if name == PROD:
            fix = "tunesmith run; a candidate that did not pass can be named by its id (tunesmith runs --stage bundle)"
            raise InputError(Problem(where=PROD, what="no model has passed its goals yet", fix=fix))
        raise InputError(
            Problem(where=name, what="no alias or bundle has this name", fix="tunesmith runs --stage bundle")
        )

    def _id(self, name: str) -> str:
        """An alias as the id it stands for; anything else as it is."""
        if name == LATEST:
            made = next((r for r in self.ledger.runs(stage="bundle") if r.status == "finished"), None)
            return made.outputs["bundle"] if made else name
        return self.ledger.reference(name) or name

    def ask(self, text: str, model: str = PROD) -> Answer:
        from tunesmith.serve.ask import ask

        return ask(self.model(model), [Message(role="user", content=text)])

    def predict(self, file: str | Path, out: str | Path, model: str = PROD) -> Any:
        """Answer every row of `file` into `out` (label, confidence); goes on where it was stopped."""
        from tunesmith.serve.predict import predict_file

        return predict_file(
            self.model(model),
            Path(file),
            Path(out),
            text=self.file.settings.task.text,
            progress=self._progress,
            stop=self._stop,
        )

    def serve(
        self,
        model: str | None = None,
        host: str | None = None,
        port: int | None = None,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        """Answer over HTTP until stopped. `adapters`: name → a project's folder, FOLDER@BUNDLE or a bundle, beside
        those of serve.adapters; all are served with this model on one base."""
        from tunesmith.flows.adapters import bring
        from tunesmith.ledger.traces import Traces
        from tunesmith.serve.server import load_and_serve

        settings = self.file.settings.serve
        load = self._to_serve(model, {**settings.adapters, **(adapters or {})})
        with Traces.open(self.root / STATE / "traces.db", store_content=settings.store_content) as traces:
            load_and_serve(
                load,
                host=host or settings.host,
                port=settings.port if port is None else port,
                settings=settings,
                trace=lambda trace: traces.append(**trace),
                bring=lambda place: bring(self.context, place),
                announce=self.root / STATE / "serving.json",
            )
        if traces.lost or traces.problem:
            why = f": {traces.problem}" if traces.problem else ""
            raise StorageError(
                f"{traces.lost} traces could not be kept{why}", where=str(self.root / STATE / "traces.db")
            )

    def _to_serve(self, model: str | None, adapters: Mapping[str, str]) -> Callable[[], Mapping[str, LoadedBundle]]:
        """What loads the models; a name that means nothing is said before anything is opened."""
        from tunesmith.flows.adapters import places
        from tunesmith.serve.adapters import check_name, load_together

        own = model or PROD
        if not adapters:
            self._bundle_id(own)
            return lambda: {own: self.model(own)}
        for name in adapters:
            check_name(name)
        if own in adapters:
            raise InputError("is the name of this project's own model", where=f"adapter {own}", fix="rename it")
        alone = model is None and self.ledger.reference(PROD) is None  # a project may be nothing but the host
        found = places(self.context, adapters if alone else {own: self._bundle_id(own), **adapters})
        return lambda: load_together(found)

    def adapters(self) -> list[dict[str, Any]]:
        """The adapters of this project's running server."""
        answer: list[dict[str, Any]] = self._ask_server("GET")["data"]
        return answer

    def add_adapter(self, name: str, place: str) -> dict[str, Any]:
        """Put an adapter on the running server's base, or replace the one of this name; nothing is reloaded."""
        answer: dict[str, Any] = self._ask_server("PUT", name, {"source": place})
        return answer

    def remove_adapter(self, name: str) -> dict[str, Any]:
        """Take it off; requests under way are finished first."""
        answer: dict[str, Any] = self._ask_server("DELETE", name)
        return answer

    def _ask_server(self, method: str, name: str = "", body: dict[str, Any] | None = None) -> Any:
        from tunesmith.serve import running

        return running.ask(running.find(self.root / STATE / running.FILE), method, name, body)

    # Looking things up

    def tokens(self, place: str) -> Any:
        """One example's tokens with the trained ones marked. `place`: FILE:LINE of the raw file."""
        from tunesmith.flows.run import walk
        from tunesmith.text.render import Renderer
        from tunesmith.text.view import view

        file, _, line = place.rpartition(":")
        if not file or not line.isdigit():
            raise InputError(Problem(where=place, what="is not FILE:LINE", fix="tunesmith tokens diagnoses.csv:12"))
        journey = walk(self.context, "prepare")
        renderer = Renderer.load(
            journey.base.folder,
            system=self.context.system,
            user=self.context.settings.task.template,
            new_tokens=self.context.settings.train.new_tokens,
        )
        folder = self.ledger.path(journey.dataset_id)
        for split in ("train", "validation", "test"):
            for row in read_lines(folder / f"{split}.jsonl", Row):
                if row.line == int(line) and (row.file == file or row.file == Path(file).name):
                    return view(renderer, row.messages, row.target, row.tools)
        raise InputError(
            Problem(
                where=place, what="no row of the data set starts there", fix="tunesmith check names the rows left out"
            )
        )

    def runs(self, stage: str | None = None, limit: int | None = 50) -> list[Run]:
        return self.ledger.runs(stage=stage, limit=limit)

    def show(self, name: str) -> dict[str, Any]:
        return compare.show(self.ledger, name)

    def diff(self, a: str, b: str) -> compare.Differences:
        return compare.diff(self.ledger, self._id(a), self._id(b))

    def lineage(self, name: str) -> Any:
        from tunesmith.ledger.lineage import lineage

        return lineage(self.ledger, self._id(name))

    def config(self) -> list[tuple[str, Any, str]]:
        """Every setting with its value and where it was said."""
        return self.file.resolved()

    def forget(
        self,
        rows: Sequence[str] = (),
        places: Sequence[str] = (),
        texts: Sequence[str] = (),
        why: str = "",
        dry_run: bool = False,
    ) -> Any:
        """Erase rows (by id, by key or by FILE:LINE) and texts everywhere; lists what was built from them."""
        from tunesmith.flows.forget import forget
        from tunesmith.ledger.forget import Forget

        request = Forget(rows=tuple(rows), places=tuple(places), texts=tuple(texts), why=why)
        return forget(self.context, request, dry_run=dry_run)

    def doctor(self) -> Any:
        from tunesmith.ledger.doctor import doctor

        return doctor(self.ledger)

    def backup(self, dest: str | Path) -> Any:
        from tunesmith.ledger.backup import backup

        return backup(self.ledger, Path(dest))


def train_tasks(projects: Sequence[Project]) -> Any:
    """Train several projects' models one after another, and show them side by side."""
    from tunesmith.flows.tasks import train_tasks

    return train_tasks([p.context for p in projects])


def tasks_apart(projects: Sequence[Project]) -> list[str]:
    """What would keep their adapters off one base, from the settings alone."""
    from tunesmith.flows.tasks import apart

    return list(apart([p.context for p in projects]))


def config_text(resolved: list[tuple[str, Any, str]]) -> str:
    """Settings that differ from their defaults, one a line, with where each was said."""
    return "\n".join(f"{key}: {value}  # {origin}" for key, value, origin in resolved if origin != "default")
