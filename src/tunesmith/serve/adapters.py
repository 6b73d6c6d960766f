"""Several bundles whose adapters share one base: refused before anything is loaded, then loaded with the base once.

bundles = load_together({"tickets": (folder, base), "letters": (folder, base)})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError, ModelError, Problem, ReceiptError, TunesmithError
from tunesmith.serve.bundle import LoadedBundle, Manifest, bundle_id, context_of, read_manifest, verify, virtual_tokens
from tunesmith.text.render import Renderer

if TYPE_CHECKING:
    from tunesmith.model.several import Held, Several

Place = tuple[Path, Path]  # a bundle's folder, and its base's


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A bundle that was read and checked, its weights not yet."""

    name: str
    folder: Path
    base: Path
    manifest: Manifest
    renderer: Renderer


def load_together(places: Mapping[str, Place]) -> dict[str, LoadedBundle]:
    """By name, all on one base in memory. Raises ModelError with everything that keeps them apart."""
    from tunesmith.model.several import Several, contents  # late: torch

    members = read_members(places)
    first = members[0]
    start = start_of(first.folder)
    problems = [p for m in members[1:] for p in differences(first, m, None if start is None else contents(start))]
    problems += mixed_methods(members)
    if problems:
        raise ModelError(problems)
    verify(first.base, first.manifest.base.files, f"base model {first.manifest.base.name}", extra_allowed=True)
    several = Several(first.base, dtype=first.manifest.precision, start=start)
    bundles = {}
    for m in members:
        bundle = bundle_of(m, several)
        several.put(str(bundle.adapter), several.read(m.folder))
        bundles[m.name] = bundle
    return bundles


def read_beside(place: Place, name: str, others: LoadedBundle) -> tuple[LoadedBundle, Held]:
    """One more for a base in memory: (bundle, adapter to put on it). Raises ModelError as `load_together`."""
    from tunesmith.model.several import contents

    several: Several = others.several
    (member,) = read_members({name: place})
    if several.start is not None and not several.start.is_dir():
        raise ModelError("the start that the others stand on is gone", where=str(several.start), fix="restart serve")
    start = None if several.start is None else contents(several.start)
    problems = differences(others.member, member, start)
    if problems:
        raise ModelError(problems)
    return bundle_of(member, several), several.read(member.folder)


def read_members(places: Mapping[str, Place]) -> list[Member]:
    """Each bundle's files verified, its prompts proven to become the tokens that it was trained on."""
    members, problems = [], list[Problem]()
    for name, (folder, base) in places.items():
        try:
            members.append(_read(name, folder, base))
        except TunesmithError as e:
            problems += [
                Problem(where=f"{name}: {p.where}" if p.where else name, what=p.what, fix=p.fix) for p in e.problems
            ]
    if problems:
        raise ModelError(problems)
    return members


def _read(name: str, folder: Path, base: Path) -> Member:
    from tunesmith.model.methods.spec import read_method
    from tunesmith.model.several import refuse_kind, refuse_new_tokens

    manifest = read_manifest(folder)
    verify(folder, manifest.files, "bundle", extra_allowed=False)
    refuse_kind(read_method(folder), folder)
    refuse_new_tokens(folder)
    if not base.is_dir():
        raise ModelError(f"its base {manifest.base.name} is not here", where=str(base), fix="fetch the base again")
    renderer = Renderer.load(base, system=manifest.system)
    try:
        renderer.check(read_json(folder / "renderer.json"), where=str(folder / "renderer.json"))
    except ReceiptError as e:
        raise ModelError(e.problems) from e
    return Member(name=name, folder=folder, base=base, manifest=manifest, renderer=renderer)


def differences(first: Any, other: Member, start: str | None) -> list[Problem]:
    """Why `other` cannot stand on what the first one stands on; empty where it can. `start`: contents of the first's."""
    from tunesmith.model.several import contents

    mine, theirs = first.manifest, other.manifest
    found = []

    def problem(what: str, fix: str) -> None:
        found.append(Problem(where=f"adapter {other.name}", what=what, fix=fix))

    if mine.base.files != theirs.base.files:
        names = sorted(
            n
            for n in mine.base.files.keys() | theirs.base.files.keys()
            if mine.base.files.get(n) != theirs.base.files.get(n)
        )
        what = f"was trained on another base than {first.name}: {', '.join(names[:3])} of {theirs.base.name} has another hash"
        problem(what, f"serve it by itself, or train it on the base of {first.name}")
    if mine.precision != theirs.precision:
        what = f"was evaluated in {theirs.precision}, and {first.name} in {mine.precision}; one base has one precision"
        problem(what, "set evaluate.precision alike in both projects and run them again")
    inner = start_of(other.folder)
    if (None if inner is None else contents(inner)) != start:
        mine_words, theirs_words = (
            "on top of another checkpoint" if s else "on the base itself" for s in (start, inner)
        )
        what = f"was trained {theirs_words} (start), and {first.name} {mine_words}: these are two sets of weights"
        if start and inner:
            what = f"was trained on top of another checkpoint (start) than {first.name}: these are two sets of weights"
        problem(what, "give both the same train.start, or serve it by itself")
    return found


def mixed_methods(members: list[Member]) -> list[Problem]:
    from tunesmith.model.methods.spec import read_method
    from tunesmith.model.several import VIRTUAL

    kinds = {m.name: read_method(m.folder).kind for m in members}
    tuners = {kind: name for name, kind in reversed(kinds.items()) if kind not in VIRTUAL}
    if len(tuners) < 2:
        return []
    said = ", ".join(f"{name} is {kind}" for kind, name in sorted(tuners.items()))
    what = f"{said}: layers of one base can be changed by one method only"
    return [Problem(where="adapters", what=what, fix="serve each method by itself, on a port of its own")]


def start_of(folder: Path) -> Path | None:
    from tunesmith.model.methods.spec import START

    return folder / START if (folder / START).is_dir() else None


_count = 0


def bundle_of(member: Member, several: Several) -> LoadedBundle:
    global _count
    _count += 1  # a name is used again for what replaces it, while answers of the old one still run
    m = member.manifest
    return LoadedBundle(
        model=several.bare,
        renderer=member.renderer,
        labels=m.labels,
        kind=m.kind,
        id=bundle_id(member.folder, m),
        settings=m.generation,
        context=context_of(several.bare) - virtual_tokens(member.folder),
        several=several,
        adapter=f"{member.name}#{_count}",
        member=member,
    )


def check_name(name: str) -> None:
    """Raises InputError for a name that cannot be a model's in a URL and in a metric."""
    if not name or len(name) > 100 or not all((c.isalnum() and c.isascii()) or c in "-_." for c in name):
        what = "is no name for a model: letters, digits, -, _ and ."
        raise InputError(Problem(where=f"adapter {name!r}", what=what, fix="rename it"))
