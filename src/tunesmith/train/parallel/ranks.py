"""What all engines have in common: connecting, sharing out a batch, agreeing.

Nothing of a batch is sent: every rank reads the same rows, works out every rank's share by the same rule and takes
its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tunesmith.core.canonical import write_atomic
from tunesmith.core.stage import Exec
from tunesmith.model.flat_layout import Document, shared_prefix
from tunesmith.train.batches import split
from tunesmith.train.parallel.world import World

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def connect(exec: Exec) -> None:
    """Join the other ranks. Asserts that there are as many as asked for."""
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise RuntimeError(f"{exec.engine} needs ranks started by torchrun (launch/perform.py); not set: {missing}")
    if not exec.threads:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // exec.processes))
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if dist.get_world_size() != exec.ranks:
        raise RuntimeError(f"{dist.get_world_size()} ranks came together, and {exec.ranks} were asked for")


def shares(batch: Sequence[Document], ranks: int) -> list[list[Document]]:
    """Whole documents for each rank, about equal in tokens: the longest first, each to the rank that has least."""
    found: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for i in sorted(range(len(batch)), key=lambda i: (-len(batch[i].ids), batch[i].key, i)):
        least = tokens.index(min(tokens))
        found[least].append(i)
        tokens[least] += len(batch[i].ids)
    return [[batch[i] for i in sorted(chosen)] for chosen in found]


class Ranks(World):
    """Several processes."""

    in_step = False  # whether every rank must do as many forward passes as the others

    def __init__(self, exec: Exec):
        self.name = exec.engine
        self.rank, self.size, self.nodes = dist.get_rank(), dist.get_world_size(), exec.nodes
        self.writes = int(os.environ["LOCAL_RANK"]) == 0

    def micros(self, batch: Sequence[Document], max_tokens: int, *, shares_prefix: bool) -> list[list[Document]]:
        def parts(own: Sequence[Document]) -> list[list[Document]]:
            return split(own, max_tokens, shared=shared_prefix(own) if shares_prefix and own else 0)

        every = shares(batch, self.size)
        found = parts(every[self.rank])
        if self.in_step:  # a rank with less to do goes through the motions: its example weighs nothing
            idle = replace(min(batch, key=lambda d: len(d.ids)), weight=0.0)
            found += [[idle]] * (max(len(parts(own)) for own in every) - len(found))
        return found

    def sum(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def due(self, stop: threading.Event, due: bool) -> bool:
        said = torch.tensor([stop.is_set(), due], dtype=torch.int32)
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        if said[0]:
            stop.set()
        return bool(said.any())

    def same(self, outcome: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_spread(json.dumps(outcome).encode(), self.rank))
        return found

    def wait(self) -> None:
        dist.barrier()

    def share(self, folder: Path) -> None:
        if self.nodes == 1:
            return
        mine = {p.name: p for p in sorted(folder.iterdir()) if p.is_file()} if self.rank == 0 else {}
        names: list[str] = json.loads(_spread(json.dumps(list(mine)).encode(), self.rank))
        for name in names:
            data = _spread(mine[name].read_bytes() if mine else b"", self.rank)
            if self.writes and self.rank:
                write_atomic(folder / name, data)
        if self.writes and self.rank:
            for old in folder.iterdir():
                if old.is_file() and old.name not in names:
                    old.unlink()
        self.wait()


def _spread(data: bytes, rank: int) -> bytes:
    """The first rank's bytes, on all ranks."""
    size = torch.tensor(len(data))
    dist.broadcast(size, 0)
    sent: Tensor = torch.empty(int(size), dtype=torch.uint8)
    if rank == 0 and data:
        sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(sent, 0)
    return sent.numpy().tobytes()
