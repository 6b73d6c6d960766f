"""Safetensors of a folder, one tensor in memory at a time, read and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.core.errors import ModelError
from tunesmith.model.headers import TensorEntry, read_header
from tunesmith.model.safety import scan

NAMES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Weights:
    """The tensors of a model or checkpoint folder, whatever their files. Scanned before anything is opened."""

    def __init__(self, folder: Path, *, adapter: bool = False) -> None:
        scan(folder, follow_links=True, adapter=adapter)
        self.folder = folder
        self.entries: dict[str, TensorEntry] = {}
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for name, entry in read_header(path).items():
                if name in self.entries:
                    raise ModelError(f"{name} is in two files", where=str(path), fix="export the model again")
                self.entries[name], self._files[name] = entry, path

    def __iter__(self) -> Iterable[str]:
        return iter(sorted(self.entries))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return NAMES[self.entries[name].dtype]

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as f:
            return f.get_tensor(name)


def write_tensors(
    path: Path, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]], tensor: Callable[[str], Tensor]
) -> None:
    """One safetensors file, in name order; `tensor(name)` is called when its bytes are due and then let go."""
    spelled = {dtype: name for name, dtype in NAMES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in sorted(shapes.items()):
        end = at + dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": spelled[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)  # tensors start at a multiple of 8
    with open(path, "wb") as f:
        f.write(len(raw).to_bytes(8, "little") + raw)
        for name, (dtype, shape) in sorted(shapes.items()):
            value = tensor(name).detach().to(dtype).contiguous()
            if tuple(value.shape) != shape:
                raise AssertionError(f"{name}: {tuple(value.shape)} is not {shape}")
            f.write(value.flatten().view(torch.uint8).numpy().tobytes())
