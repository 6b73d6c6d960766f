"""The header of a safetensors file, checked by our own code before any library maps the file.

Layout: 8 bytes little-endian length N, N bytes of JSON, then the tensors' bytes. Source: the format's
definition in huggingface/safetensors; its 2023 audit found polyglots (bytes that no tensor owns).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER_LIMIT = 100_000_000  # bytes, as in the reference implementation
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorEntry:
    dtype: str
    shape: tuple[int, ...]
    start: int  # byte offsets from the end of the header
    end: int


class BadHeader(Exception):
    """Carries the reason; `header_problem` turns it into text."""


def header_problem(path: Path) -> str | None:
    """Why the file is not a sound safetensors file, or None."""
    try:
        read_header(path)
    except BadHeader as e:
        return str(e)
    return None


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Name → dtype, shape and place of every tensor. Raises BadHeader."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        prefix = f.read(8)
        if len(prefix) < 8:
            raise BadHeader(f"is {size} bytes long: a safetensors file starts with an 8-byte length (cut off?)")
        length = int.from_bytes(prefix, "little")
        if not 2 <= length <= HEADER_LIMIT:
            raise BadHeader(f"claims a header of {length} bytes: not a safetensors file")
        if length > size - 8:
            raise BadHeader(f"claims a header of {length} bytes, but only {size - 8} follow (cut off?)")
        raw = f.read(length)
    if raw[:1] != b"{":
        raise BadHeader("has a header that does not start with '{': not a safetensors file")
    try:
        header = json.loads(raw, object_pairs_hook=_no_repeats)
    except RecursionError as e:
        raise BadHeader("has a header that is nested too deeply") from e
    except ValueError as e:
        raise BadHeader(f"has a header that is not valid JSON: {e}") from e
    if not isinstance(header, dict):
        raise BadHeader("has a header that is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadHeader("has __metadata__ that is not a map from text to text")
    entries = {name: _entry(name, value) for name, value in header.items()}
    _check_places(entries, size - 8 - length)
    return entries


def _no_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise ValueError("a key appears twice")
    return found


def _entry(name: str, value: Any) -> TensorEntry:
    label = repr(name[:120])
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise BadHeader(f"tensor {label} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadHeader(f"tensor {label} has the unknown dtype {str(dtype)[:40]!r}")
    if not _whole_numbers(shape) or len(shape) > 16:
        raise BadHeader(f"tensor {label} has a shape that is not a short list of whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadHeader(f"tensor {label} has data_offsets that are not [start, end]")
    bits = BITS[dtype]
    for n in shape:
        bits *= n
    if bits != 8 * (offsets[1] - offsets[0]):
        raise BadHeader(
            f"tensor {label} has shape {shape} of {dtype}, which its {offsets[1] - offsets[0]} bytes are not"
        )
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def _check_places(entries: dict[str, TensorEntry], length: int) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.end > length:
            raise BadHeader(
                f"tensor {name[:120]!r} ends at byte {entry.end}, but only {length} follow the header (cut off?)"
            )
        if entry.start != at:
            raise BadHeader(f"tensor {name[:120]!r} starts at byte {entry.start} instead of {at}: a gap or an overlap")
        at = entry.end
    if at != length:
        raise BadHeader(f"has {length - at} bytes at its end that belong to no tensor")
