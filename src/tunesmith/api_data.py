"""`project.data`: the verbs of `tunesmith data`, one thin method each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.flows import history

if TYPE_CHECKING:
    from tunesmith.export.formats.catalog import Exported
    from tunesmith.flows.context import Context


class Data:
    """What happens to the rows of one project, and what happened to them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # What happened

    def log(self) -> list[history.Version]:
        """Every version of the data set, oldest first."""
        return history.versions(self._context.ledger)

    def diff(self, a: str, b: str = "latest") -> history.DataDiff:
        """What differs between two versions ("v1", "latest" or the start of an id), row by row."""
        return history.data_diff(self._context.ledger, a, b)

    def removed(
        self, reason: str | None = None, step: str | None = None, version: str = "latest"
    ) -> history.RemovedRows:
        """Every row that left or was altered on the way to a version, with its reason, before and after."""
        return history.removed(self._context, self._folder(version), reason=reason, step=step)

    def restore(self, *keys: str, undo: bool = False) -> history.Restored:
        """Take the removal or the change of rows back, by the keys that `removed` shows."""
        return history.restore(self._context, self._folder("latest"), keys, undo=undo)

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

    def _folder(self, version: str) -> Path:
        return self._context.ledger.path(history.version(self._context.ledger, version).dataset)

    def _last(self, verb: str, step: str) -> Any:
        from tunesmith.flows.run import walk

        return walk(self._context, verb).runs[step]
