"""Hostile model folders: none loads, none runs, and the message says what and why."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.core.errors import ModelError
from tunesmith.model.catalog import find
from tunesmith.model.headers import BadHeader, header_problem, read_header
from tunesmith.model.load import load_base
from tunesmith.model.safety import problems, scan


class Payload:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.canary,))


def weights(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def set_json(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | values))


def code(canary: Path) -> str:
    return f"from pathlib import Path\nPath({str(canary)!r}).touch()\n"


def pickled(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / name).write_bytes(pickle.dumps(Payload(canary)))


def torch_zip(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as z:
            z.writestr("archive/data.pkl", pickle.dumps(Payload(canary)))

    return make


def python(name: str, where: str, auto_map: object) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).write_text(code(canary))
        set_json(folder, where, auto_map=auto_map)

    return make


def auto_map_only(where: str, value: object) -> Callable[[Path, Path], None]:
    return lambda folder, canary: set_json(folder, where, auto_map=value)


def header(raw: bytes) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / "model.safetensors").write_bytes(raw)


def append(data: bytes) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        with open(folder / "model.safetensors", "ab") as f:
            f.write(data)

    return make


def link(name: str, target: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def index(shard: object) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        names = read_header(folder / "model.safetensors")
        body = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(body))

    return make


def replaced(name: str, data: bytes) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / name).write_bytes(data)


def cut(folder: Path, canary: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def repeated_auto_map(folder: Path, canary: Path) -> None:
    body = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(body + ', "x": {"auto_map": {"AutoConfig": "evil.Config"}}, "x": {}}')


def hidden_shard(folder: Path, canary: Path) -> None:
    """A shard list that leaves tensors out."""
    names = list(read_header(folder / "model.safetensors"))
    body = {"metadata": {}, "weight_map": {"not.there": "model.safetensors", names[0]: "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))


def pipe(folder: Path, canary: Path) -> None:
    os.mkfifo(folder / "vocab.json")


def deep(folder: Path, canary: Path) -> None:
    (folder / "generation_config.json").write_text("[" * 200_000 + "]" * 200_000)


def adapter(folder: Path, canary: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "evil/base", "peft_type": "LORA"})
    )


F32 = entry(0, 16)
HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "pytorch_model.bin": (pickled("pytorch_model.bin"), "pickle form"),
    "sharded .bin": (pickled("pytorch_model-00001-of-00002.bin"), "pickle form"),
    "model.pt": (pickled("model.pt"), "pickle form"),
    "model.pth": (torch_zip("model.pth"), "pickle form"),
    "last.ckpt": (torch_zip("last.ckpt"), "checkpoint in pickle form"),
    "weights.pkl": (pickled("weights.pkl"), "is a pickle"),
    "weights.PKL": (pickled("weights.PKL"), "is a pickle"),
    "x.joblib": (pickled("x.joblib"), "is a pickle"),
    "training_args.bin": (pickled("training_args.bin"), "pickle form"),
    "pickle in a subfolder": (
        lambda f, c: (
            (f / "original").mkdir(),
            (f / "original" / "consolidated.00.pth").write_bytes(pickle.dumps(Payload(c))),
        ),
        "pickle form",
    ),
    "pickle named safetensors": (pickled("model.safetensors"), "is a pickle, whatever its name"),
    "zip named safetensors": (torch_zip("model.safetensors"), "zip archive"),
    "pickle named json": (pickled("tokenizer.json"), "is a pickle, whatever its name"),
    "pickle named txt": (pickled("notes.txt"), "is a pickle, whatever its name"),
    "array with objects": (replaced("bias.npy", b"\x93NUMPY\x01\x00"), "NumPy"),
    "gguf": (replaced("model.gguf", b"GGUF" + b"\xff" * 40), "GGUF"),
    "gguf named safetensors": (replaced("model.safetensors", b"GGUF" + b"\xff" * 40), "GGUF"),
    "keras": (replaced("tf_model.h5", b"\x89HDF\r\n"), "Keras"),
    "shared library": (replaced("kernel.so", b"\x7fELF" + bytes(60)), "compiled code"),
    "program without a suffix": (replaced("run", b"\x7fELF" + bytes(60)), "a program"),
    "archive": (replaced("extra.tar.gz", b"\x1f\x8b" + bytes(60)), "an archive"),
    "script": (replaced("setup", b"#!/bin/sh\ntouch canary\n"), "a script"),
    "auto_map in config": (
        python("modeling_evil.py", "config.json", {"AutoModelForCausalLM": "modeling_evil.M"}),
        "auto_map",
    ),
    "auto_map in tokenizer_config": (
        python("tok.py", "tokenizer_config.json", {"AutoTokenizer": ["tok.T", None]}),
        "auto_map",
    ),
    "auto_map to another repository": (auto_map_only("config.json", {"AutoConfig": "evil/repo--c.C"}), "auto_map"),
    "auto_map in generation_config": (auto_map_only("generation_config.json", {"X": "a.B"}), "auto_map"),
    "auto_map nested": (lambda f, c: set_json(f, "config.json", text_config={"auto_map": {"A": "b.C"}}), "auto_map"),
    "auto_map behind a repeated key": (repeated_auto_map, "auto_map"),
    "auto_map in processor_config": (auto_map_only("processor_config.json", {"AutoProcessor": "p.P"}), "auto_map"),
    "custom_pipelines": (lambda f, c: set_json(f, "config.json", custom_pipelines={"x": {"impl": "p.P"}}), "auto_map"),
    "Python file": (lambda f, c: (f / "configuration_x.py").write_text(code(c)), "Python code"),
    "custom generate": (
        lambda f, c: ((f / "custom_generate").mkdir(), (f / "custom_generate" / "generate.py").write_text(code(c))),
        "Python code",
    ),
    "template of 1 MB": (replaced("chat_template.jinja", b"{{ 'x' }}" * 120_000), "too large for a chat template"),
    "template of 1 MB in JSON": (
        lambda f, c: set_json(f, "tokenizer_config.json", chat_template="{{ 'x' }}" * 120_000),
        "too large for a chat template",
    ),
    "link out of the folder": (link("tokenizer.json", "/etc/hostname"), "is a link to /etc/hostname"),
    "relative link out": (link("vocab.json", "../../../../../../etc/passwd"), "outside the folder"),
    "link to nothing": (link("vocab.json", "missing.json"), "link to nothing"),
    "pipe that would hang": (pipe, "not a plain file"),
    "name with control characters": (replaced("a\x1b[31m\nb.json", b"{}"), "control characters"),
    "index leads up": (index("../../secrets.safetensors"), "leads out of the folder"),
    "index is absolute": (index("/etc/passwd.safetensors"), "leads out of the folder"),
    "index leads to a pickle": (index("pytorch_model.bin"), "no safetensors file"),
    "index with a hidden NUL": (index("model\x00.safetensors"), "leads out of the folder"),
    "index to a missing shard": (index("model-00001-of-00009.safetensors"), "is missing"),
    "index of numbers": (index(7), "not a map from tensor to file name"),
    "index names other tensors": (hidden_shard, "do not hold"),
    "header longer than the file": (header(weights({"a": F32}, bytes(16), length=10_000)), "cut off"),
    "header of 2^64": (header(struct.pack("<Q", 2**64 - 1) + bytes(64)), "not a safetensors file"),
    "header of 0": (header(struct.pack("<Q", 0) + bytes(64)), "not a safetensors file"),
    "empty weights": (header(b""), "0 bytes long"),
    "header is no JSON": (header(weights(b"{]", bytes(16))), "not valid JSON"),
    "header is a list": (header(weights(b"[1]", bytes(16))), "does not start with"),
    "header of brackets": (header(weights(b'{"a":' + b"[" * 200_000, bytes(16))), "nested too deeply"),
    "offsets overlap": (header(weights({"a": entry(0, 16), "b": entry(8, 24)}, bytes(24))), "a gap or an overlap"),
    "offsets with a gap": (header(weights({"a": entry(0, 16), "b": entry(24, 40)}, bytes(40))), "a gap or an overlap"),
    "offsets past the end": (header(weights({"a": entry(0, 1 << 40, [1 << 38])}, bytes(16))), "only 16 follow"),
    "offsets backwards": (
        header(weights({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, bytes(16))),
        "[start, end]",
    ),
    "negative offsets": (
        header(weights({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, bytes(16))),
        "[start, end]",
    ),
    "shape that overflows": (header(weights({"a": entry(0, 16, [1 << 33, 1 << 33])}, bytes(16))), "16 bytes are not"),
    "shape with a boolean": (header(weights({"a": entry(0, 16, [True, 4])}, bytes(16))), "whole numbers"),
    "shape with a negative": (header(weights({"a": entry(0, 16, [-2, -2])}, bytes(16))), "whole numbers"),
    "unknown dtype": (header(weights({"a": entry(0, 16, [2], "OBJECT")}, bytes(16))), "unknown dtype"),
    "tensor twice": (
        header(weights(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{}}', bytes(16))),
        "twice",
    ),
    "metadata of objects": (header(weights({"__metadata__": {"x": {"y": 1}}, "a": F32}, bytes(16))), "__metadata__"),
    "zip behind the weights": (append(b"PK\x03\x04" + bytes(200)), "belong to no tensor"),
    "pickle behind the weights": (append(b"\x80\x04cos\nsystem\n"), "belong to no tensor"),
    "cut weights": (cut, "cut off"),
    "a billion layers": (
        lambda f, c: set_json(f, "config.json", num_hidden_layers=10**9),
        "asks for 1000000000 layers",
    ),
    "config is no JSON": (replaced("config.json", b"{'a': 1}"), "not valid JSON"),
    "config is a list": (replaced("config.json", b"[]"), "not a JSON object"),
    "config of 5 MB": (replaced("config.json", b'{"a": "' + b"x" * (5 << 20) + b'"}'), "more than the"),
    "brackets in generation_config": (deep, "nested too deeply"),
    "adapter in place of a model": (adapter, "is an adapter"),
    "quantized": (lambda f, c: set_json(f, "config.json", quantization_config={"quant_method": "gptq"}), "quantized"),
}

# load_base follows links, because the ledger's views consist of them; find, which reads a user's folder, does not
LINKS_OUT = ("link out of the folder", "relative link out")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folder_is_refused_and_runs_nothing(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    make, expected = HOSTILE[name]
    canary = tmp_path / "canary"
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    make(folder, canary)
    attempts = [lambda: scan(folder), lambda: find(str(folder), cache=tmp_path / "cache")]
    if name not in LINKS_OUT:
        attempts.append(lambda: load_base(folder, dtype="fp32"))
    for attempt in attempts:
        with pytest.raises(ModelError) as e:
            attempt()
        assert expected in str(e.value)
        assert str(folder) in str(e.value)
    assert not canary.exists()
    assert not list((tmp_path / "cache" / "models").glob("[0-9a-f]*")), "a refused model was left in the cache"


def test_the_corpus_is_large_enough() -> None:
    assert len(HOSTILE) >= 40


def test_a_clean_folder_has_no_problems(tiny_llama: Path) -> None:
    assert list(problems(tiny_llama)) == []


def test_all_problems_are_named_at_once(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    for name in ("pytorch_model.bin", "auto_map in config", "index leads up", "zip behind the weights"):
        HOSTILE[name][0](folder, tmp_path / "canary")
    found = list(problems(folder))
    assert {Path(p.where.split(": ")[0]).name for p in found} >= {
        "pytorch_model.bin",
        "modeling_evil.py",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
    }
    assert all(p.what for p in found)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \*\.safetensors file"):
        scan(tmp_path)
    with pytest.raises(ModelError, match="is not a folder"):
        scan(tmp_path / "nowhere")


def test_git_folders_are_left_alone(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "hooks" / "x.sh").write_text("#!/bin/sh\n")
    local = find(str(folder), cache=tmp_path / "cache")
    assert ".git" not in {p.name for p in local.folder.iterdir()}


def test_header_reader_agrees_with_safetensors(tiny_llama: Path) -> None:
    from safetensors import safe_open

    path = tiny_llama / "model.safetensors"
    found = read_header(path)
    with safe_open(path, framework="pt") as f:
        assert set(f.keys()) == set(found)
        for name in f.keys():  # noqa: SIM118 - not a mapping
            assert list(found[name].shape) == f.get_slice(name).get_shape()


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_header_gets_past_us_that_safetensors_refuses(seed: int, tmp_path: Path) -> None:
    """Bytes of a small file are flipped, cut and repeated: ours never raises anything but BadHeader, and what it
    accepts the library accepts."""
    import random

    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save

    rng = random.Random(seed)
    good = save({"a": np.zeros((2, 3), np.float32), "b": np.ones(5, np.float16)}, metadata={"format": "pt"})
    path = tmp_path / "x.safetensors"
    accepted = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(data), 180))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case 2:
                    data[at:at] = data[at : at + rng.randint(1, 8)]
                case _:
                    data[at] = ord(rng.choice('0123456789-"{}[],:'))
        path.write_bytes(bytes(data))
        try:
            read_header(path)
        except BadHeader as e:
            assert str(e) == header_problem(path)
            continue
        accepted += 1
        with safe_open(path, framework="np") as f:
            list(f.keys())
    assert accepted < 200
