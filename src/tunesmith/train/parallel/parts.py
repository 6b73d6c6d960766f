"""Tensors that are split among ranks, on disk: torch's distributed checkpoint (DCP), which any number of ranks reads.

The safetensors form of it, where each rank's file says which part of which tensor it holds; DCP's other form is a
pickle, which Tunesmith never reads.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from tunesmith.core.canonical import sync_folder


def write(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write the split ones into the new folder, each rank its part; returns the others. Durable once all are back."""
    split = {n: t for n, t in tensors.items() if isinstance(t, DTensor)}
    folder.mkdir(exist_ok=True)
    with _quietly():
        dcp.save(split, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    sync_folder(folder)
    return {n: t for n, t in tensors.items() if n not in split}


def read(folder: Path, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What `write` wrote, by however many ranks: split as the parameters are now, whole where they are whole."""
    reader = HuggingFaceStorageReader(str(folder))
    found: dict[str, Tensor] = {}
    for key, saved in reader.read_metadata().state_dict_metadata.items():
        p = parameters.get(key.removeprefix("weight.") if key.startswith("weight.") else key.split(".", 2)[2])
        if isinstance(p, DTensor) and p.shape == saved.size:
            found[key] = torch.empty_like(p, dtype=saved.properties.dtype, requires_grad=False)
        else:
            found[key] = torch.empty(saved.size, dtype=saved.properties.dtype)
    alone = not any(isinstance(t, DTensor) for t in found.values())
    with _quietly():
        dcp.load(found, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """DCP tells about its own workings."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
