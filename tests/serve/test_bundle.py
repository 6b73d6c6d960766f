"""A bundle that is not exactly what was evaluated does not get served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.serve.bundles import LABELS, SYSTEM, entries, write
from tunesmith.core.errors import ModelError, ReceiptError
from tunesmith.core.nouns import Artifact, FileEntry
from tunesmith.serve.bundle import LoadedBundle


@pytest.fixture
def copies(bundle_folders: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    return tuple(shutil.copytree(f, tmp_path / f.name) for f in bundle_folders)  # type: ignore[return-value]


def change(folder: Path, **values: object) -> None:
    path = folder / "tunesmith.json"
    write(path, json.loads(path.read_text()) | {"files": entries(folder)} | values)


def test_a_whole_bundle_loads_with_everything_it_says(bundle_folders: tuple[Path, Path]) -> None:
    loaded = LoadedBundle.load(*bundle_folders)
    assert loaded.labels == LABELS and loaded.scores_labels and loaded.kind == "classify"
    assert loaded.renderer.system == SYSTEM and loaded.context == 512
    assert not loaded.model.training
    files = {
        p.name: FileEntry(**e) for p, e in ((bundle_folders[0] / n, e) for n, e in entries(bundle_folders[0]).items())
    }
    manifest = bundle_folders[0] / "tunesmith.json"
    files["tunesmith.json"] = FileEntry(**entries_of(manifest))
    assert loaded.id == Artifact(kind="bundle", files=files).id


def entries_of(path: Path) -> dict[str, object]:
    from tunesmith.core.canonical import file_id

    return {"sha256": file_id(path), "bytes": path.stat().st_size}


def test_files_may_be_links_into_a_store(bundle_folders: tuple[Path, Path], tmp_path: Path) -> None:
    view = tmp_path / "view"
    view.mkdir()
    for file in bundle_folders[0].iterdir():
        (view / file.name).symlink_to(file)
    assert LoadedBundle.load(view, bundle_folders[1]).id == LoadedBundle.load(*bundle_folders).id


def test_every_changed_missing_and_added_file_is_named(copies: tuple[Path, Path]) -> None:
    folder, base = copies
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1  # one bit
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "verdict.json").unlink()
    (folder / "extra.py").write_text("print('never')")
    with pytest.raises(ModelError) as refused:
        LoadedBundle.load(folder, base)
    message = str(refused.value)
    assert "adapter_model.safetensors: bundle: the file is not the one it was made with" in message
    assert "verdict.json: bundle: the file is missing" in message
    assert "extra.py: bundle: the file is not in the manifest" in message


def test_another_base_model_is_refused(copies: tuple[Path, Path]) -> None:
    folder, base = copies
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (base / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.safetensors: base model tiny: the file is not the one"):
        LoadedBundle.load(folder, base)


def test_a_changed_template_is_refused_with_the_first_token_that_differs(copies: tuple[Path, Path]) -> None:
    """Also where somebody rewrote the manifest to fit: the receipt is in the trained checkpoint."""
    folder, base = copies
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>' + '\n'", "<|im_end|>' + ' '"))
    change(folder, base={"name": "tiny", "artifact": "0" * 64, "files": entries(base)})
    with pytest.raises(ReceiptError, match=r"token \d+ was \d+ '\\n' in training and is \d+ .* now"):
        LoadedBundle.load(folder, base)


def test_another_system_prompt_than_in_training_is_refused(copies: tuple[Path, Path]) -> None:
    folder, base = copies
    change(folder, system="Be someone else.")
    with pytest.raises(ReceiptError, match="was made with the system prompt"):
        LoadedBundle.load(folder, base)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"format": 2}, "not a bundle's manifest: .*format"),
        ({"kind": "guess"}, "not a bundle's manifest: .*kind"),
        ({"files": {"../x": {"sha256": "0", "bytes": 1}}}, "points outside its folder"),
        ({"files": {"/etc/passwd": {"sha256": "0", "bytes": 1}}}, "points outside its folder"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(copies: tuple[Path, Path], values: dict, message: str) -> None:
    change(copies[0], **values)
    with pytest.raises(ModelError, match=message):
        LoadedBundle.load(*copies)


def test_a_folder_without_a_manifest_is_no_bundle(copies: tuple[Path, Path]) -> None:
    (copies[0] / "tunesmith.json").unlink()
    with pytest.raises(ModelError, match=r"there is no tunesmith\.json, so this is not a bundle"):
        LoadedBundle.load(*copies)
