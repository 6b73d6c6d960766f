"""Forget a row or a person: everything the ledger keeps, and a look into the user's own files."""

from __future__ import annotations

import os
from pathlib import Path

from tunesmith.core.sources import expand
from tunesmith.flows.context import Context
from tunesmith.ledger.forget import Forget, Forgotten
from tunesmith.ledger.forget import forget as forget_in

MOST = 100_000  # files of a project folder that are looked into


def forget(context: Context, request: Forget, *, dry_run: bool) -> Forgotten:
    """Raises InputError for a request that means nothing, Busy while a stage runs."""
    return forget_in(context.ledger, request, dry_run=dry_run, outside=own_files(context), progress=context.progress)


def own_files(context: Context) -> dict[str, Path]:
    """The user's data, documents and everything else in the project's folder, by the name to show."""
    root, settings = context.root.absolute(), context.settings
    named = [*settings.data.files, *settings.documents.files, *settings.data.dedup.against]
    found = dict(expand(root, named).files)
    known = {os.path.realpath(path) for path in found.values()}
    for where, folders, names in os.walk(root):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            if len(found) >= MOST:
                return found
            if os.path.realpath(path) not in known and not name.startswith("."):
                found[path.relative_to(root).as_posix()] = path
    return found
