"""A bundle in memory: verified file by file, its prompts proven to become the tokens it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import content_id, file_id, read_json
from tunesmith.core.errors import ModelError, Problem
from tunesmith.core.nouns import FileEntry, Kind
from tunesmith.core.wording import PLAIN
from tunesmith.text.render import Renderer

MANIFEST = "tunesmith.json"
REMAKE = "make the bundle again: tunesmith bundle"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    max_new_tokens: int
    temperature: float = 0.0


class Base(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    artifact: str
    files: dict[str, FileEntry]


class VerdictStatus(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["pass", "fail", "unproven"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """tunesmith.json. Fields that a later version adds are let through; those we need must be there."""

    format: Literal[1]
    kind: Kind
    labels: tuple[str, ...]
    system: str
    base: Base
    files: dict[str, FileEntry]
    generation: Generation
    precision: Literal["fp32", "bf16"]
    verdict: VerdictStatus


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedBundle:
    """A model that is ready to answer."""

    model: Any  # a transformers causal model in eval mode, adapter merged; with `several`, the base they share
    renderer: Renderer
    labels: tuple[str, ...]  # empty unless kind is classify
    kind: Kind
    id: str  # the artifact id of the bundle's folder
    settings: Generation
    context: int  # tokens that prompt and answer may have together
    several: Any = None  # model.several.Several, where the adapter shares its base with others
    adapter: str | None = None  # its name in `several`
    member: Any = None  # serve.adapters.Member

    @property
    def scores_labels(self) -> bool:
        """Whether answers are the likeliest label, as they were evaluated, and not free text."""
        return self.kind == "classify" and len(self.labels) > 0

    @classmethod
    def load(
        cls, folder: Path, base: Path, *, precision: Literal["auto", "fp32", "bf16"] = "auto", device: str = "auto"
    ) -> LoadedBundle:
        """Read a bundle's folder with its base model's folder; "auto" is the precision it was evaluated in;
        `device` as in exec.device.

        Raises ModelError naming every file that is missing, changed or not in the manifest, and ReceiptError
        naming the first token that differs from training.
        """
        from tunesmith.model.device import device_of, refuse_precision  # late: torch
        from tunesmith.model.load import load_tuned

        manifest = read_manifest(folder)
        verify(folder, manifest.files, "bundle", extra_allowed=False)
        is_adapter = (folder / "adapter_config.json").exists()
        if is_adapter:
            verify(base, manifest.base.files, f"base model {manifest.base.name}", extra_allowed=True)
        # An adapter is trained with its base's tokenizer files, full weights carry their own.
        receipt = read_json(folder / "renderer.json")
        user, tokens = receipt.get("user", PLAIN), receipt.get("new_tokens", ())
        renderer = Renderer.load(base if is_adapter else folder, system=manifest.system, user=user, new_tokens=tokens)
        renderer.check(receipt, where=str(folder / "renderer.json"))
        chosen = manifest.precision if precision == "auto" else precision
        where = device_of(device)
        refuse_precision(where, chosen, where="precision")
        model = load_tuned(base, folder, dtype=chosen, device=where)
        return cls(
            model=model,
            renderer=renderer,
            labels=manifest.labels,
            kind=manifest.kind,
            id=bundle_id(folder, manifest),
            settings=manifest.generation,
            context=context_of(model) - virtual_tokens(folder),
        )


def read_manifest(folder: Path) -> Manifest:
    """Raises ModelError when there is none or it can't be understood."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError("there is no tunesmith.json, so this is not a bundle", where=str(folder), fix=REMAKE)
    try:
        return read_json(path, Manifest)
    except msgspec.DecodeError as e:
        raise ModelError(f"not a bundle's manifest: {e}", where=str(path), fix=REMAKE) from e


def bundle_id(folder: Path, manifest: Manifest) -> str:
    """As core.nouns.Artifact counts it: the files of the manifest, and the manifest itself."""
    path = folder / MANIFEST
    files = {**manifest.files, MANIFEST: FileEntry(sha256=file_id(path), bytes=path.stat().st_size)}
    return content_id({"kind": "bundle", "files": files})


def virtual_tokens(folder: Path) -> int:
    """Places of the context that a checkpoint's own virtual tokens take."""
    from tunesmith.model.methods.spec import read_method

    return read_method(folder).virtual_tokens


def context_of(model: Any) -> int:
    """Tokens the model was built for; refuses a model that does not say."""
    config = model.config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    raise ModelError("the model's config.json does not say how long its context is", fix="add max_position_embeddings")


def verify(folder: Path, files: dict[str, FileEntry], what: str, *, extra_allowed: bool) -> None:
    """Raises ModelError naming every file that is missing, changed or, unless `extra_allowed`, not in the manifest."""
    problems = []
    for name, entry in sorted(files.items()):
        path = folder / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            problems.append(Problem(where=str(folder), what=f"{what}: {name!r} points outside its folder", fix=REMAKE))
        elif not path.is_file():
            problems.append(Problem(where=str(path), what=f"{what}: the file is missing", fix=REMAKE))
        elif path.stat().st_size != entry.bytes or file_id(path) != entry.sha256:
            fix = f"restore it, or {REMAKE}"
            problems.append(Problem(where=str(path), what=f"{what}: the file is not the one it was made with", fix=fix))
    if not extra_allowed:
        present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
        for name in sorted(present - set(files) - {MANIFEST}):
            problems.append(
                Problem(where=str(folder / name), what=f"{what}: the file is not in the manifest", fix="remove it")
            )
    if problems:
        raise ModelError(problems)
