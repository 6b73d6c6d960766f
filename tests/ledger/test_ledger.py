"""An artifact is a folder of exactly its files, verified at every use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.ledger.stages import add_source, run_repeat
from tunesmith.core.errors import InputError, StorageError
from tunesmith.core.nouns import Artifact
from tunesmith.ledger import verify
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import copy_hashed


def model_in_cache(tmp_path: Path) -> tuple[Artifact, Path]:
    cache = tmp_path / "cache" / "model"
    (cache / "sub").mkdir(parents=True)
    (tmp_path / "w").write_bytes(b"weights" * 1000)
    files = {n: copy_hashed(tmp_path / "w", cache / n) for n in ("model.safetensors", "sub/config.json")}
    (cache / "README.md").write_text("not part of it", encoding="utf-8")
    return Artifact(kind="model", files=files), cache


@pytest.fixture
def settled(monkeypatch) -> None:
    """Files count as old enough at once, so that tests need not wait two seconds."""
    monkeypatch.setattr(verify, "SETTLED_NS", -1)


def count_hashing(monkeypatch) -> list[Path]:
    read: list[Path] = []
    real = verify.file_id
    monkeypatch.setattr(verify, "file_id", lambda path: read.append(path) or real(path))
    return read


def test_path_is_a_folder_of_exactly_the_artifacts_files(ledger: Ledger) -> None:
    run = run_repeat(ledger, add_source(ledger, "s"), text="t", times=2)
    view = ledger.path(run.outputs["rows"])
    assert sorted(p.relative_to(view).as_posix() for p in view.rglob("*") if p.is_file()) == [
        "parts/one.txt",
        "two.txt",
    ]
    assert (view / "parts" / "one.txt").read_text(encoding="utf-8") == "stst"


def test_a_project_may_be_moved(ledger: Ledger, tmp_path: Path) -> None:
    source = add_source(ledger)
    ledger.path(source)
    ledger.close()
    shutil.move(ledger.state, tmp_path / "moved")
    with Ledger.open(tmp_path / "moved") as moved:
        links = [p.readlink() for p in moved.path(source).iterdir()]
        assert all(not link.is_absolute() for link in links)
        assert (moved.path(source) / "rows.csv").read_text(encoding="utf-8").startswith("a,b")


@pytest.mark.parametrize("harm", ["removed", "emptied", "extra file", "other target", "real file"])
def test_a_spoiled_view_is_built_again(ledger: Ledger, harm: str) -> None:
    source = add_source(ledger)
    view = ledger.path(source)
    link = view / "rows.csv"
    if harm == "removed":
        shutil.rmtree(view)
    elif harm == "extra file":
        (view / "adapter_config.json").write_text("{}", encoding="utf-8")
    else:
        link.unlink()
        if harm == "other target":
            link.symlink_to("/etc/hostname")
        elif harm == "real file":
            link.write_text("forged", encoding="utf-8")
    view = ledger.path(source)
    assert [p.name for p in view.iterdir()] == ["rows.csv"]
    assert (view / "rows.csv").read_text(encoding="utf-8").startswith("a,b")


def test_a_file_is_hashed_once_while_it_stays_the_same(ledger: Ledger, monkeypatch, settled) -> None:
    source = add_source(ledger)
    ledger.path(source)
    read = count_hashing(monkeypatch)
    ledger.path(source)
    with Ledger.open(ledger.state) as another_process:
        another_process.path(source)
    assert read == []


def test_a_file_younger_than_the_clock_can_tell_is_hashed_again(ledger: Ledger, monkeypatch) -> None:
    source = add_source(ledger)
    ledger.path(source)
    read = count_hashing(monkeypatch)
    ledger.path(source)
    assert len(read) == 1


@pytest.mark.parametrize("mtime_put_back", [False, True])
def test_a_changed_file_is_always_caught(ledger: Ledger, settled, mtime_put_back: bool) -> None:
    source = add_source(ledger)
    file = (ledger.path(source) / "rows.csv").resolve()
    ledger.path(source)
    before = file.stat()
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[0] ^= 1  # same size
    file.write_bytes(content)
    if mtime_put_back:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StorageError, match="the content has changed"):
        ledger.path(source)


def test_a_model_in_the_users_cache_is_recorded_by_hash_and_not_copied(ledger: Ledger, tmp_path: Path) -> None:
    artifact, cache = model_in_cache(tmp_path)
    ledger.add_external(artifact, cache)
    ledger.add_external(artifact, cache)  # again: nothing new to say
    assert list(ledger.objects.hashes()) == []
    assert ledger.records.database.read("SELECT count(*) FROM facts") == [(1,)]
    view = ledger.path(artifact.id)
    assert (view / "model.safetensors").resolve() == cache / "model.safetensors"
    assert not (view / "README.md").exists()  # what was not recorded is not seen


def test_a_model_changed_in_the_cache_is_refused_at_every_use(ledger: Ledger, tmp_path: Path, settled) -> None:
    artifact, cache = model_in_cache(tmp_path)
    ledger.add_external(artifact, cache)
    ledger.path(artifact.id)
    weights = cache / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"Weights" * 1000)
    with pytest.raises(StorageError) as caught:
        ledger.path(artifact.id)
    assert str(weights) in str(caught.value)
    assert f"put the original model back into {cache}" in str(caught.value)
    with pytest.raises(StorageError, match="the content has changed"):
        ledger.add_external(artifact, cache)


def test_a_model_may_move_to_another_place(ledger: Ledger, tmp_path: Path) -> None:
    artifact, cache = model_in_cache(tmp_path)
    ledger.add_external(artifact, cache)
    shutil.move(cache, tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="the file is missing"):
        ledger.path(artifact.id)
    ledger.add_external(artifact, tmp_path / "elsewhere")
    assert (
        ledger.path(artifact.id) / "sub" / "config.json"
    ).resolve() == tmp_path / "elsewhere" / "sub" / "config.json"


def test_unknown_ids_and_missing_files_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no artifact with the id"):
        ledger.path("0" * 64)
    with pytest.raises(InputError, match="no such file"):
        ledger.add_files("source", {"a": tmp_path / "absent"}, move=False)


def test_the_same_files_as_another_kind_are_another_artifact_sharing_the_objects(
    ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("1", encoding="utf-8")
    ids = {ledger.add_files(kind, {"a": tmp_path / "a"}, move=False).id for kind in ("source", "report")}
    assert len(ids) == 2
    assert len(list(ledger.objects.hashes())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o555)
    with pytest.raises(StorageError, match="no permission"):
        Ledger.open(tmp_path / "ro" / ".tunesmith")


def test_a_state_folder_that_cannot_be_made_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError) as caught:
        Ledger.open(tmp_path / "file" / ".tunesmith")
    assert str(tmp_path / "file") in str(caught.value)
    assert caught.value.problems[0].fix
