"""`project.data`: the verbs of `tunesmith data`, one thin method each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.canonical import read_json
from tunesmith.flows import history
from tunesmith.flows.data_words import DataStep

if TYPE_CHECKING:
    from tunesmith.export.formats.catalog import Exported
    from tunesmith.flows.context import Context
    from tunesmith.flows.enough import Facts


class Data:
    """What happens to the rows of one project, and what happened to them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # The steps

    def read(self) -> DataStep:
        """Read every file, and write into tunesmith.yaml how its records are read where that was not said."""
        done = self._step("check")
        shapes = done.facts.get("shape", "")
        settings = self._context.settings
        is_open = (
            bool(settings.data.files)
            and settings.data.shape is None
            and settings.task.text is None
            and settings.task.label is None
        )
        if is_open and shapes and "," not in shapes:
            from tunesmith.core.project_edit import set_values
            from tunesmith.core.project_file import FILE_NAME

            set_values(self._context.root / FILE_NAME, {"data.shape": shapes})
        return done

    def clean(self) -> DataStep:
        """The named cleaning steps over the texts."""
        return self._step("clean", off="data.clean.steps", on="--set data.clean.steps=[control,whitespace]")

    def dedup(self) -> DataStep:
        """Leave out near copies, and rows that must not be trained on."""
        return self._step("dedup", off="data.dedup", on="--set data.dedup.enabled=true")

    def audit(self) -> DataStep:
        """Look for personal data, secrets, toxicity, leaks, bias."""
        return self._step("audit", off="data.audit", on="--set data.audit.enabled=true")

    def relabel(self) -> DataStep:
        """Apply the map of label variants and people's judgments; list probable errors."""
        return self._step("label", off="data.labels", on="--set data.labels.judgments=true")

    def split(self) -> DataStep:
        """Split, seal the test set, and prove that no near copy straddles the split."""
        return self._step("prepare")

    def augment(self) -> DataStep:
        """Add rows made from training rows."""
        return self._step("augment", off="data.augment", on="--set data.augment.balance=weights")

    def documents(self) -> DataStep:
        """Manuals, glossaries and FAQs to passages."""
        return self._step("documents", off="documents.files", on="documents: {files: [manual.pdf]} in tunesmith.yaml")

    def pairs(self) -> DataStep:
        """Passages to questions with answers, waiting for approval."""
        return self._step("pairs", off="documents.files", on="documents: {files: [manual.pdf]} in tunesmith.yaml")

    def label(self, *, host: str | None = None, port: int | None = None, me: str | None = None) -> None:
        """Serve the labelling page until stopped."""
        from tunesmith.core.errors import Busy
        from tunesmith.flows.label import open_room
        from tunesmith.ledger.locks import FileLock
        from tunesmith.web.label.server import serve_labels

        said = self._context.settings.label
        lock = FileLock(self._context.ledger.locks / "review")  # a room knows only its own process's judgments
        if not lock.try_now():
            raise Busy("somebody else serves this project's labelling page", fix="use that page, or stop it first")
        try:
            serve_labels(
                open_room(self._context),
                host=host or said.host,
                port=said.port if port is None else port,
                me=me or said.me,
            )
        finally:
            lock.release()

    def judgments(self) -> list[dict[str, Any]]:
        """Every judgment so far, oldest first."""
        from tunesmith.ledger.judgments import Judgments

        return list(Judgments(self._context.ledger).list())

    def curve(self, sizes: Sequence[int] = (), **changes: Any) -> Facts:
        """What more rows would be worth: a learning curve by a cheap model, or, at `sizes`, by the model itself."""
        from tunesmith.flows.enough import curve, model_curve

        return model_curve(self._context, sizes) if sizes else curve(self._context, **changes)

    def compare(self, sample: str | Path, **changes: Any) -> Facts:
        """Whether the data looks like a sample of real inputs, and by which words it does not."""
        from tunesmith.flows.enough import compare

        return compare(self._context, Path(sample), **changes)

    def _rows(self, version: str) -> Path:
        """Where what left and changed is listed: a version, or however far the present settings have got."""
        if version != "latest":
            return self._folder(version)
        from tunesmith.core.errors import InputError
        from tunesmith.flows.data_steps import current

        journey = current(self._context)
        made = [r.outputs[o] for r in journey.runs.values() for o in ("examples", "dataset") if o in r.outputs]
        if not made:
            raise InputError("nothing has been read with these settings yet", fix="tunesmith data split")
        return self._context.ledger.path(made[-1])

    def _step(self, name: str, *, off: str = "", on: str = "") -> DataStep:
        from tunesmith.core.errors import InputError
        from tunesmith.flows.data_steps import FACTS, data_steps
        from tunesmith.flows.run import walk

        if name not in {s.name for s in data_steps(self._context)}:
            raise InputError("nothing is asked for, so there is nothing to do", where=off, fix=on)
        run = walk(self._context, name).runs[name]
        file, output = FACTS[name]
        folder = self._context.ledger.path(run.outputs[output])
        return DataStep(step=name, facts=read_json(folder / file), folder=folder, run=run.id, reused=run.reused)

    # What happened

    def log(self) -> list[history.Version]:
        """Every version of the data set, oldest first."""
        return history.versions(self._context.ledger)

    def diff(self, a: str, b: str = "latest") -> history.DataDiff:
        """What differs between two versions ("v1", "latest" or the start of an id), row by row."""
        return history.data_diff(self._context.ledger, self._named(a), self._named(b))

    def removed(
        self, reason: str | None = None, step: str | None = None, version: str = "latest"
    ) -> history.RemovedRows:
        """Every row that left or was altered on the way to a version, with its reason, before and after."""
        return history.removed(self._context, self._rows(version), reason=reason, step=step)

    def restore(self, *keys: str, undo: bool = False) -> history.Restored:
        """Take the removal or the change of rows back, by the keys that `removed` shows."""
        return history.restore(self._context, self._rows("latest"), keys, undo=undo)

    # What goes out

    def card(self, version: str = "latest") -> str:
        """The data set's card in the Hugging Face format."""
        from tunesmith.export.dataset_card import dataset_card

        return dataset_card(self._folder(version), name=self._context.name, audience=self._context.task.audience)

    def export(self, to: str, out: str | Path, *, version: str = "latest", unfit: str = "refuse") -> Exported:
        """Write a version in another tool's format into the new folder `out`."""
        from tunesmith.export.formats.catalog import export_dataset

        card = self.card(version) if to == "hf" else ""
        return export_dataset(self._folder(version), Path(out), to=to, card=card, unfit=unfit)

    def _named(self, version: str) -> str:
        """ "latest" is the data set of the present settings, where there is one, and else the newest."""
        if version == "latest":
            from tunesmith.flows.data_steps import current

            made = [r.outputs["dataset"] for r in current(self._context).runs.values() if "dataset" in r.outputs]
            return made[-1] if made else version
        return version

    def _folder(self, version: str) -> Path:
        return self._context.ledger.path(history.version(self._context.ledger, self._named(version)).dataset)
