"""What a model folder may hold, checked before any loader opens it.

Weights in safetensors and plain JSON, nothing that runs. A loader that finds a pickle or an `auto_map`
executes what the file's author wrote, so both are refused by name, by content and at any depth.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.core.errors import ModelError, Problem
from tunesmith.model.headers import TensorEntry, header_problem, read_header

RUNS_CODE = {
    ".bin": "PyTorch weights in pickle form",
    ".pt": "PyTorch weights in pickle form",
    ".pth": "PyTorch weights in pickle form",
    ".ckpt": "a checkpoint in pickle form",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".joblib": "a pickle",
    ".dill": "a pickle",
    ".npy": "a NumPy file, which may hold a pickle",
    ".npz": "a NumPy file, which may hold a pickle",
    ".msgpack": "Flax weights, not safetensors",
    ".h5": "a Keras file, which may hold code",
    ".keras": "a Keras file, which may hold code",
    ".py": "Python code",
    ".pyc": "Python code",
    ".pyd": "compiled code",
    ".so": "compiled code",
    ".dll": "compiled code",
    ".dylib": "compiled code",
    ".exe": "a program",
    ".sh": "a shell script",
    ".whl": "a Python package",
    ".egg": "a Python package",
    ".zip": "an archive",
    ".tar": "an archive",
    ".gz": "an archive",
    ".tgz": "an archive",
    ".7z": "an archive",
    ".gguf": "GGUF weights, not safetensors",
    ".ggml": "GGML weights, not safetensors",
    ".onnx": "an ONNX graph, not safetensors",
}
MAGIC = (
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "a zip archive (PyTorch's pickle format is one)"),
    (re.compile(rb"\x7fELF"), "a program"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"GGUF"), "GGUF weights"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"\x93NUMPY"), "a NumPy file"),
    (re.compile(rb"#!"), "a script"),
)
# The files a loader reads; only these are copied into the cache.
KEPT = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    r"|[\w.-]+\.safetensors|[\w.-]+\.safetensors\.index\.json|merges\.txt|tokenizer\.model|chat_template\.jinja"
    r"|(LICENSE|LICENCE|NOTICE)(\.\w+)?",
)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
NEVER_READ = frozenset({".git", ".cache", ".gitattributes", ".DS_Store"})  # left alone, never copied
MIB = 1 << 20
JSON_LIMIT = {"tokenizer.json": 128 * MIB, "vocab.json": 64 * MIB, "tokenizer_config.json": 16 * MIB}
TEMPLATE_LIMIT = MIB // 2  # bytes; real chat templates are 0.3 to 30 kB
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_hidden_groups", "num_decoder_layers")
FILES_LIMIT = 20_000


def scan(folder: Path, *, follow_links: bool = False, adapter: bool = False) -> None:
    """Raises ModelError with every problem found; returns when the folder is safe to load.

    `follow_links` is for the ledger's own views, whose files are links into its store. `adapter` is
    for a checkpoint's folder: elsewhere an adapter_config.json would make a loader fetch another base.
    """
    found = list(problems(folder, follow_links=follow_links, adapter=adapter))
    if found:
        raise ModelError(found)


def problems(folder: Path, *, follow_links: bool = False, adapter: bool = False) -> Iterator[Problem]:
    """Everything wrong with a model folder, in the order of the file names."""
    if not folder.is_dir():
        yield Problem(where=str(folder), what="is not a folder", fix="give the folder that holds config.json")
        return
    files: list[Path] = []
    for entry in walk(folder):
        if isinstance(entry, Problem):
            yield entry
            continue
        problem = file_problem(folder, entry, follow_links=follow_links)
        if problem is not None:
            yield problem
        else:
            files.append(entry)
    headers: dict[str, dict[str, TensorEntry]] = {}
    for path in files:
        if path.suffix.lower() == ".safetensors":
            reason = header_problem(path)
            if reason:
                yield Problem(where=str(path), what=reason, fix="download or export the weights again")
            else:
                headers[path.relative_to(folder).as_posix()] = read_header(path)
        elif path.suffix.lower() == ".json":
            yield from json_problems(folder, path)
        elif path.suffix.lower() in (".jinja", ".jinja2") and path.stat().st_size > TEMPLATE_LIMIT:
            yield Problem(where=str(path), what=f"is {path.stat().st_size} bytes, too large for a chat template")
    yield from layout_problems(folder, files, headers, adapter=adapter)


def walk(folder: Path) -> Iterator[Path | Problem]:
    """Every file below `folder`, links not followed, in name order."""
    waiting, seen = [folder], 0
    while waiting:
        here = waiting.pop(0)
        for entry in sorted(os.scandir(here), key=lambda e: e.name):
            seen += 1
            if seen > FILES_LIMIT:
                yield Problem(where=str(folder), what=f"holds more than {FILES_LIMIT} files: not a model folder")
                return
            if entry.name in NEVER_READ:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                yield Path(entry.path)


def file_problem(folder: Path, path: Path, *, follow_links: bool) -> Problem | None:
    """What is wrong with one file by its kind, its name or its first bytes."""
    name = path.relative_to(folder).as_posix()
    where = str(folder / printable(name))
    if printable(name) != name:
        return Problem(where=where, what="has control characters in its name", fix="remove it")
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        if not follow_links and not path.resolve().is_relative_to(folder.resolve()):
            return Problem(
                where=where,
                what=f"is a link to {printable(str(path.readlink()))}, outside the folder",
                fix=f"copy the folder with its files: cp -rL {folder} NEW-FOLDER",
            )
        if not path.is_file():
            return Problem(where=where, what="is a link to nothing that is a file", fix="remove it or copy the file")
    elif not stat.S_ISREG(mode):
        return Problem(where=where, what="is not a plain file (a pipe, socket or device)", fix="remove it")
    for suffix in PurePosixPath(name.lower()).suffixes[-2:]:
        if suffix in RUNS_CODE:
            return Problem(
                where=where,
                what=f"is {RUNS_CODE[suffix]}; Tunesmith loads safetensors only, because the other forms can run code",
                fix="save the model with safe_serialization (model.safetensors) and remove this file",
            )
    with open(path, "rb") as f:
        start = f.read(16)
    for magic, kind in MAGIC:
        if magic.match(start) and not (kind == "a script" and path.suffix == ".md"):
            return Problem(where=where, what=f"is {kind}, whatever its name says", fix="remove it; never load it")
    return None


def printable(name: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)


def json_problems(folder: Path, path: Path) -> Iterator[Problem]:
    """auto_map at any depth, broken or oversized JSON, index entries that lead elsewhere."""
    where, limit = str(path), JSON_LIMIT.get(path.name, 32 * MIB if path.name.endswith(".index.json") else 4 * MIB)
    if path.stat().st_size > limit:
        yield Problem(where=where, what=f"is {path.stat().st_size} bytes, more than the {limit} allowed")
        return
    keys: set[str] = set()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys.update(k for k, _ in items)  # also those that a repeated key would hide
        return dict(items)

    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=pairs)
    except RecursionError:
        yield Problem(where=where, what="is nested too deeply for JSON of a model", fix="remove it")
        return
    except ValueError as e:
        yield Problem(where=where, what=f"is not valid JSON: {e}", fix="download or export the model again")
        return
    if not isinstance(value, dict):
        if path.name in ("config.json", "tokenizer.json", "tokenizer_config.json") or ".index." in path.name:
            yield Problem(where=where, what="is not a JSON object", fix="download or export the model again")
        return
    if "auto_map" in keys or "custom_pipelines" in keys:
        yield Problem(
            where=where,
            what="has an auto_map (or custom_pipelines): the model asks the loader to run Python code of its own",
            fix="use a model of an architecture that transformers has built in",
        )
    template = json.dumps(value.get("chat_template") or "")
    if len(template) > TEMPLATE_LIMIT:
        yield Problem(where=f"{where}: chat_template", what=f"is {len(template)} bytes, too large for a chat template")
    if path.name.endswith(".index.json"):
        yield from index_problems(folder, path, value)


def index_problems(folder: Path, path: Path, index: dict[str, Any]) -> Iterator[Problem]:
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
        yield Problem(where=f"{path}: weight_map", what="is not a map from tensor to file name")
        return
    for shard in sorted(set(shards.values())):
        where = f"{path}: weight_map: {printable(shard)[:120]}"
        if not re.fullmatch(r"[\w.-]+\.safetensors", shard) or ".." in shard:
            yield Problem(where=where, what="leads out of the folder or is no safetensors file", fix="remove the model")
        elif not (path.parent / shard).is_file():
            yield Problem(where=where, what="is missing", fix="download or export the model again, all files")


def layout_problems(
    folder: Path, files: list[Path], headers: dict[str, dict[str, TensorEntry]], *, adapter: bool
) -> Iterator[Problem]:
    """What must be there, what must not, and sizes that would exhaust the machine before a shape is compared."""
    names = {p.relative_to(folder).as_posix() for p in files}
    has_adapter = bool(names & set(ADAPTER))
    if has_adapter and not adapter:
        yield Problem(
            where=str(folder),
            what="is an adapter (adapter_config.json), not a whole model",
            fix="name the base model, or merge the adapter into it first",
        )
    if adapter and has_adapter:
        return
    if "config.json" not in names and not (folder / "config.json").exists():
        yield Problem(
            where=str(folder / "config.json"), what="is missing", fix="give a folder in the Hugging Face layout"
        )
    top = {n: h for n, h in headers.items() if "/" not in n}
    if not top and not any(p.suffix.lower() == ".safetensors" for p in folder.iterdir()):
        yield Problem(
            where=str(folder),
            what="has no *.safetensors file, so no weights that Tunesmith loads",
            fix="save the model with safe_serialization (model.safetensors)",
        )
    for index in sorted(n for n in names if n.endswith(".safetensors.index.json") and "/" not in n):
        yield from missing_tensors(folder / index, top)
    if top and "config.json" in names:
        yield from config_problems(folder / "config.json", sum(len(h) for h in top.values()))


def missing_tensors(index: Path, headers: dict[str, dict[str, TensorEntry]]) -> Iterator[Problem]:
    try:
        shards: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        lost = sorted(t for t, s in shards.items() if s in headers and t not in headers[s])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # reported by json_problems
    if lost:
        yield Problem(
            where=str(index),
            what=f"names {len(lost)} tensors that their files do not hold, first {lost[0][:120]!r}",
            fix="download or export the model again, all files of one version",
        )


def config_problems(path: Path, tensors: int) -> Iterator[Problem]:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return  # reported by json_problems
    if not isinstance(config, dict):
        return
    for key in LAYER_KEYS:
        layers = config.get(key)
        if isinstance(layers, int) and layers > tensors:
            yield Problem(
                where=f"{path}: {key}", what=f"asks for {layers} layers, but the weights hold {tensors} tensors"
            )
    if config.get("quantization_config"):
        yield Problem(
            where=f"{path}: quantization_config",
            what="the weights are quantized; training and merging need the unquantized model",
            fix="give the folder of the original model",
        )
