"""Which bundle an adapter's place stands for, and which projects are served together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError, Problem, StorageError
from tunesmith.flows.context import Context
from tunesmith.ledger.ledger import Ledger
from tunesmith.model.catalog import find

STATE = ".tunesmith"
PROD, LATEST = "prod", "latest"


def places(context: Context, said: Mapping[str, str]) -> dict[str, tuple[Path, Path]]:
    """By name, (the bundle's folder, its base's folder). Raises InputError with every place that means nothing."""
    found, problems = {}, list[Problem]()
    for name, place in said.items():
        try:
            found[name] = bring(context, place)
        except InputError as e:
            problems += [Problem(where=f"adapter {name}: {place}", what=p.what, fix=p.fix) for p in e.problems]
    if problems:
        raise InputError(problems)
    return found


def bring(context: Context, place: str) -> tuple[Path, Path]:
    """A project's folder (its `prod`), FOLDER@BUNDLE, a bundle's folder, or an id or alias of this project."""
    path, _, wanted = place.rpartition("@") if "@" in place else (place, "", PROD)
    folder = Path(path) if Path(path).is_absolute() else context.root / path
    if path and (folder / "tunesmith.yaml").is_file():
        with Ledger.open(folder / STATE) as ledger:
            return of_ledger(ledger, wanted, f"cd {path} && tunesmith run")
    if path and (folder / "tunesmith.json").is_file():
        artifact = read_json(folder / "tunesmith.json").get("base", {}).get("artifact", "")
        if context.ledger.find_artifact(artifact):
            return folder, context.ledger.path(artifact)
        return folder, find(context.settings.model, progress=context.progress).folder
    if folder.exists() or "/" in place:
        raise InputError("is no project's folder and no bundle's", fix="give a folder that holds tunesmith.yaml")
    return of_ledger(context.ledger, place, "tunesmith runs --stage bundle")


def of_ledger(ledger: Ledger, wanted: str, fix: str) -> tuple[Path, Path]:
    """By alias, `latest`, or the beginning of an id."""
    target = ledger.reference(wanted) or wanted
    if wanted == LATEST:
        made = next((r for r in ledger.runs(stage="bundle") if r.status == "finished"), None)
        target = made.outputs["bundle"] if made else wanted
    artifact = ledger.find_artifact(target)
    if artifact is None or artifact.kind != "bundle":
        what = "has no model that passed its goals" if wanted == PROD else f"has no bundle {wanted}"
        raise InputError(what, fix=f"{fix}; @latest takes the newest candidate")
    folder = ledger.path(artifact.id)
    try:
        return folder, ledger.path(read_json(folder / "tunesmith.json")["base"]["artifact"])
    except StorageError as e:
        raise InputError(f"its base is not here any more: {e.problems[0].what}", fix=e.problems[0].fix) from e
